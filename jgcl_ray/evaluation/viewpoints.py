"""Scores by how far a person turned between two photos, where bodies are known: walkers keep them in views.npz.

Letters: Q queries, M gallery images, K matches, V bins of angle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jgcl_ray.data.datasets import ReidDataset, Split
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.ranking import Matches
from jgcl_ray.meshes.projection_folders import TRUTH
from jgcl_ray.meshes.walker_files import read_views

BINS = ((0, 45), (45, 90), (90, 135), (135, 180))  # degrees between the sides that two photos show, V of them
_WIDTH = 45


def read_yaws(dataset: ReidDataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Of queries (Q,) and gallery (M,), degrees relative to the camera; None where the set has no views.npz.

    UserError for a file that cannot be read or that lacks an image.
    """
    file = dataset.root / TRUTH
    if not file.is_file() or dataset.query is None or dataset.gallery is None:
        return None
    truth = read_views(file, "yaw", otherwise=", or take the file away to score without viewpoints")
    yaws = dict(zip(truth["names"].tolist(), truth["yaw"].tolist(), strict=True))
    return _yaws_of(dataset.query, yaws, file), _yaws_of(dataset.gallery, yaws, file)


def viewpoint_precisions(matches: Matches, query_yaws: np.ndarray, gallery_yaws: np.ndarray) -> np.ndarray:
    """(Q, V) float64: average precision of each query with the matches of one bin alone, the others left out.

    query_yaws (Q,), gallery_yaws (M,), degrees. NaN where a query has no match of that bin.
    """
    bins = bins_of(query_yaws[matches.queries], gallery_yaws[matches.rows])
    return np.stack([matches.average_precisions(bins == number) for number in range(len(BINS))], axis=1)


def bins_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(K,) int64: the bin of the angle between two directions (K,) each, whose difference is at most 180 degrees."""
    turned = np.abs((first - second + 180) % 360 - 180)
    return np.minimum(turned // _WIDTH, len(BINS) - 1).astype(np.int64)


def _yaws_of(split: Split, yaws: dict[str, float], file: Path) -> np.ndarray:
    names = [f"{split.folder.name}/{path}" for path in split.paths]
    missing = [name for name in names if name not in yaws]
    if missing:
        raise UserError(f"{file}: has no view of {missing[0]} ({len(missing):,} lack one); take the file away")
    return np.array([yaws[name] for name in names])
