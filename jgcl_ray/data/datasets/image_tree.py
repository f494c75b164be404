"""All files below a folder, whatever their arrangement."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jgcl_ray.data.datasets.reid_dataset import IMAGE_SUFFIXES, NO_DATA, check_name, is_image
from jgcl_ray.data.datasets.unfinished import refuse_unfinished
from jgcl_ray.errors import UserError
from jgcl_ray.places import absolute


def image_tree(folder: Path) -> tuple[str, ...]:
    """Paths relative to `folder`, with forward slashes, ascending; UserError where there is none, or where the
    folder is of crops that are not all cut (refuse_unfinished).
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; give one with images")
    refuse_unfinished(absolute(folder))
    found = []
    for inner, names in file_tree(folder):
        if not any(part.startswith(NO_DATA) for part in inner.parts):
            images = [name for name in names if is_image(name) and not name.startswith(NO_DATA)]
            for name in images:
                check_name(folder / inner / name, name)
            found += [(inner / name).as_posix() for name in images]
    if not found:
        raise UserError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}), nor does a folder in it")
    return tuple(sorted(found))


def file_tree(folder: Path, once: bool = True) -> Iterator[tuple[Path, list[str]]]:
    """Folders below `folder`, itself included, relative to it, each with the names of its files.

    Links to folders are followed, but for those to a folder above. once: each folder comes once, under its own name
    before that of a link.
    """
    seen: set[str] = set()
    waiting = [Path()]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            for parent, folders, names in os.walk(folder / start):
                real = os.path.realpath(parent)
                above = f"{os.path.realpath(Path(parent).parent)}/".startswith(f"{real}/") and Path(parent) != folder
                if above or (once and real in seen):
                    folders.clear()
                    continue
                seen.add(real)
                inner = Path(parent).relative_to(folder)
                folders.sort()
                links += [inner / name for name in folders if Path(parent, name).is_symlink()]
                yield inner, names
        waiting = links
