"""A user's own crops: a folder per camera, or one flat folder; no labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from jgcl_ray.data.datasets.reid_dataset import (
    IMAGE_SUFFIXES,
    UNKNOWN_CAMERA,
    ReidDataset,
    Split,
    existing_root,
    is_image,
    natural_order,
    visible,
)
from jgcl_ray.errors import UserError


def read_folder(root: Path | None) -> ReidDataset:
    """Crops as `root/CAMERA/*.jpg` (.jpeg, .png, .bmp, .webp), or flat as `root/*.jpg` with unknown cameras.

    Cameras are numbered from 1 in the natural order of their folders' names (cam2 before cam10), which are kept in
    `camera_names`. There is no query and no gallery.
    """
    root = existing_root(root, "your crops, one folder per camera")
    flat = [entry.name for entry in visible(root) if entry.is_file() and is_image(entry.name)]
    by_camera = {
        entry.name: _camera_images(root / entry.name)
        for entry in sorted(visible(root), key=lambda entry: natural_order(entry.name))
        if entry.is_dir()
    }
    filled = {camera: names for camera, names in by_camera.items() if names}
    if flat and filled:
        raise UserError(
            f"{root}: {len(flat):,} images lie beside the camera folders, first {min(flat)}; move them into the "
            "folder of their camera"
        )
    if not flat and not filled:
        raise UserError(
            f"{root}: holds no image; expected CAMERA/NAME{'|'.join(IMAGE_SUFFIXES)} or the images themselves"
        )
    empty = [camera for camera in by_camera if camera not in filled]
    if filled and empty:
        warnings.warn(f"{root}: no image in {', '.join(empty)}", stacklevel=2)
    camera_names = dict(enumerate(filled, start=1))
    images = [(name, UNKNOWN_CAMERA) for name in flat]
    images += [(f"{name}/{image}", camera) for camera, name in camera_names.items() for image in filled[name]]
    images.sort()
    train = Split(
        folder=root,
        paths=tuple(path for path, _ in images),
        identities=None,
        cameras=np.array([camera for _, camera in images], dtype=np.int64),
    )
    return ReidDataset(name="folder", root=root, train=train, camera_names=camera_names)


def _camera_images(folder: Path) -> list[str]:
    names = []
    for entry in visible(folder):
        if entry.is_dir() and any(inner.is_dir() or is_image(inner.name) for inner in visible(Path(entry.path))):
            raise UserError(
                f"{entry.path}: images may lie one folder deep, data.root/CAMERA/NAME; move these up into {folder}, "
                "or give them a camera folder of their own"
            )
        if entry.is_file() and is_image(entry.name):
            names.append(entry.name)
    return names
