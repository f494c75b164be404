"""Least-squares adversarial losses over the scales of D (Mao et al. 2017; METHOD "One step").

`maps` are D's scores of a batch, one (B, 1, h, w) per scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jgcl_ray.floats import at_least_float32


def generator_loss(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over scales of 2 mean((D(fake) - 1)^2)."""
    return sum_of([2 * (scores - 1).square().mean() for scores in maps])


def fake_loss(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over scales of mean(D(fake)^2)."""
    return sum_of([scores.square().mean() for scores in maps])


def real_loss(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over scales of mean((D(x) - 1)^2)."""
    return sum_of([(scores - 1).square().mean() for scores in maps])


def gradient_penalty(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over scales of the batch's mean of |dD(x)/dx|^2, D(x) summed over its map (R1, Mescheder et al. 2018).

    gradients: one (B, 3, H, W) per scale.
    """
    return sum_of([at_least_float32(gradient).square().flatten(1).sum(1).mean() for gradient in gradients])


def sum_of(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their sum, as one tensor."""
    return torch.stack(list(terms)).sum()
