"""Embeddings corrected without training, and scored beside the plain ones.

Letters: D embedding width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jgcl_ray.camera_means import CameraMeans
from jgcl_ray.data.datasets import Split
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.bootstrap import Interval, mean_interval, paired_difference
from jgcl_ray.evaluation.embedder import Embedder
from jgcl_ray.evaluation.ranking import Labels, RankingResult

PLAIN, FLIP, CAMERA_MEANS = "plain", "flip", "camera_means"  # corrections, which training does not know of
MeansOf = Literal["train", "gallery"]  # the images whose mean features are taken off


@dataclass(frozen=True)
class Corrected:
    """The same encoder with a correction that needs no training, such as flip; beside the plain score."""

    name: str
    result: RankingResult
    interval: Interval  # of its mAP
    difference: Interval  # to the plain mAP, in pairs

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **self.result.summary(),
            "cmc": self.result.cmc.tolist(),
            "interval": self.interval.bounds,
            "difference": self.difference.mean,
            "difference_interval": self.difference.bounds,
        }


def splits_needed(query: Split, gallery: Split, train: Split, means_of: MeansOf | None) -> dict[str, Split]:
    """What must be embedded, by name.

    UserError where a camera of query or gallery has no image to take the mean of.
    """
    splits = {"query": query, "gallery": gallery}
    if means_of is None:
        return splits
    if means_of == "train":
        splits["train"] = train
    have = set(splits[means_of].cameras.tolist())
    missing = sorted({*query.cameras.tolist(), *gallery.cameras.tolist()} - have)
    if missing:
        other, kind = ("gallery", "training") if means_of == "train" else ("train", "gallery")
        raise UserError(
            f"--camera-means: camera {missing[0]} has no {kind} image whose mean could be taken off; try --means-of "
            f"{other}"
        )
    return splits


def embed_all_ways(
    encoder: Embedder,
    splits: dict[str, Split],
    flip: bool,
    means_of: MeansOf | None,
    batch_size: int = 64,
    progress: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """Embeddings of each split, plain, by each correction and by both: (its images, D) by names of way and split.

    splits: see `splits_needed`. The images are read once.
    """
    ways: dict[str, dict[str, np.ndarray]] = {way: {} for way in ((PLAIN, FLIP) if flip else (PLAIN,))}
    for part, split in splits.items():
        paths = [split.path(row) for row in range(len(split))]
        if flip:
            ways[PLAIN][part], ways[FLIP][part] = encoder.embed_with_mirror(paths, batch_size, progress)
        else:
            ways[PLAIN][part] = encoder.embed(paths, batch_size, progress)
    if means_of is not None:
        for way, parts in list(ways.items()):
            joined = CAMERA_MEANS if way == PLAIN else f"{way}+{CAMERA_MEANS}"
            ways[joined] = _centred(parts, splits, means_of)
    return ways


def score_corrected(way: str, result: RankingResult, plain: RankingResult, labels: Labels) -> Corrected:
    """What a correction gave, beside the plain result."""
    mine, people = result.average_precisions, labels.query_identities
    difference = paired_difference(mine, plain.average_precisions, people)
    return Corrected(way, result, mean_interval(mine, people), difference)


def _centred(parts: dict[str, np.ndarray], splits: dict[str, Split], means_of: MeansOf) -> dict[str, np.ndarray]:
    means = CameraMeans.of(parts[means_of], splits[means_of].cameras)
    for warning in means.small_camera_warnings:
        warnings.warn(f"--camera-means: {warning}", stacklevel=2)
    return {name: means.centred(parts[name], splits[name].cameras) for name in ("query", "gallery")}
