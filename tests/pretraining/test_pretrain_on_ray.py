"""Pre-training on two Ray workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jgcl_ray.estimator_training.on_ray import Training, train_on_ray
from jgcl_ray.pretraining import generator
from jgcl_ray.pretraining.command import encoder_lines, generator_lines, render
from jgcl_ray.pretraining.encoder import Learner, trained
from jgcl_ray.pretraining.recipe import EncoderRecipe, GeneratorRecipe

SMALL = EncoderRecipe(backbone="osnet_x0_25", height=48, width=24, figures=60, steps=3, people=8, images=2, seed=3)


@pytest.mark.slow
def test_two_workers_train_one_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    checkpoint, told = tmp_path / "weights.training", []
    train_on_ray(Training(render, encoder_lines, trained), SMALL, checkpoint, 2, False, 1, told.append)
    assert [line[:11] for line in told] == ["step 3 of 3"]
    encoder, seconds = trained(checkpoint, SMALL)
    before = Learner(SMALL, torch.device("cpu")).network.encoder
    pairs = zip(encoder.parameters(), before.parameters(), strict=True)
    assert seconds > 0 and any(not torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.slow
def test_two_workers_train_one_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    small = GeneratorRecipe(height=32, width=16, figures=60, steps=3, photos=2, views=1, adversarial_from=0.3)
    checkpoint, told = tmp_path / "weights.training", []
    training = Training(render, generator_lines, generator.trained)
    train_on_ray(training, small, checkpoint, 2, False, 1, told.append)
    assert [line[:11] for line in told] == ["step 3 of 3"]
    network, seconds = generator.trained(checkpoint, small)
    assert seconds > 0 and network.paint.weight.abs().max() > 0
