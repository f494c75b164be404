"""P x K batches of people: the same person before K cameras, which all others of the batch have stood before, too.

A camera lends its light, its colours and its backdrops to everybody, so that they tell nobody apart. Every batch is a
pure function of the cut-outs, a seed and its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jgcl_ray.estimator_training.cutouts import SCENE_PATCHES, Cutouts
from jgcl_ray.estimator_training.pasting import (
    Shape,
    backgrounds,
    cut,
    degraded,
    occluded,
    others,
    paste,
    relit,
    shadows,
    tints,
    windows,
)

INFRARED = 1 / 12  # of the cameras
DEGRADED = 0.6  # how far pictures lose pixels, are blurred, noisy and compressed, of what the estimator's do


@dataclass(frozen=True, eq=False)
class IdentityBatch:
    """B = K x P pictures, camera by camera, and who is on them."""

    pictures: Tensor  # (B, 3, H, W) sRGB in [0, 1]
    identities: Tensor  # (B,) int64
    cameras: Tensor  # (B,) int64


@dataclass(frozen=True)
class Drawing:
    """What a batch is drawn by."""

    cutouts: int  # of each figure, one after the other
    people: int  # P, even
    cameras: int  # K, at most `cutouts`
    shape: Shape


def draw_identities(
    given: Cutouts,
    drawing: Drawing,
    seed: int,
    number: int,
    hardness: float = 1.0,
    identities: np.ndarray | None = None,
) -> IdentityBatch:
    """The batch of this number, on the CPU. Of hardness 0: sharp, with nobody and nothing else in the way.

    identities (P,) int: who is in it, instead of a draw.
    """
    rng = np.random.default_rng([seed, number])
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    people, cameras, shape = drawing.people, drawing.cameras, drawing.shape
    if identities is None:
        identities = _neighbours(len(given) // drawing.cutouts, people, rng)
    chosen = np.stack([rng.permutation(drawing.cutouts)[:cameras] for _ in identities], axis=1)
    rows, size = (identities * drawing.cutouts + chosen).ravel(), people * cameras
    flip = rng.random(size) < 0.5
    window = _loosened(windows(given.box[rows], rng), rng)
    layers = cut(given, rows, window, flip, shape)
    proportions = torch.from_numpy((window[:, 2] - window[:, 0]) / (window[:, 3] - window[:, 1])).float()

    scenes = np.repeat(rng.integers(len(given.backdrops) // SCENE_PATCHES, size=cameras), people)
    backdrops = scenes * SCENE_PATCHES + rng.integers(SCENE_PATCHES, size=size)
    crops = backgrounds(given, size, rng, noise, shape, backdrops) * shadows(
        given.box[rows], window, flip, rng, shape
    )
    crops = paste(others(given, size, window, rng, shape), crops, rng.random(size) < 0.3 * hardness)
    crops = paste(relit(layers[:, :4], rng, dark=0.0), crops, np.ones(size, bool))
    crops = paste(others(given, size, window, rng, shape), crops, rng.random(size) < 0.1 * hardness)
    crops = occluded(_shaded(crops, rng, noise), 0.16 * hardness, rng)
    crops = degraded(_by_cameras(crops, cameras, rng), proportions, DEGRADED * hardness, rng, noise)
    whose, taken_by = np.tile(identities, cameras), np.repeat(np.arange(cameras), people)
    return IdentityBatch(crops, torch.from_numpy(whose), torch.from_numpy(taken_by))


def _neighbours(figures: int, people: int, rng: np.random.Generator) -> np.ndarray:
    """Figures in pairs, (P,): look-alikes follow each other, so many a pair are two of them."""
    pairs = rng.permutation(figures // 2)[: people // 2]
    return (2 * pairs[:, None] + [0, 1]).ravel()


def _loosened(window: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Boxes as detectors draw them, (B, 4): too wide or narrow, about somebody small in a lower half, or a trunk."""
    size, middle, half = len(window), (window[:, :2] + window[:, 2:]) / 2, (window[:, 2:] - window[:, :2]) / 2
    kind = rng.choice(4, (size, 1), p=[0.5, 0.38, 0.07, 0.05])
    careless, far, near = (kind == which for which in (1, 2, 3))
    room, zoom = rng.uniform(0.3, 1.2, (size, 1)), rng.uniform(0.45, 0.75, (size, 1))
    growth = np.select([careless, far, near], [np.exp(rng.uniform(-0.12, 0.3, (size, 2))), 1 + room, zoom], 1.0)
    slips = [rng.normal(0, 0.12, (size, 2)) * [1.0, 0.5], room * rng.uniform([-0.6, -0.9], [0.6, 0.3], (size, 2))]
    slips.append(rng.uniform([-0.2, -0.5], [0.2, -0.1], (size, 2)))
    middle = middle + half * np.select([careless, far, near], slips, 0.0)
    return np.concatenate([middle - half * growth, middle + half * growth], axis=1)


def _shaded(crops: Tensor, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """Shade of trees and roofs, on some deep, and light that falls from above, slow over the picture."""
    size = len(crops)
    strength = torch.from_numpy(rng.uniform(0, 0.3, (size, 1, 1, 1))).float()
    slow = functional.interpolate(
        torch.randn((size, 1, 4, 2), generator=noise), crops.shape[2:], mode="bilinear", align_corners=True
    )
    return (crops * torch.exp(strength * slow)).clamp(0, 1)


def _by_cameras(crops: Tensor, cameras: int, rng: np.random.Generator) -> Tensor:
    """Gamma, saturation, contrast, tint, exposure and veil of each camera, a little other from picture to picture.

    Some are infrared cameras: grey, by weights of their own, as many a dye shines in infrared. A veil is light that a
    lens scatters over the whole picture: black becomes grey, in the tint of the camera.
    """
    people = len(crops) // cameras

    def drawn(low: float, high: float, spread: float) -> Tensor:
        of_cameras = np.repeat(rng.uniform(low, high, cameras), people)
        return torch.from_numpy(of_cameras + rng.normal(0, spread, len(crops))).float().view(-1, 1, 1, 1)

    crops = crops.clamp(1e-4, 1) ** drawn(0.78, 1.27, 0.036)
    infrared = np.repeat(rng.random(cameras) < INFRARED, people)
    weights = torch.from_numpy(np.repeat(rng.dirichlet((2, 1, 1), cameras), people, axis=0)).float()
    grey = crops.mean(1, keepdim=True)
    crops = grey + drawn(0.58, 1.42, 0.03) * (crops - grey)
    crops[infrared] = (crops[infrared] * weights[infrared, :, None, None]).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    mean = crops.mean((1, 2, 3), keepdim=True)
    tint = tints(cameras, rng, 0.085)
    tint[infrared[::people]] = 1.0
    tint = tint.repeat_interleave(people, 0) * tints(len(crops), rng, 0.03)
    crops = mean + drawn(0.72, 1.34, 0.03) * (crops - mean)
    crops = crops * tint * drawn(0.8, 1.45, 0.03) + drawn(-0.06, 0.06, 0.018)
    veiled = np.repeat(np.where(rng.random(cameras) < 0.2, rng.uniform(0.1, 0.38, cameras), 0.0), people)
    veil = torch.from_numpy(veiled * rng.uniform(0.8, 1.2, len(crops))).float().view(-1, 1, 1, 1)
    return (crops.clamp(0, 1) * (1 - veil) + veil * 0.85 * tint).clamp(0, 1)
