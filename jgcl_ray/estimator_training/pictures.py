"""Training pictures: cut-out walkers pasted before ever other backgrounds, and spoilt as surveillance spoils them.

Every batch is a pure function of the cut-outs, a seed and its number: an interrupted training goes on with the
pictures it would have seen.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from jgcl_ray.estimator_training import cutouts
from jgcl_ray.estimator_training.cutouts import Cutouts
from jgcl_ray.estimator_training.skeleton import SWAPPED
from jgcl_ray.image_files import read_image
from jgcl_ray.meshes.estimator_network import HEIGHT, WIDTH
from jgcl_ray.meshes.walking_pose import mirrored

MASK = (HEIGHT // 4, WIDTH // 4)
RESOLUTIONS = (28, 112)  # least and greatest height in pixels of what the camera saw
EASY = 88  # least height of easy pictures
GROUP = 8  # neighbours in a batch that share a resolution


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
    window = _windows(box, rng)
    layers = _cut(given, rows, window, flip)
    proportions = torch.from_numpy((window[:, 2] - window[:, 0]) / (window[:, 3] - window[:, 1])).float()

    crops = _backgrounds(given, size, rng, noise) * _shadows(box, window, flip, rng)
    behind = _others(given, size, window, rng)
    crops = _paste(behind, crops, rng.random(size) < 0.3 * hardness)
    crops = _paste(_developed(layers[:, :4], rng), crops, np.ones(size, bool))
    crops = _paste(_others(given, size, window, rng), crops, rng.random(size) < 0.08 * hardness)
    crops = _hidden(crops, 0.16 * hardness, rng)
    crops = _filmed(crops, proportions, hardness, rng, noise)

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


def _windows(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where a detector cuts, (B, 4): left, top, right, bottom; mostly tight, now and then without feet or head."""
    size = len(box)
    left, top, right, bottom = box.T
    tall = bottom - top
    above, below = tall * rng.uniform(-0.03, 0.1, size), tall * rng.uniform(-0.04, 0.09, size)
    below = np.where(rng.random(size) < 0.13, -tall * rng.uniform(0.05, 0.4, size), below)
    above = np.where(rng.random(size) < 0.04, -tall * rng.uniform(0.03, 0.12, size), above)
    top, bottom = top - above, bottom + below
    broad = (right - left) * rng.uniform(0.9, 1.35, size)
    broad = np.clip(broad, 0.3 * (bottom - top), 0.62 * (bottom - top))
    broad = np.where(rng.random(size) < 0.4, (bottom - top) * rng.uniform(0.34, 0.5, size), broad)
    middle = (left + right) / 2 + 0.05 * broad * rng.normal(size=size)
    return np.stack([middle - broad / 2, top, middle + broad / 2, bottom], axis=1)


def _cut(given: Cutouts, rows: np.ndarray, window: np.ndarray, flip: np.ndarray) -> Tensor:
    """What lies in windows (B, 4) of cut-outs: (B, 5, HEIGHT, WIDTH) in [0, 1]."""
    layers = torch.from_numpy(given.layers[rows]).float() / 255
    return _sampled(layers, window, flip)


def _sampled(layers: Tensor, window: np.ndarray, flip: np.ndarray) -> Tensor:
    high, wide = layers.shape[2:]
    left, top, right, bottom = window.T
    affine = np.zeros((len(window), 2, 3))
    affine[:, 0, 0] = np.where(flip, -1, 1) * (right - left) / wide
    affine[:, 0, 2] = (left + right) / wide - 1
    affine[:, 1, 1] = (bottom - top) / high
    affine[:, 1, 2] = (top + bottom) / high - 1
    grid = functional.affine_grid(
        torch.from_numpy(affine).float(), [len(window), 1, HEIGHT, WIDTH], align_corners=False
    )
    return functional.grid_sample(layers, grid, mode="bilinear", align_corners=False)


def _paste(layer: Tensor, below: Tensor, where: np.ndarray) -> Tensor:
    chosen = torch.from_numpy(where).float()[:, None, None, None]
    return chosen * layer[:, :3] + (1 - chosen * layer[:, 3:4]) * below


def _others(given: Cutouts, size: int, window: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Somebody beside the walker, about as large, partly out of the crop."""
    rows = rng.integers(len(given), size=size)
    side, grow = rng.choice([-1.0, 1.0], size), rng.uniform(0.75, 1.15, size)
    wide, tall = (window[:, 2] - window[:, 0]) / grow, (window[:, 3] - window[:, 1]) / grow
    middle = cutouts.WIDTH / 2 + side * wide * rng.uniform(0.4, 0.85, size)
    top = given.box[rows, 1] + tall * rng.uniform(-0.12, 0.05, size)
    around = np.stack([middle - wide / 2, top, middle + wide / 2, top + tall], axis=1)
    return _developed(_cut(given, rows, around, rng.random(size) < 0.5)[:, :4], rng)


def _developed(layer: Tensor, rng: np.random.Generator) -> Tensor:
    """A walker in other light: dark clothes are common, and hardly lighter than black."""
    size = len(layer)
    gain = np.exp(rng.normal(0, 0.25, (size, 1)) + rng.normal(0, 0.05, (size, 3)))
    dark = np.where(rng.random((size, 1)) < 0.3, rng.uniform(0.4, 0.85, (size, 1)), 1.0)
    color = layer[:, :3] * torch.from_numpy(gain * dark).float()[..., None, None]
    return torch.cat([color.clamp(max=1.0).minimum(layer[:, 3:4]), layer[:, 3:4]], 1)


def _backgrounds(given: Cutouts, size: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """(B, 3, HEIGHT, WIDTH): pieces of streets and rooms; or what a camera that looks down sees, plain ground."""
    pieces = given.backdrops[rng.integers(len(given.backdrops), size=size)]
    high, wide = pieces.shape[2:]
    zoom = rng.uniform(0.4, 1.0, (size, 1))
    corner = rng.random((size, 2)) * (1 - zoom) * [wide, high]
    window = np.concatenate([corner, corner + zoom * [wide, high]], axis=1)
    drawn = _sampled(torch.from_numpy(pieces).float() / 255, window, rng.random(size) < 0.5)
    mean = drawn.mean((2, 3), keepdim=True)
    contrast = torch.from_numpy(rng.uniform(0.5, 1.6, (size, 1, 1, 1))).float()
    drawn = mean * _tints(size, rng, 0.1) + contrast * (drawn - mean)
    plain = torch.from_numpy(rng.random((size, 1, 1, 1)) < 0.55)
    return torch.where(plain, _grounds(size, rng, noise), drawn).clamp(0, 1)


def _grounds(size: int, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """Grass, asphalt, stone: two plain colours with a border in any direction, patchy and grainy."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-0.5, 0.5, WIDTH), indexing="ij")
    angle, offset = rng.uniform(0, 2 * math.pi, (2, size, 1, 1))
    along = torch.from_numpy(np.cos(angle)) * x + torch.from_numpy(np.sin(angle)) * y
    share = torch.sigmoid((along - torch.from_numpy((offset - math.pi) / 3)).float() * 40)[:, None]
    one, other = _ground_colours(size, rng), _ground_colours(size, rng)
    two = torch.from_numpy(rng.random((size, 1, 1, 1)) < 0.6)
    color = torch.where(two, one * share + other * (1 - share), one)
    for cells, most in (((4, 2), 0.08), ((16, 8), 0.06), ((HEIGHT, WIDTH), 0.06)):
        strength = torch.from_numpy(rng.uniform(0, most, (size, 1, 1, 1))).float()
        grain = torch.randn((size, 1, *cells), generator=noise)
        color = color + strength * functional.interpolate(grain, (HEIGHT, WIDTH), mode="bilinear")
    return color


def _ground_colours(size: int, rng: np.random.Generator) -> Tensor:
    grey = rng.uniform(0.2, 0.85, (size, 1)) * np.ones(3)
    grass = rng.uniform(0.5, 1.2, (size, 1)) * np.array([0.33, 0.42, 0.14])
    earth = rng.uniform(0.6, 1.3, (size, 1)) * np.array([0.55, 0.45, 0.34])
    kind = rng.choice(3, (size, 1), p=[0.6, 0.25, 0.15])
    color = np.choose(kind, [grey, grass, earth]) + rng.normal(0, 0.03, (size, 3))
    return torch.from_numpy(color).float()[..., None, None]


def _shadows(box: np.ndarray, window: np.ndarray, flip: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Light that the walker takes from the ground at the feet, (B, 1, HEIGHT, WIDTH) factors."""
    size = len(box)
    left, top, right, bottom = window.T
    feet = (box[:, 3] - top) / (bottom - top)
    middle = ((box[:, 0] + box[:, 2]) / 2 - left) / (right - left)
    middle = np.where(flip, 1 - middle, middle) + rng.normal(0, 0.15, size)
    y = (np.arange(HEIGHT) + 0.5) / HEIGHT - feet[:, None]
    x = (np.arange(WIDTH) + 0.5) / WIDTH - middle[:, None]
    deep, broad = rng.uniform(0.03, 0.08, (size, 1)), rng.uniform(0.2, 0.5, (size, 1))
    reach = (y / deep)[:, :, None] ** 2 + (x / broad)[:, None] ** 2
    strength = rng.uniform(0, 0.55, (size, 1, 1))
    return torch.from_numpy(1 - strength * np.exp(-reach)).float()[:, None]


def _hidden(crops: Tensor, share_hidden: float, rng: np.random.Generator) -> Tensor:
    """Poles, signs, and boxes or bushes before the legs."""
    for row in np.flatnonzero(rng.random(len(crops)) < share_hidden):
        kind, share = rng.choice(["pole", "sign", "low", "edge"]), rng.uniform(0.08, 0.3)
        top, left, bottom, right = 0, 0, HEIGHT, WIDTH
        if kind == "pole":
            left = int(rng.uniform(0, 0.9) * WIDTH)
            right = left + max(2, int(share / 2 * WIDTH))
        elif kind == "sign":
            top, left = int(rng.uniform(0, 0.8) * HEIGHT), int(rng.uniform(-0.2, 0.7) * WIDTH)
            bottom, right = top + int(1.3 * share * HEIGHT), max(left, 0) + int(2 * share * WIDTH)
        elif kind == "low":
            top = int((1 - share) * HEIGHT)
        else:
            left, right = (0, int(share * WIDTH)) if rng.random() < 0.5 else (int((1 - share) * WIDTH), WIDTH)
        color = torch.from_numpy(rng.uniform(0.05, 0.95) + rng.normal(0, 0.12, 3)).float().clamp(0, 1)
        crops[row, :, top:bottom, max(left, 0) : right] = color[:, None, None]
    return crops


def _filmed(
    crops: Tensor, proportions: Tensor, hardness: float, rng: np.random.Generator, noise: torch.Generator
) -> Tensor:
    """Few pixels, blur, sharpening, colours, noise and JPEG; stretched to the network's input again."""
    size = len(crops)
    seen = torch.empty_like(crops)
    crops = _coloured(crops, rng)
    for start in range(0, size, GROUP):
        group = slice(start, start + GROUP)
        least = EASY ** (1 - hardness) * RESOLUTIONS[0] ** hardness
        high = round(math.exp(rng.uniform(math.log(least), math.log(RESOLUTIONS[1]))))
        wide = max(8, round(high * float(proportions[group].mean())))
        small = functional.interpolate(crops[group], (high, wide), mode="bilinear", antialias=True)
        if rng.random() < 0.5 * hardness:
            soft = _blurred(small, rng.uniform(0.3, 0.6 + high / 110))
            small = soft if rng.random() < 0.6 else small + rng.uniform(0.3, 1.5) * (small - soft)
        strength = rng.uniform(0, 0.035) * hardness
        small = small + strength * torch.randn(small.shape, generator=noise)
        if rng.random() < 0.6 * hardness:
            small = torch.stack([_compressed(picture, int(rng.integers(30, 95))) for picture in small.clamp(0, 1)])
        seen[group] = functional.interpolate(
            small, (HEIGHT, WIDTH), mode="bicubic", antialias=high > HEIGHT, align_corners=False
        )
    return seen.clamp(0, 1)


def _coloured(crops: Tensor, rng: np.random.Generator) -> Tensor:
    size = len(crops)

    def drawn(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (size, 1, 1, 1))).float()

    crops = crops.clamp(1e-4, 1) ** drawn(0.7, 1.3)
    grey = crops.mean(1, keepdim=True)
    crops = grey + drawn(0.2, 1.3) * (crops - grey)
    mean = crops.mean((1, 2, 3), keepdim=True)
    return ((mean + drawn(0.6, 1.2) * (crops - mean)) * _tints(size, rng, 0.05) + drawn(-0.1, 0.1)).clamp(0, 1)


def _tints(size: int, rng: np.random.Generator, spread: float) -> Tensor:
    return torch.from_numpy(np.exp(rng.normal(0, spread, (size, 3, 1, 1)))).float()


def _blurred(pictures: Tensor, deviation: float) -> Tensor:
    reach = max(1, math.ceil(2 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).repeat(3, 1, 1, 1)
    padded = functional.pad(pictures, [reach] * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)


def _compressed(picture: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(read_image(file).rgb)).permute(2, 0, 1).float() / 255
