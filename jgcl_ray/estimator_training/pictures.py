"""Training pictures: cut-out walkers pasted before ever other backgrounds, and spoilt as surveillance spoils them.

Every batch is a pure function of the cut-outs, a seed and its number: an interrupted training goes on with the
pictures it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jgcl_ray.estimator_training.cutouts import Cutouts
from jgcl_ray.estimator_training.pasting import (
    backgrounds,
    coloured,
    cut,
    degraded,
    occluded,
    others,
    paste,
    relit,
    shadows,
    windows,
)
from jgcl_ray.estimator_training.skeleton import SWAPPED
from jgcl_ray.meshes.estimator_network import HEIGHT, WIDTH
from jgcl_ray.meshes.walking_pose import mirrored

SHAPE = (HEIGHT, WIDTH)
MASK = (HEIGHT // 4, WIDTH // 4)


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """B training pictures and the truth about them."""

    crops: Tensor  # (B, 3, HEIGHT, WIDTH) sRGB in [0, 1]
    proportions: Tensor  # (B,) width of the crop over its height, before it was stretched
    mask: Tensor  # (B, *MASK) share of each cell that the bare body covers, hidden parts included
    joints: Tensor  # (B, J, 2) x and y: -1 and 1 are the crop's edges
    yaw: Tensor  # (B,) radians
    pitch: Tensor  # (B,) radians
    pose: Tensor  # (B, M, 3) axis times angle
    phenotypes: Tensor  # (B, 6)


def draw_pictures(given: Cutouts, size: int, seed: int, number: int, hardness: float = 1.0) -> PictureBatch:
    """The batch of this number, on the CPU. Of hardness 0: sharp, with nobody and nothing else in the way."""
    rng = np.random.default_rng([seed, number])
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = rng.integers(len(given), size=size)
    box, flip = given.box[rows], rng.random(size) < 0.5
    window = windows(box, rng, cut=0.25, deepest=0.55)  # to the trunk: most boxes of cameras near by
    layers = cut(given, rows, window, flip, SHAPE)
    proportions = torch.from_numpy((window[:, 2] - window[:, 0]) / (window[:, 3] - window[:, 1])).float()

    crops = backgrounds(given, size, rng, noise, SHAPE) * shadows(box, window, flip, rng, SHAPE)
    behind = others(given, size, window, rng, SHAPE)
    crops = paste(behind, crops, rng.random(size) < 0.3 * hardness)
    crops = paste(relit(layers[:, :4], rng), crops, np.ones(size, bool))
    crops = paste(others(given, size, window, rng, SHAPE), crops, rng.random(size) < 0.08 * hardness)
    crops = occluded(crops, 0.16 * hardness, rng)
    crops = degraded(coloured(crops, rng), proportions, hardness, rng, noise)

    low, high = torch.from_numpy(window).float().unflatten(1, (2, 2)).unbind(1)
    joints = 2 * (torch.from_numpy(given.joints[rows]) - low[:, None]) / (high - low)[:, None] - 1
    turned = torch.from_numpy(flip)
    joints[turned] = joints[turned][:, SWAPPED] * torch.tensor([-1.0, 1.0])
    pose, yaw = torch.from_numpy(given.pose[rows]), torch.from_numpy(given.yaw[rows])
    return PictureBatch(
        crops=crops,
        proportions=proportions,
        mask=functional.avg_pool2d(layers[:, 4:], 4)[:, 0],
        joints=joints,
        yaw=torch.where(turned, -yaw, yaw),
        pitch=torch.from_numpy(given.pitch[rows]),
        pose=torch.where(turned[:, None, None], mirrored(pose), pose),
        phenotypes=torch.from_numpy(given.phenotypes[rows]),
    )
