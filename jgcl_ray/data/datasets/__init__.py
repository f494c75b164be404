"""Data sets by name. A new one: a file beside this one, and its line in jgcl_ray/choices.py."""

from __future__ import annotations

from pkgutil import resolve_name

from jgcl_ray.choices import DATA_SETS, unknown_name
from jgcl_ray.config import DataConfig, WalkersConfig
from jgcl_ray.data.datasets.reid_dataset import ReidDataset, Split, warn_of_one_camera
from jgcl_ray.errors import UserError

__all__ = ["OF_ALL_BELOW", "ReidDataset", "Split", "open_dataset"]

OF_ALL_BELOW = ("folder", "labelled")  # sets that are made of all images below their root


def open_dataset(data: DataConfig, walkers: WalkersConfig | None = None) -> ReidDataset:
    """The data set `data.name` below `data.root`, by its file names alone: no image is opened (see image_check).

    walkers: which walkers to render where `data.name` is `walkers` and `data.root` is not given.
    Raises UserError for whatever is missing or does not parse; warns about what is merely odd.
    """
    if data.name not in DATA_SETS:  # of a command's own option
        raise UserError(f"data.name={data.name!r}: {unknown_name('data set', data.name, DATA_SETS)}")
    if data.name == "walkers" and data.root is None:
        # The renderer brings bodies and a ray tracer, which reading images does not need.
        from jgcl_ray.data.walkers import ensure_rendered

        data = data.model_copy(update={"root": ensure_rendered(walkers or WalkersConfig())})
    dataset: ReidDataset = resolve_name(DATA_SETS[data.name])(data)
    warn_of_one_camera(dataset)
    return dataset
