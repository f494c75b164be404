"""A folder of photos with the projections of the people in them.

Letters: N images, B of them, H x W image size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jgcl_ray.cache import cache_folder
from jgcl_ray.config import Config, MeshesConfig
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.data.datasets.reid_dataset import UNKNOWN_CAMERA, Split
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.transforms import normalise_images, normalise_meshes
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import resize
from jgcl_ray.meshes.estimated_bodies import ensure_estimated, made_from
from jgcl_ray.meshes.estimator import WEIGHTS
from jgcl_ray.meshes.projection_folders import SplitName, png_names, view_folder
from jgcl_ray.meshes.projections import ProjectionSource, drawn_by_view, open_projections
from jgcl_ray.places import absolute, check_folder
from jgcl_ray.progress import tracked
from jgcl_ray.wording import counted

SPLITS: tuple[SplitName, ...] = ("train", "test")


@dataclass(frozen=True, eq=False)
class People:
    """N photos, ascending by name, and their projections."""

    store: ImageStore
    projections: ProjectionSource
    split: SplitName  # in which the projections' layout has them

    @property
    def names(self) -> tuple[str, ...]:
        """N paths relative to the folder, with forward slashes."""
        return self.store.split.paths

    @cached_property
    def pictures(self) -> list[str]:
        """N names under which their pictures are written, each its own."""
        return png_names(self.names)

    @property
    def folder(self) -> Path:
        """Of the photos, absolute."""
        return self.store.split.folder

    def row(self, name: str) -> int:
        """The row of a photo, given by its name in the folder or its path; UserError where there is none."""
        inside = Path(name).absolute()
        wanted = inside.relative_to(self.folder).as_posix() if inside.is_relative_to(self.folder) else name
        if wanted not in self.names:
            raise UserError(f"{name}: not among the {counted(len(self.names), 'image')} of {self.folder}")
        return self.names.index(wanted)

    def pixels(self, rows: Sequence[int]) -> np.ndarray:
        """uint8 (B, H, W, 3)."""
        return np.stack([self.store.load(row) for row in rows])

    def images(self, rows: Sequence[int]) -> torch.Tensor:
        """(B, 3, H, W), ImageNet mean/std normalised."""
        return normalise_images([self.store.load(row) for row in rows])

    def meshes(self, rows: Sequence[int], views: Iterable[int]) -> dict[int, torch.Tensor]:
        """By view, the people turned by so many degrees: (B, 1, H, W) in [-1, 1]."""
        drawn = drawn_by_view(self._mesh, rows, views)
        return {view: normalise_meshes(list(pictures)) for view, pictures in drawn.items()}

    def coordinates(self, rows: Sequence[int], views: Iterable[int]) -> dict[int, np.ndarray]:
        """By view, ProjectionSource.coordinates of the people turned by so many degrees: float16 (B, H, W, 3)."""
        return drawn_by_view(self.projections.coordinates, rows, views)

    def _mesh(self, row: int, view: int) -> np.ndarray:
        grey = Image.fromarray(self.projections.load(row, view))
        return np.asarray(resize(grey, self.store.height, self.store.width))


def open_people(folder: Path, config: Config, most: int | None = None) -> People:
    """All images below `folder`, or the first `most`, with the projections that `config.meshes` names.

    Walkers find theirs beside the folder; where only some of the photos have any, as in the test folders of the
    preset `medium`, only these are opened, with a warning. UserError where there are no images or no projections.
    """
    folder = absolute(folder)
    names, meshes = image_tree(folder), config.meshes
    if meshes.source == "walkers" and meshes.root is None:
        meshes = meshes.model_copy(update={"root": folder.parent / "meshes"})
        names = _with_projections(folder, names, folder.parent / "meshes")
    names = names[:most]
    if meshes.source == "estimated":
        meshes = _estimated(meshes, folder, names)
    first = names[0], png_names(names)[0]
    split = next((name for name in SPLITS if meshes.root and _has(meshes.root, name, *first)), SPLITS[0])
    cameras = np.full(len(names), UNKNOWN_CAMERA, np.int64)
    store = ImageStore(Split(folder, names, None, cameras), config.data.height, config.data.width)
    return People(store, open_projections(meshes, config.data, names, split, folder), split)


def _estimated(meshes: MeshesConfig, folder: Path, names: Sequence[str]) -> MeshesConfig:
    """With the file of the images' bodies, which is kept in the cache."""
    kept = cache_folder() / "bodies"
    check_folder(kept, "cache (JGCL_RAY_CACHE)")
    kept.mkdir(parents=True, exist_ok=True)
    file = kept / f"{made_from(folder, names, meshes.weights or WEIGHTS)}.npz"
    ensure_estimated(file, folder, names, meshes, lambda batches: tracked(batches, "bodies"))
    return meshes.model_copy(update={"parameters": file})


def _with_projections(folder: Path, names: tuple[str, ...], meshes: Path) -> tuple[str, ...]:
    """The walkers that have projections; all of them where none has, which is an error further on."""
    drawn = tuple(
        name
        for name, picture in zip(names, png_names(names), strict=True)
        if any(_has(meshes, split, name, picture) for split in SPLITS)
    )
    if not drawn or len(drawn) == len(names):
        return names
    warnings.warn(
        f"{folder}: {len(drawn):,} of {len(names):,} photos have projections below {meshes}; the others are left out",
        stacklevel=2,
    )
    return drawn


def _has(root: Path, split: SplitName, name: str, picture: str) -> bool:
    folder = view_folder(root, split, 0)
    return (folder / name).is_file() or (folder / picture).is_file()
