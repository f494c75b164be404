"""The estimator's training on two Ray workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.on_ray import train_on_ray
from jgcl_ray.estimator_training.train import Learner, Recipe, trained

SMALL = Recipe(figures=60, steps=3, batch=8, seed=3)


@pytest.mark.slow
def test_two_workers_train_one_network_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    checkpoint, lines = tmp_path / "weights.training", []
    train_on_ray(SMALL, checkpoint, workers=2, cuda=False, drawers=1, tell=lines.append)
    assert [line[:11] for line in lines] == ["step 3 of 3"]
    assert [path.name for path in tmp_path.glob("weights*")] == [checkpoint.name]
    network, seconds = trained(checkpoint, SMALL)
    before = Learner(SMALL, torch.device("cpu")).network
    moved = [
        not torch.equal(ours, theirs) for ours, theirs in zip(network.parameters(), before.parameters(), strict=True)
    ]
    assert all(moved) and seconds > 0
    with pytest.raises(UserError, match="another training"):
        train_on_ray(Recipe(figures=60, steps=9, batch=8, seed=3), checkpoint, 2, False, 1, lines.append)


def test_batches_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch 8 does not divide by --workers 3"):
        train_on_ray(SMALL, tmp_path / "weights.training", 3, False, 1, print)
