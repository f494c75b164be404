"""A user's own crops: a folder per camera, maybe a folder per track in it, or one flat folder; no labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.division import thinned
from jgcl_ray.data.datasets.reid_dataset import (
    IMAGE_SUFFIXES,
    UNKNOWN_CAMERA,
    ReidDataset,
    Split,
    existing_root,
    is_image,
    is_image_file,
    natural_order,
    visible,
)
from jgcl_ray.data.datasets.track_times import times_of
from jgcl_ray.data.datasets.unfinished import refuse_unfinished
from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted


def read_folder(data: DataConfig) -> ReidDataset:
    """Crops as `root/CAMERA/*.jpg` (.jpeg, .png, .bmp, .webp), `root/CAMERA/TRACK/*.jpg`, or flat as `root/*.jpg`.

    Cameras are numbered from 1 in the natural order of their folders' names (cam2 before cam10), which are kept in
    `camera_names`; those of flat images are unknown. In folders of tracks each is a tracklet, numbered over all
    cameras, and times come from tracks.csv or the names (see track_times). There is no query and no gallery.
    At most `data.per_tracklet` images of each tracklet are taken, evenly spread.
    """
    root = existing_root(data.root, "your crops, one folder per camera")
    refuse_unfinished(root)
    flat = [entry.name for entry in visible(root) if is_image_file(entry)]
    by_camera = {
        entry.name: _images_below(root / entry.name)
        for entry in sorted(visible(root), key=lambda entry: natural_order(entry.name))
        if entry.is_dir()
    }
    filled = {camera: paths for camera, paths in by_camera.items() if paths}
    if flat and filled:
        raise UserError(
            f"{root}: {counted(len(flat), 'image')} beside the camera folders, first {min(flat)}; move them into the "
            "folder of their camera"
        )
    if not flat and not filled:
        raise UserError(
            f"{root}: holds no image; expected CAMERA/NAME{'|'.join(IMAGE_SUFFIXES)}, CAMERA/TRACK/NAME, or the "
            "images themselves"
        )
    empty = [camera for camera in by_camera if camera not in filled]
    if filled and empty:
        warnings.warn(f"{root}: no image in {', '.join(empty)}", stacklevel=2)
    camera_names = dict(enumerate(filled, start=1))
    images = [(name, UNKNOWN_CAMERA) for name in flat]
    images += [(f"{name}/{image}", camera) for camera, name in camera_names.items() for image in filled[name]]
    images.sort()
    paths = tuple(path for path, _ in images)
    cameras = np.array([camera for _, camera in images], dtype=np.int64)
    tracked = _all_in_tracks(root, paths)
    tracklets, times, spans = (_tracklets(paths), *times_of(root, paths)) if tracked else (None, None, None)
    train = Split(root, paths, None, cameras, tracklets, times, spans)
    return thinned(ReidDataset(name="folder", root=root, train=train, camera_names=camera_names), data.per_tracklet)


def _images_below(camera: Path) -> list[str]:
    """Images in a camera's folder and in folders in it, relative to it."""
    found = []
    for entry in visible(camera):
        if is_image_file(entry):
            found.append(entry.name)
        elif entry.is_dir():
            for inner in visible(Path(entry.path)):
                if inner.is_dir() and any(is_image(image.name) for image in visible(Path(inner.path))):
                    raise UserError(
                        f"{inner.path}: images may lie two folders deep, data.root/CAMERA/TRACK/NAME; move these up, "
                        "or give a data.root further down"
                    )
                if is_image_file(inner):
                    found.append(f"{entry.name}/{inner.name}")
    return found


def _all_in_tracks(root: Path, paths: Sequence[str]) -> bool:
    deep = [path for path in paths if path.count("/") == 2]
    if deep and len(deep) < len(paths):
        other = next(path for path in paths if path.count("/") < 2)
        raise UserError(
            f"{root}: {len(deep):,} images lie in folders of tracks (CAMERA/TRACK/NAME), first {deep[0]}, and "
            f"{len(paths) - len(deep):,} straight in their camera's folder, first {other}; arrange them all alike"
        )
    return bool(deep)


def _tracklets(paths: Sequence[str]) -> np.ndarray:
    folders = [path.rpartition("/")[0] for path in paths]
    numbers = {folder: number for number, folder in enumerate(sorted(set(folders), key=natural_order))}
    return np.array([numbers[folder] for folder in folders], dtype=np.int64)
