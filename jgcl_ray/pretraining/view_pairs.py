"""Photos of rendered people with true views of them from other sides, and the drafts that the photos' pixels give.

The sides of one pose are pasted before one backdrop and seen by one camera. Each side was rendered in a light of its
own: a true view takes the photo's, channel by channel. Every batch is a pure function of the cut-outs, a seed and its
number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jgcl_ray.batches import WarpedView
from jgcl_ray.estimator_training.cutouts import Cutouts
from jgcl_ray.estimator_training.pasting import (
    Shape,
    backgrounds,
    cut,
    cut_places,
    degraded,
    others,
    paste,
    relit,
    shadows,
    tints,
    windows,
)
from jgcl_ray.meshes.correspondence import see_surface

ACCOMPANIED = 0.2  # share of photos with somebody else behind
SPOILT = 0.5  # share of photos whose bodies are off, as estimated ones are
PIXELS = (96, 48)  # of the picture in whose pixels that is given


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """B photos, and T true views of each with their drafts: views of photo b at b * T to b * T + T - 1."""

    photos: Tensor  # (B, 3, H, W) sRGB in [0, 1]
    photo_places: Tensor  # (B, H, W, 3): points of the body of reference, metres, NaN where no body is seen
    draft: WarpedView  # B * T
    places: Tensor  # (B * T, H, W, 3), as photo_places
    truth: Tensor  # (B * T, 3, H, W): what the drafts should be
    person: Tensor  # (B * T, 1, H, W) in [0, 1]: how far the person covers a pixel of the truth

    def on(self, device: torch.device) -> ViewBatch:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        draft = WarpedView(**{name: value.to(device) for name, value in vars(self.draft).items()})
        return ViewBatch(draft=draft, **moved)


@dataclass(frozen=True)
class PairDrawing:
    """What a batch is drawn by."""

    sides: int  # of each pose, one after the other
    photos: int  # B
    views: int  # T, less than `sides`
    shape: Shape


def draw_views(given: Cutouts, drawing: PairDrawing, seed: int, number: int) -> ViewBatch:
    """The batch of this number, on the CPU."""
    rng = np.random.default_rng([seed, number, 1])
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    photos, views, shape = drawing.photos, drawing.views, drawing.shape
    poses = rng.integers(len(given) // drawing.sides, size=photos)
    sides = np.stack([rng.permutation(drawing.sides)[: 1 + views] for _ in poses])
    rows = poses[:, None] * drawing.sides + sides  # (B, 1 + T): the photo's first
    window = _windows(given.box[rows], rng)
    flip = np.repeat(rng.random((photos, 1)) < 0.5, 1 + views, axis=1)
    moved = _moved(photos, views, rng, noise, shape)

    def flat(values: np.ndarray) -> np.ndarray:
        return values.reshape(photos * (1 + views), *values.shape[2:])

    layers = cut(given, flat(rows), flat(window), flat(flip), shape)[:, :4]
    places = cut_places(given, flat(rows), flat(window), flat(flip), shape, moved).unflatten(0, (photos, 1 + views))
    pictures = _pasted(given, layers, rows, window, flip, rng, noise, shape)
    of_photo, alpha = pictures[:, 0], layers[:, 3:].unflatten(0, (photos, 1 + views))[:, 1:]
    wide = torch.from_numpy((window[:, 0, 2] - window[:, 0, 0]) / (window[:, 0, 3] - window[:, 0, 1])).float()
    of_photo = degraded(of_photo, wide, rng.uniform(0.0, 0.7), rng, noise)
    surface = see_surface(of_photo, places[:, 0])
    drawn = [surface.draw(places[:, 1 + view]) for view in range(views)]
    draft = WarpedView(
        **{
            field.name: torch.stack([getattr(view, field.name) for view in drawn], dim=1).flatten(0, 1)
            for field in fields(WarpedView)
        }
    )
    truth, alpha = pictures[:, 1:].flatten(0, 1), alpha.flatten(0, 1)
    return ViewBatch(
        photos=of_photo,
        photo_places=places[:, 0],
        draft=draft,
        places=places[:, 1:].flatten(0, 1),
        truth=_lit_alike(truth, alpha, draft),
        person=alpha,
    )


def _windows(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where photos and views are cut, (B, 1 + T, 4), of boxes alike: the same window of the person, but for its size.

    The views' windows are as high, against the person, as the photo's, and a little off; boxes around the photo's
    are tight to moderately loose.
    """
    own = windows(box[:, 0], rng)
    grow = np.exp(rng.uniform(-0.02, 0.22, (len(own), 2)) * (rng.random((len(own), 1)) < 0.5))
    middle, half = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]) / 2 * grow
    own = np.concatenate([middle - half, middle + half], axis=1)
    tall = box[..., 3] - box[..., 1]  # (B, 1 + T)
    foot = np.stack([(box[..., 0] + box[..., 2]) / 2, box[..., 3]], axis=2)  # of the middle of each box
    against = (own.reshape(-1, 2, 2) - foot[:, :1]) / tall[:, :1, None]  # (B, 2, 2): corners against the foot
    zoom = np.exp(rng.normal(0, 0.015, tall.shape))
    slip = rng.normal(0, [0.015, 0.006], (*tall.shape, 2)) * tall[..., None]
    zoom[:, 0], slip[:, 0] = 1.0, 0.0
    corners = foot[:, :, None] + slip[:, :, None] + (tall * zoom)[..., None, None] * against[:, None]
    return corners.reshape(*tall.shape, 4)


def _moved(photos: int, views: int, rng: np.random.Generator, noise: torch.Generator, shape: Shape) -> Tensor:
    """Where spoilt bodies are read, (B * (1 + T), H, W, 2) in half windows: off by some pixels.

    A body's height and place are wrong in the same way from all sides, its limbs on each side in a way of their own.
    """
    size = photos, 1 + views
    spoilt = (rng.random((photos, 1, 1)) < SPOILT) * rng.uniform(0.4, 1.4, (photos, 1, 1))
    scale = spoilt * (rng.normal(0, [0.07, 0.035], (photos, 1, 2)) + rng.normal(0, [0.03, 0.01], (*size, 2)))
    shift = rng.normal(0, [0.3, 1.0], (photos, 1, 2)) + rng.normal(0, [0.9, 0.4], (*size, 2))
    pixel = np.array([2 / PIXELS[1], 2 / PIXELS[0]])  # x, y in half windows
    shift = spoilt * shift * pixel
    slow = torch.randn((photos * (1 + views), 2, 6, 4), generator=noise)
    slow = functional.interpolate(slow, shape, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    limbs = slow * torch.from_numpy(np.repeat(1.1 * spoilt[:, 0], 1 + views, axis=0) * pixel).float()[:, None, None]
    y, x = torch.meshgrid(torch.linspace(-1, 1, shape[0]), torch.linspace(-1, 1, shape[1]), indexing="ij")
    flat = [torch.from_numpy(values.reshape(-1, 1, 1, 2)).float() for values in (scale, shift)]
    return flat[0] * torch.stack([x, y], dim=2) + flat[1] + limbs


def _pasted(
    given: Cutouts,
    layers: Tensor,
    rows: np.ndarray,
    window: np.ndarray,
    flip: np.ndarray,
    rng: np.random.Generator,
    noise: torch.Generator,
    shape: Shape,
) -> Tensor:
    """Layers (B * (1 + T), 4, H, W) before B backdrops, in B cameras: (B, 1 + T, 3, H, W)."""
    photos, sides = len(rows), rows.shape[1]
    behind = backgrounds(given, photos, rng, noise, shape) * shadows(
        given.box[rows[:, 0]], window[:, 0], flip[:, 0], rng, shape
    )
    behind = paste(others(given, photos, window[:, 0], rng, shape), behind, rng.random(photos) < ACCOMPANIED)
    light = np.random.default_rng(int(rng.integers(2**62))).bit_generator.state
    of_sides = layers.unflatten(0, (photos, sides)).unbind(1)
    pasted: list[Tensor] = []
    every = np.ones(photos, bool)
    for layer in of_sides:  # all in the same light
        same = np.random.default_rng()
        same.bit_generator.state = light
        pasted.append(paste(relit(layer, same, dark=0.1), behind, every))
    return _by_camera(torch.stack(pasted, dim=1), rng)


def _by_camera(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, S, 3, H, W), gamma, saturation, contrast, tint, exposure and veil alike for the S pictures of a camera."""
    size = len(pictures)

    def drawn(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (size, 1, 1, 1, 1))).float()

    pictures = pictures.clamp(1e-4, 1) ** drawn(0.75, 1.3)
    grey = pictures.mean(2, keepdim=True)
    pictures = grey + drawn(0.4, 1.4) * (pictures - grey)
    mean = pictures.mean((1, 2, 3, 4), keepdim=True)
    tint = tints(size, rng, 0.08)[:, None]
    pictures = (mean + drawn(0.7, 1.25) * (pictures - mean)) * tint * drawn(0.85, 1.2) + drawn(-0.06, 0.06)
    return pictures.clamp(0, 1)


def _lit_alike(truth: Tensor, person: Tensor, draft: WarpedView) -> Tensor:
    """True views whose people are as bright, channel by channel, as the drafts are where these are sure."""
    sure = draft.confidence[:, None] * (person > 0.9)
    few = 0.02 * sure[0].numel()
    ratio = ((draft.picture * sure).sum((2, 3)) + 0.3 * few) / ((truth * sure).sum((2, 3)) + 0.3 * few)
    gain = ratio.clamp(0.6, 1.6)[..., None, None]
    return (truth * (1 + person * (gain - 1))).clamp(0, 1)
