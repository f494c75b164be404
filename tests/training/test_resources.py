"""What a run asks of a Ray cluster, and how long it waits for it; Ray's answers are made up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jgcl_ray.config import Config, load_config
from jgcl_ray.errors import UserError
from jgcl_ray.training import run
from jgcl_ray.training.limits import _check_shares

GPUS = ("scaling.num_workers=2", "scaling.device=cuda", "scaling.cpus_per_worker=7", "pseudo_labels.num_cpus=8")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the autoscaler was asked for; time passes by sleeping alone."""
    calls: list[Any] = []
    clock = iter(range(10_000))
    monkeypatch.setattr(run, "request_resources", lambda bundles: calls.append(bundles))
    monkeypatch.setattr(run.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(run.time, "monotonic", lambda: float(next(clock)))
    return calls


def cluster_of(monkeypatch: pytest.MonkeyPatch, *states: dict[str, float]) -> None:
    """One state at each look, the last one for ever."""
    looks: Iterator[dict[str, float]] = iter(states)
    monkeypatch.setattr(run.ray, "cluster_resources", lambda: next(looks, states[-1]))


def config(*overrides: str) -> Config:
    return load_config(None, overrides)


def test_a_cluster_that_has_them_is_not_asked(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    cluster_of(monkeypatch, {"CPU": 24, "GPU": 2})
    assert run._check_resources(config(*GPUS, "scaling.wait_seconds=100"))
    assert asked == []


def test_machines_are_asked_for_waited_for_and_let_go_again(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    cluster_of(monkeypatch, {"CPU": 8}, {"CPU": 16, "GPU": 1}, {"CPU": 24, "GPU": 2})
    assert run._check_resources(config(*GPUS, "scaling.wait_seconds=100"))
    assert asked == [[{"CPU": 7, "GPU": 1}, {"CPU": 7, "GPU": 1}, {"CPU": 8}], []]


def test_machines_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    cluster_of(monkeypatch, {"CPU": 16, "GPU": 1})
    with pytest.raises(UserError, match=r"2 workers x 7 CPU .* = 22, and the Ray cluster has 16: .*wait_seconds"):
        run._check_resources(config(*GPUS, "scaling.wait_seconds=5"))
    assert asked[-1] == []


def test_without_patience_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    cluster_of(monkeypatch, {"CPU": 8})
    with pytest.raises(UserError, match=r"scaling\.device=cuda: there is no GPU"):
        run._check_resources(config(*GPUS))
    assert asked == []


def test_elastic_workers_start_with_the_fewest(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    cluster_of(monkeypatch, {"CPU": 16, "GPU": 1})
    elastic = config(*GPUS, "scaling.min_workers=1")
    assert run._check_resources(elastic) and asked == []
    assert run._workers(elastic) == (1, 2)
    assert run._workers(config(*GPUS)) == run._workers(config(*GPUS, "scaling.min_workers=2")) == 2


def test_every_number_of_elastic_workers_must_divide_the_batches() -> None:
    _check_shares(config("scaling.num_workers=2", "scaling.min_workers=1"))
    with pytest.raises(UserError, match=r"data\.batch_size = 16 does not divide by 3 workers"):
        _check_shares(config("scaling.num_workers=4", "scaling.min_workers=2"))
    with pytest.raises(UserError, match="min_workers = 3 is more than num_workers = 2"):
        config("scaling.num_workers=2", "scaling.min_workers=3")
