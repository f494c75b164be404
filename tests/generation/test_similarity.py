"""PSNR, SSIM and Frechet distance against versions written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from jgcl_ray.generation.similarity import frechet_distance, psnr, ssim


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(2, 3, 16, 14, generator=generator, dtype=torch.float64)
    return first, (first + 0.2 * torch.randn(first.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_psnr_is_the_logarithm_of_the_mean_square() -> None:
    first, second = pair()
    for found, a, b in zip(psnr(first, second), first.numpy(), second.numpy(), strict=True):
        assert found.item() == pytest.approx(10 * math.log10(1 / np.mean((a - b) ** 2)))
    assert psnr(first, first).tolist() == pytest.approx([100, 100])


def test_psnr_within_a_mask_sees_nothing_else() -> None:
    first, second = pair()
    within = torch.zeros(2, 1, 16, 14, dtype=torch.bool)
    within[:, :, 4:9, 3:7] = True
    cut = psnr(first[:, :, 4:9, 3:7], second[:, :, 4:9, 3:7])
    torch.testing.assert_close(psnr(first, second, within), cut)


def test_ssim_is_the_mean_over_all_windows() -> None:
    first, second = pair()
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()

    def by_hand(a: np.ndarray, b: np.ndarray) -> float:
        values = []
        for channel, y, x in np.ndindex(3, 16 - 10, 14 - 10):
            p, q = a[channel, y : y + 11, x : x + 11], b[channel, y : y + 11, x : x + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            both = (weights * (p - mean_p) * (q - mean_q)).sum()
            c1, c2 = 0.01**2, 0.03**2
            above = (2 * mean_p * mean_q + c1) * (2 * both + c2)
            values.append(above / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
        return float(np.mean(values))

    expected = [by_hand(a, b) for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    assert ssim(first, second).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(first, first).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("rows", "width"), [(40, 6), (5, 12)])  # the second has singular covariances
def test_frechet_distance_is_that_of_the_matrix_root(rows: int, width: int) -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=(rows, width)) @ random.normal(size=(width, width))
    second = 1 + random.normal(size=(rows + 3, width)) @ random.normal(size=(width, width))
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # scipy's root of a singular product is not reliable: a trace of ridges stands in for it.
    ridge = 1e-9 * np.eye(width)
    root = scipy.linalg.sqrtm((c1 + ridge) @ (c2 + ridge)).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-4)
    shifted = frechet_distance(first, first + np.eye(width)[0] * 3)
    assert shifted == pytest.approx(9, abs=1e-4)
    with pytest.raises(ValueError, match="two pictures"):
        frechet_distance(first[:1], second)
