"""Data sets by name. A new one: a file beside this one, and a line in READERS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jgcl_ray.config import DataConfig, WalkersConfig
from jgcl_ray.data.datasets.dukemtmc_reid import read_dukemtmc_reid
from jgcl_ray.data.datasets.folder import read_folder
from jgcl_ray.data.datasets.market1501 import read_market1501
from jgcl_ray.data.datasets.msmt17 import read_msmt17
from jgcl_ray.data.datasets.reid_dataset import ReidDataset, Split, warn_of_one_camera
from jgcl_ray.data.datasets.walkers import read_walkers
from jgcl_ray.errors import UserError

__all__ = ["READERS", "ReidDataset", "Split", "open_dataset"]

READERS: dict[str, Callable[[Path | None, WalkersConfig], ReidDataset]] = {
    "market1501": lambda root, _: read_market1501(root),
    "dukemtmc_reid": lambda root, _: read_dukemtmc_reid(root),
    "msmt17": lambda root, _: read_msmt17(root),
    "folder": lambda root, _: read_folder(root),
    "walkers": read_walkers,
}


def open_dataset(data: DataConfig, walkers: WalkersConfig | None = None) -> ReidDataset:
    """The data set `data.name` below `data.root`, by its file names alone: no image is opened (see image_check).

    walkers: which walkers to render where `data.name` is `walkers` and `data.root` is not given.
    Raises UserError for whatever is missing or does not parse; warns about what is merely odd.
    """
    if data.name not in READERS:
        raise UserError(f"data.name={data.name!r}: no such data set; known: {', '.join(READERS)}")
    dataset = READERS[data.name](data.root, walkers or WalkersConfig())
    warn_of_one_camera(dataset)
    return dataset
