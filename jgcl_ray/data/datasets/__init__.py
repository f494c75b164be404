"""Data sets by name. A new one: a file beside this one, and a line in READERS."""

from __future__ import annotations

from collections.abc import Callable

from jgcl_ray.config import DataConfig, WalkersConfig
from jgcl_ray.data.datasets.cuhk03 import read_cuhk03
from jgcl_ray.data.datasets.dukemtmc_reid import read_dukemtmc_reid
from jgcl_ray.data.datasets.folder import read_folder
from jgcl_ray.data.datasets.labelled import read_labelled
from jgcl_ray.data.datasets.market1501 import read_market1501
from jgcl_ray.data.datasets.mars import read_mars
from jgcl_ray.data.datasets.msmt17 import read_msmt17
from jgcl_ray.data.datasets.prid2011 import read_prid2011
from jgcl_ray.data.datasets.reid_dataset import ReidDataset, Split, warn_of_one_camera
from jgcl_ray.data.datasets.two_cameras import CUHK01, PKU_REID, VIPER
from jgcl_ray.data.datasets.walkers import read_walkers
from jgcl_ray.errors import UserError

__all__ = ["READERS", "ReidDataset", "Split", "open_dataset"]

READERS: dict[str, Callable[[DataConfig, WalkersConfig], ReidDataset]] = {
    "market1501": lambda data, _: read_market1501(data.root),
    "dukemtmc_reid": lambda data, _: read_dukemtmc_reid(data.root),
    "msmt17": lambda data, _: read_msmt17(data.root),
    "cuhk03": lambda data, _: read_cuhk03(data),
    "mars": lambda data, _: read_mars(data),
    "cuhk01": lambda data, _: CUHK01.open(data),
    "viper": lambda data, _: VIPER.open(data),
    "prid2011": lambda data, _: read_prid2011(data),
    "pku_reid": lambda data, _: PKU_REID.open(data),
    "labelled": lambda data, _: read_labelled(data),
    "folder": lambda data, _: read_folder(data.root, data.per_tracklet),
    "walkers": lambda data, walkers: read_walkers(data.root, walkers),
}


def open_dataset(data: DataConfig, walkers: WalkersConfig | None = None) -> ReidDataset:
    """The data set `data.name` below `data.root`, by its file names alone: no image is opened (see image_check).

    walkers: which walkers to render where `data.name` is `walkers` and `data.root` is not given.
    Raises UserError for whatever is missing or does not parse; warns about what is merely odd.
    """
    if data.name not in READERS:
        raise UserError(f"data.name={data.name!r}: no such data set; known: {', '.join(READERS)}")
    dataset = READERS[data.name](data, walkers or WalkersConfig())
    warn_of_one_camera(dataset)
    return dataset
