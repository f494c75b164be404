"""How good a crop is: its size, what the frame's edge cuts off, what other boxes cover, how sharp it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from jgcl_ray.footage.tracks import Tracks, clipped

GOOD_AREA = 128 * 64  # pixels from which on size is no flaw
HALF_SHARP = 0.06  # ratio of energies at which a crop counts as half sharp: a walker blurred until 32 rows would do
TOLERANCE = 1.4  # a walking person's box is at times so much wider, or narrower, than usual
GREY_HEIGHT, GREY_WIDTH = 128, 64  # pixels at which sharpness is measured, so that it does not depend on the size


def geometric_quality(tracks: Tracks, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of N boxes in [0, 1]: quality without sharpness, overlap with other boxes, share inside the frame; each (N,).

    Size (square root of the area, up to 128 x 64) times the share inside times what is not covered: the visibility
    where the file has one, else what no other box overlaps; times less where the box has not the shape that the
    track's boxes usually have, for then it holds half a person, or two.
    """
    inside = clipped(tracks.box, width, height)
    area = inside[:, 2].clip(min=0) * inside[:, 3].clip(min=0)
    share = area / (tracks.box[:, 2] * tracks.box[:, 3])
    overlap = overlaps(tracks.frame, tracks.box)
    free = np.where(np.isfinite(tracks.visibility), tracks.visibility, 1 - overlap)
    size = np.sqrt(area / GOOD_AREA).clip(max=1)
    return size * share * free * usual_shape(tracks), overlap, share


def usual_shape(tracks: Tracks) -> np.ndarray:
    """1 where width over height is within TOLERANCE of the median of the box's track, less beyond, (N,)."""
    ratio = np.log(tracks.box[:, 2] / tracks.box[:, 3])
    order = np.lexsort((ratio, tracks.track))
    _, first, inverse, counts = np.unique(
        tracks.track[order], return_index=True, return_inverse=True, return_counts=True
    )
    median = (ratio[order][first + (counts - 1) // 2] + ratio[order][first + counts // 2]) / 2
    usual = np.empty(len(ratio))
    usual[order] = median[inverse]
    return np.exp(np.minimum(np.log(TOLERANCE) - np.abs(ratio - usual), 0))


def overlaps(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Of N boxes, ordered by frame: the largest share that one other box of the frame covers, (N,)."""
    shares = np.zeros(len(frame))
    starts = np.flatnonzero(np.diff(frame, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(frame)], strict=True):
        if stop - start > 1:
            low, size = box[start:stop, :2], box[start:stop, 2:]
            high = low + size
            common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
            covered = common.clip(min=0).prod(2)
            np.fill_diagonal(covered, 0)
            shares[start:stop] = covered.max(1) / size.prod(1)
    return shares


def sharpness(crop: np.ndarray) -> float:
    """Of a crop uint8 (H, W, 3) in [0, 1]: second differences against the grey values' own variance.

    At one size for all crops, so that a small crop, enlarged, is not sharp; contrast cancels out.
    """
    grey = Image.fromarray(crop).convert("L").resize((GREY_WIDTH, GREY_HEIGHT), Image.Resampling.BILINEAR)
    values = np.asarray(grey, np.float32)
    inner = values[1:-1, 1:-1]
    second = values[2:, 1:-1] + values[:-2, 1:-1] + values[1:-1, 2:] + values[1:-1, :-2] - 4 * inner
    ratio = float((second**2).mean()) / (float(inner.var()) + 1.0)
    return ratio / (ratio + HALF_SHARP)
