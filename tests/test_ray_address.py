"""Addresses of Ray clusters that are none, or where there is none any more."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import ray

from jgcl_ray import ray_cluster
from jgcl_ray.errors import UserError
from jgcl_ray.ray_cluster import check_address


@pytest.mark.parametrize(
    "address", ["http://head:8265", "http://head", "head", "head:", ":6379", "head:port", "head:0", "head:99999"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=f"RAY_ADDRESS={address}: not the address of a Ray cluster; give HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_gone_is_missed_at_once(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"{scheme}127.0.0.1:{head.getsockname()[1]}"
        check_address(address)
    with pytest.raises(UserError, match=f"no Ray cluster answers at {address}"):
        check_address(address)


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RAY_ADDRESS=auto, and no head on this machine; where `ray start` would leave its address."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_cluster, "find_gcs_addresses", frozenset)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("asked Ray, which waits for minutes"))
    left = tmp_path / "ray" / "ray_current_cluster"
    left.parent.mkdir()
    return left


@pytest.mark.parametrize(
    ("given", "own"), [(None, True), ("", True), ("local", True), ("auto", False), ("h:1", False)]
)
def test_whose_cluster_it_will_be(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, own: bool
) -> None:
    if given is None:
        monkeypatch.delenv("RAY_ADDRESS")
    else:
        monkeypatch.setenv("RAY_ADDRESS", given)
    assert ray_cluster.starts_own_cluster() is own
    with socket.create_server(("127.0.0.1", 0)) as head:
        nobody.write_text(f"127.0.0.1:{head.getsockname()[1]}")
        assert ray_cluster.starts_own_cluster() is (given == "local")


def _enter() -> None:
    with ray_cluster.ray_cluster():
        pass


@pytest.mark.parametrize("left", [None, "", "text", "127.0.0.1:{port}", "127.0.0.1:99999999", "\udcff"])
def test_auto_without_a_head_is_told_at_once(nobody: Path, left: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]  # nobody's from here on
    if left is not None:
        nobody.write_bytes(left.format(port=port).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"no Ray cluster answers on this machine \(RAY_ADDRESS=auto\); start one"):
        _enter()


@pytest.mark.parametrize("left", [True, False])
def test_auto_is_the_head_that_answers(nobody: Path, monkeypatch: pytest.MonkeyPatch, left: bool) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    with socket.create_server(("127.0.0.1", 0)) as head, socket.create_server(("127.0.0.1", 0)) as dead:
        address, gone = (f"127.0.0.1:{each.getsockname()[1]}" for each in (head, dead))
        dead.close()
        nobody.write_text(address if left else gone)
        running = frozenset({gone} if left else {gone, address})
        monkeypatch.setattr(ray_cluster, "find_gcs_addresses", lambda: running)
        _enter()
    assert asked == [address]
