"""How alike pictures are: one to one (PSNR, SSIM) and as sets (Frechet distance). Pure functions.

Letters: n, m pictures, H x W their size, F width of features.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # of SSIM, as in its paper
LEAST_ERROR = 1e-10  # mean square; equal pictures have a PSNR of 100 dB rather than of infinity


def psnr(pictures: torch.Tensor, truth: torch.Tensor, within: torch.Tensor | None = None) -> torch.Tensor:
    """Peak signal-to-noise ratio, dB: (n, 3, H, W) in [0, 1], twice -> (n,).

    within (n, 1, H, W) bool: only these pixels count; 100 dB where there is none.
    """
    weight = torch.ones_like(pictures[:, :1]) if within is None else within.to(pictures.dtype)
    error = ((pictures - truth).square().mean(1, keepdim=True) * weight).sum((1, 2, 3))
    return -10 * torch.log10((error / weight.sum((1, 2, 3)).clamp(min=1)).clamp(min=LEAST_ERROR))


def ssim(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity, 1 for equal pictures: (n, 3, H, W) in [0, 1], twice -> (n,).

    Of each channel, by a Gaussian window of 11 x 11, where the window fits into the picture (Wang et al. 2004).
    """
    offsets = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    channels = pictures.shape[1]

    def local_mean(x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(x, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    a, b = local_mean(pictures), local_mean(truth)
    var_a, var_b = local_mean(pictures**2) - a**2, local_mean(truth**2) - b**2
    covariance = local_mean(pictures * truth) - a * b
    likeness = (2 * a * b + K1**2) * (2 * covariance + K2**2)
    return (likeness / ((a**2 + b**2 + K1**2) * (var_a + var_b + K2**2))).mean((1, 2, 3))


def frechet_distance(features: np.ndarray, truth: np.ndarray) -> float:
    """Between the Gaussians fitted to two sets of features, (n, F) and (m, F) (FID; Heusel et al. 2017).

    |mean - mean'|^2 + trace(C + C' - 2 (C C')^(1/2)), C the covariances. Sets of a few hundred give a number too
    high, alike for all that is compared against the same truth. ValueError below two rows.
    """
    if min(len(features), len(truth)) < 2:
        raise ValueError("a Frechet distance needs two pictures or more on both sides")
    features, truth = features.astype(np.float64), truth.astype(np.float64)
    covariance, other = np.cov(features, rowvar=False), np.cov(truth, rowvar=False)
    # (C C')^(1/2) has the trace of (R C' R)^(1/2) with R = C^(1/2), which is symmetric and so has no complex roots.
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ np.atleast_2d(other) @ root).clip(min=0)
    gap = features.mean(axis=0) - truth.mean(axis=0)
    return float(gap @ gap + np.trace(np.atleast_2d(covariance + other)) - 2 * np.sqrt(mixed).sum())
