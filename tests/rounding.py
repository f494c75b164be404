"""What another processor, other threads or kernels may change: the order of sums, and so the last bits."""

from __future__ import annotations

import numpy as np
import torch


def moved(x: torch.Tensor, seed: int) -> torch.Tensor:
    """Each number of x at its next neighbour, up or down by chance: what one rounding changes. Integers stay."""
    if not x.is_floating_point():
        return x
    up = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.nextafter(x, torch.where(up, torch.inf, -torch.inf).to(x.dtype))


def assert_pictures_alike(found: np.ndarray, expected: np.ndarray, share: float = 0.01) -> None:
    """uint8 pictures of bodies that differ in the last bit: by more than 1 in at most `share` of the pixels.

    A vertex in another place, by however little, lets rays at outlines and edges hit another triangle: there a pixel
    may be anything. Another view or a body a pixel aside changes several times as many.
    """
    assert found.dtype == expected.dtype == np.uint8 and found.shape == expected.shape
    different = np.abs(found.astype(int) - expected) > 1
    assert different.mean() <= share, f"{different.mean():.2%} of the pixels differ"
