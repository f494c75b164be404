"""All images below a folder, whatever their arrangement."""

from __future__ import annotations

import os
from pathlib import Path

from jgcl_ray.data.datasets.reid_dataset import IMAGE_SUFFIXES, NO_DATA, is_image
from jgcl_ray.errors import UserError


def image_tree(folder: Path) -> tuple[str, ...]:
    """Paths relative to `folder`, with forward slashes, ascending; UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; give one with images")
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(NO_DATA)]
        inner = Path(parent).relative_to(folder)
        found += [(inner / name).as_posix() for name in names if is_image(name) and not name.startswith(NO_DATA)]
    if not found:
        raise UserError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}), nor does a folder in it")
    return tuple(sorted(found))
