"""The walkers: people rendered by the project itself, written in Market-1501's layout (jgcl_ray.data.walkers)."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.market1501 import FILE_NAMES
from jgcl_ray.data.datasets.market_layout import MarketLayout
from jgcl_ray.data.datasets.reid_dataset import ReidDataset, Split, check_disjoint
from jgcl_ray.errors import UserError

LAYOUT = MarketLayout(
    name="walkers",
    title="the walkers (python -m jgcl_ray.data.walkers --out FOLDER renders them)",
    names=FILE_NAMES,
    inner=("walkers",),
)


def read_walkers(data: DataConfig) -> ReidDataset:
    """The walkers below `data.root`."""
    dataset = LAYOUT.read(data.root)
    check_disjoint(dataset)
    tracks = dataset.root / "tracks.csv"
    return replace(dataset, train=_with_tracklets(dataset.train, tracks)) if tracks.is_file() else dataset


def _with_tracklets(train: Split, file: Path) -> Split:
    """With tracklet and time of each image, of which `file` has a line: name,tracklet,time."""
    try:
        with file.open(newline="") as lines:
            found = {row["name"]: (int(row["tracklet"]), float(row["time"])) for row in csv.DictReader(lines)}
        known = [found[f"{train.folder.name}/{path}"] for path in train.paths]
        tracklets = np.array([tracklet for tracklet, _ in known], np.int64)
        times = np.array([time for _, time in known], np.float64)
        if not np.isfinite(times).all():
            raise ValueError("a time is no number")
    except (OSError, ValueError, TypeError, LookupError, OverflowError, csv.Error) as error:
        raise UserError(
            f"{file}: no tracklet for every image of {train.folder.name}/ ({error}); render the walkers again, or "
            "remove the file to do without tracklets"
        ) from None
    return replace(train, tracklets=tracklets, times=times)
