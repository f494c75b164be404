"""Addresses of Ray clusters that are none, or where there is none any more."""

from __future__ import annotations

import socket

import pytest

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
