"""Adversarial losses and the gradient penalty, written out."""

from __future__ import annotations

import pytest
import torch

from jgcl_ray.losses.adversarial import fake_loss, generator_loss, gradient_penalty, real_loss


@pytest.fixture
def maps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 1, 6, 4), torch.randn(2, 1, 3, 2)]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def test_each_loss_is_its_formula_summed_over_scales(maps: list[torch.Tensor]) -> None:
    scores = [scale.flatten().tolist() for scale in maps]
    assert generator_loss(maps).item() == pytest.approx(sum(2 * mean([(s - 1) ** 2 for s in x]) for x in scores))
    assert fake_loss(maps).item() == pytest.approx(sum(mean([s**2 for s in x]) for x in scores), rel=1e-5)
    assert real_loss(maps).item() == pytest.approx(sum(mean([(s - 1) ** 2 for s in x]) for x in scores), rel=1e-5)


def test_penalty_is_the_squared_norm_of_each_image_averaged_over_the_batch() -> None:
    gradients = [torch.randn(3, 3, 4, 2), torch.randn(3, 3, 4, 2)]
    expected = sum(mean([image.square().sum().item() for image in scale]) for scale in gradients)
    assert gradient_penalty(gradients).item() == pytest.approx(expected, rel=1e-5)


def test_perfect_scores_cost_nothing() -> None:
    ones, zeros = [torch.ones(2, 1, 3, 3)], [torch.zeros(2, 1, 3, 3)]
    assert generator_loss(ones).item() == real_loss(ones).item() == fake_loss(zeros).item() == 0
