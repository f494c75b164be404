"""The estimator's training on two Ray workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.command import lines, render
from jgcl_ray.estimator_training.on_ray import Training, train_on_ray
from jgcl_ray.estimator_training.train import Learner, Recipe, trained
from jgcl_ray.pretrain import main

ESTIMATOR = Training(render, lines, trained)
SMALL = Recipe(figures=60, steps=3, batch=8, seed=3)


@pytest.mark.slow
def test_two_workers_train_one_network_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    checkpoint, told = tmp_path / "weights.training", []
    train_on_ray(ESTIMATOR, SMALL, checkpoint, workers=2, cuda=False, drawers=1, write_line=told.append)
    assert [line[:11] for line in told] == ["step 3 of 3"]
    assert [path.name for path in tmp_path.glob("weights*")] == [checkpoint.name]
    network, seconds = trained(checkpoint, SMALL)
    before = Learner(SMALL, torch.device("cpu")).network
    moved = [
        not torch.equal(ours, theirs) for ours, theirs in zip(network.parameters(), before.parameters(), strict=True)
    ]
    assert all(moved) and seconds > 0
    with pytest.raises(UserError, match="another training"):
        train_on_ray(ESTIMATOR, replace(SMALL, steps=9), checkpoint, 2, False, 1, told.append)


def test_batches_that_do_not_divide_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["estimator", "--out", str(tmp_path / "weights.safetensors"), "--batch", "8", "--workers", "3"])
    assert end.value.code == 2 and "--batch 8 does not divide by --workers 3" in capsys.readouterr().err
