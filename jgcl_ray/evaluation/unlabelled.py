"""How good an encoder is, by images that nobody labelled: no identity and no pseudo label enters.

Letters: N images, M of them disturbed, D width of the embedding, T tracklets.
"""

from __future__ import annotations

import numpy as np
import torch

from jgcl_ray.batches import Tracks
from jgcl_ray.evaluation.evaluator import Scores
from jgcl_ray.evaluation.ranking import rank

QUERIES = 5000  # tracklets that are searched for, evenly spread where there are more
SHIFT, GAIN, LIGHT, COVERED = (
    1 / 12,
    0.25,
    0.2,
    (0.15, 0.4),
)  # shares of height and width, of the colours, of the sides
GREY = 114


def tracklet_ends(tracks: Tracks | None) -> np.ndarray | None:
    """Row of the first and of the last image of each tracklet of two images or more, (T, 2) int64.

    In the order of time, and of the rows where times are equal or unknown. None where fewer than two tracklets are.
    """
    if tracks is None:
        return None
    times = np.zeros(len(tracks.tracklets)) if tracks.times is None else tracks.times
    order = np.lexsort((times, tracks.tracklets))
    order = order[tracks.tracklets[order] >= 0]
    first = np.flatnonzero(np.diff(tracks.tracklets[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    long = last > first
    return np.stack([order[first[long]], order[last[long]]], axis=1) if long.sum() > 1 else None


def split_half(features: torch.Tensor, ends: np.ndarray) -> Scores:
    """How well tracklets are found again: the first image of each, among the last images of all.

    features (N, D) normalised, on the CPU; ends (T, 2) as `tracklet_ends` gives them. mAP is the mean reciprocal
    rank: one image is right. Single images, not the means of the halves: these are found so easily that no encoder
    stands out (benchmarks/README.md). No label enters, but the images are those that the encoder learns from.
    """
    asked = np.unique(np.linspace(0, len(ends) - 1, min(QUERIES, len(ends))).round().astype(np.int64))
    found, names = features.numpy(), np.arange(len(ends))
    cameras = np.zeros(len(asked), np.int64), np.ones(len(ends), np.int64)  # no camera's images are left out
    result = rank(found[ends[asked, 0]], found[ends[:, 1]], names[asked] + 1, names + 1, *cameras)
    return Scores.of(result)


def disturbed(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A new image, uint8 (H, W, 3) like the given one: shifted over black, in other colours, partly covered."""
    height, width = image.shape[:2]
    down, right = (int(random.integers(-round(side * SHIFT), round(side * SHIFT) + 1)) for side in (height, width))
    shifted = np.zeros(image.shape, np.float32)
    shifted[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
        max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
    ]
    shifted *= random.uniform(1 - GAIN, 1 + GAIN, 3) * random.uniform(1 - LIGHT, 1 + LIGHT)
    tall, wide = (max(1, round(side * random.uniform(*COVERED))) for side in (height, width))
    top, left = (int(random.integers(0, rest + 1)) for rest in (height - tall, width - wide))
    shifted[top : top + tall, left : left + wide] = GREY
    return shifted.clip(0, 255).astype(np.uint8)


def neighbour_stability(
    features: np.ndarray, disturbed_features: np.ndarray, rows: np.ndarray, cameras: np.ndarray, count: int = 5
) -> float:
    """Share of the `count` nearest images of other cameras that an image keeps when it is disturbed.

    features (N, D); disturbed_features (M, D), of rows (M,); normalised. cameras (N,): where a row's camera is the
    only one, or unknown (negative), all other images count. In [0, 1].
    """
    common, size = 0, min(count, len(features) - 1)
    for row, moved in zip(rows, disturbed_features, strict=True):
        allowed = cameras != cameras[row]
        if cameras[row] < 0 or allowed.sum() < size:
            allowed = np.arange(len(features)) != row
        among = np.flatnonzero(allowed)
        own, its = (_nearest(features[among] @ query, size) for query in (features[row], moved))
        common += len(own & its)
    return common / (size * len(rows))


def _nearest(similarity: np.ndarray, count: int) -> set[int]:
    return set(np.argpartition(-similarity, count - 1)[:count].tolist())


def recognition(features: np.ndarray, disturbed_features: np.ndarray, rows: np.ndarray) -> float:
    """Mean reciprocal rank of the image itself, among all N, for its disturbed copy; in (0, 1].

    features (N, D); disturbed_features (M, D), of rows (M,); normalised.
    """
    similarity = disturbed_features @ features.T
    own = similarity[np.arange(len(rows)), rows]
    return float((1 / (1 + (similarity > own[:, None]).sum(1))).mean())


def effective_rank(features: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of the centred features (N, D): RankMe, arXiv 2210.02885.

    How many directions an encoder uses: a collapsed one has few.
    """
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = values / values.sum()
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-12))).sum()))
