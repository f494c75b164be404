"""Pasting cut-out people before backgrounds, and spoiling the picture as surveillance spoils it.

Letters: B pictures of H x W pixels, `shape`. What is drawn is drawn from `rng` and `noise`, in a fixed order.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from jgcl_ray.estimator_training import cutouts
from jgcl_ray.estimator_training.cutouts import Cutouts, surface_places
from jgcl_ray.image_files import read_image

Shape = tuple[int, int]

RESOLUTIONS = (28, 112)  # least and greatest height in pixels of what the camera saw
EASY = 88  # least height of easy pictures
GROUP = 8  # neighbours in a batch that share a resolution


def windows(box: np.ndarray, rng: np.random.Generator, cut: float = 0.13, deepest: float = 0.4) -> np.ndarray:
    """Where a detector cuts, (B, 4): left, top, right, bottom; mostly tight, now and then without feet or head.

    cut: share of windows that end above the feet, by up to the share `deepest` of the person's height.
    """
    size = len(box)
    left, top, right, bottom = box.T
    tall = bottom - top
    above, below = tall * rng.uniform(-0.03, 0.1, size), tall * rng.uniform(-0.04, 0.09, size)
    below = np.where(rng.random(size) < cut, -tall * rng.uniform(0.05, deepest, size), below)
    above = np.where(rng.random(size) < 0.04, -tall * rng.uniform(0.03, 0.12, size), above)
    top, bottom = top - above, bottom + below
    broad = (right - left) * rng.uniform(0.9, 1.35, size)
    broad = np.clip(broad, 0.3 * (bottom - top), 0.62 * (bottom - top))
    broad = np.where(rng.random(size) < 0.4, (bottom - top) * rng.uniform(0.34, 0.5, size), broad)
    middle = (left + right) / 2 + 0.05 * broad * rng.normal(size=size)
    return np.stack([middle - broad / 2, top, middle + broad / 2, bottom], axis=1)


def cut(given: Cutouts, rows: np.ndarray, window: np.ndarray, flip: np.ndarray, shape: Shape) -> Tensor:
    """What lies in windows (B, 4) of cut-outs: (B, 5, H, W) in [0, 1]."""
    layers = torch.from_numpy(given.layers[rows]).float() / 255
    return _sampled(layers, window, flip, shape)


def cut_places(
    given: Cutouts, rows: np.ndarray, window: np.ndarray, flip: np.ndarray, shape: Shape, moved: Tensor | None = None
) -> Tensor:
    """Points of the body of reference that pixels of windows (B, 4) of cut-outs see: (B, H, W, 3), NaN for none.

    Read at the nearest pixel, never mixed. A flipped picture shows the mirrored person: x -> -x. moved: (B, H, W, 2),
    by how much of a window's half width and height to read beside the true place.
    """
    codes = torch.from_numpy(given.surface[rows]).float()
    found = functional.grid_sample(codes, _grid(codes, window, flip, shape, moved), "nearest", align_corners=False)
    places = torch.from_numpy(surface_places(found.to(torch.uint8).numpy())).permute(0, 2, 3, 1).contiguous()
    places[..., 0] *= torch.from_numpy(np.where(flip, -1.0, 1.0)).float()[:, None, None]
    return places


def _sampled(layers: Tensor, window: np.ndarray, flip: np.ndarray, shape: Shape) -> Tensor:
    grid = _grid(layers, window, flip, shape)
    return functional.grid_sample(layers, grid, mode="bilinear", align_corners=False)


def _grid(layers: Tensor, window: np.ndarray, flip: np.ndarray, shape: Shape, moved: Tensor | None = None) -> Tensor:
    high, wide = layers.shape[2:]
    left, top, right, bottom = window.T
    affine = np.zeros((len(window), 2, 3))
    affine[:, 0, 0] = np.where(flip, -1, 1) * (right - left) / wide
    affine[:, 0, 2] = (left + right) / wide - 1
    affine[:, 1, 1] = (bottom - top) / high
    affine[:, 1, 2] = (top + bottom) / high - 1
    given = torch.from_numpy(affine).float()
    grid = functional.affine_grid(given, [len(window), 1, *shape], align_corners=False)
    if moved is None:
        return grid
    return grid + moved * torch.stack([given[:, 0, 0], given[:, 1, 1]], dim=1)[:, None, None]


def paste(layer: Tensor, below: Tensor, where: np.ndarray) -> Tensor:
    """Layers (B, 4 or more, H, W), premultiplied colours and alpha, over pictures (B, 3, H, W), `where` (B,) true."""
    chosen = torch.from_numpy(where).float()[:, None, None, None]
    return chosen * layer[:, :3] + (1 - chosen * layer[:, 3:4]) * below


def others(given: Cutouts, size: int, window: np.ndarray, rng: np.random.Generator, shape: Shape) -> Tensor:
    """Somebody beside the walker, about as large, partly out of the crop: layers (B, 4, H, W)."""
    rows = rng.integers(len(given), size=size)
    side, grow = rng.choice([-1.0, 1.0], size), rng.uniform(0.75, 1.15, size)
    wide, tall = (window[:, 2] - window[:, 0]) / grow, (window[:, 3] - window[:, 1]) / grow
    middle = cutouts.WIDTH / 2 + side * wide * rng.uniform(0.4, 0.85, size)
    top = given.box[rows, 1] + tall * rng.uniform(-0.12, 0.05, size)
    around = np.stack([middle - wide / 2, top, middle + wide / 2, top + tall], axis=1)
    return relit(cut(given, rows, around, rng.random(size) < 0.5, shape)[:, :4], rng)


def relit(layer: Tensor, rng: np.random.Generator, dark: float = 0.3) -> Tensor:
    """A walker in other light; a share `dark` in dark clothes, which are common, and hardly lighter than black."""
    size = len(layer)
    gain = np.exp(rng.normal(0, 0.25, (size, 1)) + rng.normal(0, 0.05, (size, 3)))
    darkened = np.where(rng.random((size, 1)) < dark, rng.uniform(0.4, 0.85, (size, 1)), 1.0)
    color = layer[:, :3] * torch.from_numpy(gain * darkened).float()[..., None, None]
    return torch.cat([color.clamp(max=1.0).minimum(layer[:, 3:4]), layer[:, 3:4]], 1)


def backgrounds(
    given: Cutouts,
    size: int,
    rng: np.random.Generator,
    noise: torch.Generator,
    shape: Shape,
    rows: np.ndarray | None = None,
) -> Tensor:
    """(B, 3, H, W): pieces of streets and rooms; or what a camera that looks down sees, plain ground.

    rows: (B,), of the backdrops; None: any.
    """
    rows = rng.integers(len(given.backdrops), size=size) if rows is None else rows
    pieces = given.backdrops[rows]
    high, wide = pieces.shape[2:]
    zoom = rng.uniform(0.4, 1.0, (size, 1))
    corner = rng.random((size, 2)) * (1 - zoom) * [wide, high]
    window = np.concatenate([corner, corner + zoom * [wide, high]], axis=1)
    drawn = _sampled(torch.from_numpy(pieces).float() / 255, window, rng.random(size) < 0.5, shape)
    mean = drawn.mean((2, 3), keepdim=True)
    contrast = torch.from_numpy(rng.uniform(0.5, 1.6, (size, 1, 1, 1))).float()
    drawn = mean * tints(size, rng, 0.1) + contrast * (drawn - mean)
    plain = torch.from_numpy(rng.random((size, 1, 1, 1)) < 0.55)
    return torch.where(plain, _grounds(size, rng, noise, shape), drawn).clamp(0, 1)


def _grounds(size: int, rng: np.random.Generator, noise: torch.Generator, shape: Shape) -> Tensor:
    """Grass, asphalt, stone: two plain colours with a border in any direction, patchy and grainy."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, shape[0]), torch.linspace(-0.5, 0.5, shape[1]), indexing="ij")
    angle, offset = rng.uniform(0, 2 * math.pi, (2, size, 1, 1))
    along = torch.from_numpy(np.cos(angle)) * x + torch.from_numpy(np.sin(angle)) * y
    share = torch.sigmoid((along - torch.from_numpy((offset - math.pi) / 3)).float() * 40)[:, None]
    one, other = _ground_colours(size, rng), _ground_colours(size, rng)
    two = torch.from_numpy(rng.random((size, 1, 1, 1)) < 0.6)
    color = torch.where(two, one * share + other * (1 - share), one)
    for cells, most in (((4, 2), 0.08), ((16, 8), 0.06), (shape, 0.06)):
        strength = torch.from_numpy(rng.uniform(0, most, (size, 1, 1, 1))).float()
        grain = torch.randn((size, 1, *cells), generator=noise)
        color = color + strength * functional.interpolate(grain, shape, mode="bilinear")
    return color


def _ground_colours(size: int, rng: np.random.Generator) -> Tensor:
    grey = rng.uniform(0.2, 0.85, (size, 1)) * np.ones(3)
    grass = rng.uniform(0.5, 1.2, (size, 1)) * np.array([0.33, 0.42, 0.14])
    earth = rng.uniform(0.6, 1.3, (size, 1)) * np.array([0.55, 0.45, 0.34])
    kind = rng.choice(3, (size, 1), p=[0.6, 0.25, 0.15])
    color = np.choose(kind, [grey, grass, earth]) + rng.normal(0, 0.03, (size, 3))
    return torch.from_numpy(color).float()[..., None, None]


def shadows(box: np.ndarray, window: np.ndarray, flip: np.ndarray, rng: np.random.Generator, shape: Shape) -> Tensor:
    """Light that the walker takes from the ground at the feet, (B, 1, H, W) factors."""
    size, (height, width) = len(box), shape
    left, top, right, bottom = window.T
    feet = (box[:, 3] - top) / (bottom - top)
    middle = ((box[:, 0] + box[:, 2]) / 2 - left) / (right - left)
    middle = np.where(flip, 1 - middle, middle) + rng.normal(0, 0.15, size)
    y = (np.arange(height) + 0.5) / height - feet[:, None]
    x = (np.arange(width) + 0.5) / width - middle[:, None]
    deep, broad = rng.uniform(0.03, 0.08, (size, 1)), rng.uniform(0.2, 0.5, (size, 1))
    reach = (y / deep)[:, :, None] ** 2 + (x / broad)[:, None] ** 2
    strength = rng.uniform(0, 0.55, (size, 1, 1))
    return torch.from_numpy(1 - strength * np.exp(-reach)).float()[:, None]


def occluded(crops: Tensor, share_occluded: float, rng: np.random.Generator) -> Tensor:
    """Poles, signs, and boxes or bushes before the legs, on crops (B, 3, H, W) in place."""
    high, wide = crops.shape[2:]
    for row in np.flatnonzero(rng.random(len(crops)) < share_occluded):
        kind, share = rng.choice(["pole", "sign", "low", "edge"]), rng.uniform(0.08, 0.3)
        top, left, bottom, right = 0, 0, high, wide
        if kind == "pole":
            left = int(rng.uniform(0, 0.9) * wide)
            right = left + max(2, int(share / 2 * wide))
        elif kind == "sign":
            top, left = int(rng.uniform(0, 0.8) * high), int(rng.uniform(-0.2, 0.7) * wide)
            bottom, right = top + int(1.3 * share * high), max(left, 0) + int(2 * share * wide)
        elif kind == "low":
            top = int((1 - share) * high)
        else:
            left, right = (0, int(share * wide)) if rng.random() < 0.5 else (int((1 - share) * wide), wide)
        color = torch.from_numpy(rng.uniform(0.05, 0.95) + rng.normal(0, 0.12, 3)).float().clamp(0, 1)
        crops[row, :, top:bottom, max(left, 0) : right] = color[:, None, None]
    return crops


def degraded(
    crops: Tensor, proportions: Tensor, hardness: float, rng: np.random.Generator, noise: torch.Generator
) -> Tensor:
    """Few pixels, blur, sharpening, noise and JPEG; stretched to (B, 3, H, W) again."""
    size, shape = len(crops), crops.shape[2:]
    seen = torch.empty_like(crops)
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
            small, shape, mode="bicubic", antialias=high > shape[0], align_corners=False
        )
    return seen.clamp(0, 1)


def coloured(crops: Tensor, rng: np.random.Generator) -> Tensor:
    """Gamma, saturation, contrast, tint and offset, each picture's own."""
    size = len(crops)

    def drawn(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (size, 1, 1, 1))).float()

    crops = crops.clamp(1e-4, 1) ** drawn(0.7, 1.3)
    grey = crops.mean(1, keepdim=True)
    crops = grey + drawn(0.2, 1.3) * (crops - grey)
    mean = crops.mean((1, 2, 3), keepdim=True)
    return ((mean + drawn(0.6, 1.2) * (crops - mean)) * tints(size, rng, 0.05) + drawn(-0.1, 0.1)).clamp(0, 1)


def tints(size: int, rng: np.random.Generator, spread: float) -> Tensor:
    """(B, 3, 1, 1) factors of the channels, log-normal."""
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
