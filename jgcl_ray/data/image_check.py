"""Broken images, found before training rather than in its third night."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from jgcl_ray.data.datasets.image_tree import file_tree
from jgcl_ray.data.datasets.reid_dataset import NO_DATA, ReidDataset, Split, is_image
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, verify
from jgcl_ray.wording import counted

CHUNK = 64  # images a thread takes at a time
NAMED_AT_MOST = 100  # in a message; the rest is counted


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be decoded, and what is the matter with it."""

    row: int
    path: Path
    reason: str


def find_broken(split: Split, threads: int | None = None) -> list[BrokenImage]:
    """Every image of a split that cannot be decoded to its last byte, in the order of rows."""
    # Threads: Pillow lets go of Python's lock while it decodes, and what takes time on a network disk is to wait.
    chunks = [range(start, min(start + CHUNK, len(split))) for start in range(0, len(split), CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        return [image for broken in pool.map(partial(_broken_among, split), chunks) for image in broken]


def check_images(dataset: ReidDataset, on_bad_image: Literal["error", "skip"]) -> ReidDataset:
    """The data set, all of whose images can be decoded.

    `error`: UserError that names the broken images of all splits at once. `skip`: they are left out, the others keep
    their order, and a warning counts them. Run it once, on the driver: rows must be the same on every worker.
    """
    broken = {name: find_broken(split) for name, split in dataset.splits.items() if name != "validation"}
    everything = [image for images in broken.values() for image in images]
    _check_links(dataset, on_bad_image)
    if not everything:
        return dataset
    total = sum(len(dataset.splits[name]) for name in broken)
    named = ", ".join(f"{image.path} ({image.reason})" for image in everything[:NAMED_AT_MOST])
    more = f" and {len(everything) - NAMED_AT_MOST:,} more" if len(everything) > NAMED_AT_MOST else ""
    message = f"{len(everything):,} of {counted(total, 'image')} cannot be read: {named}{more}"
    if on_bad_image == "error":
        raise UserError(f"{message}; replace them, or leave them out by data.on_bad_image=skip")
    warnings.warn(f"{message}; they are left out", stacklevel=2)
    whole = {name: _without(dataset.splits[name], images, name) for name, images in broken.items()}
    validation = dataset.validation
    if validation is not None:  # its rows are train's
        validation = validation.take(np.isin(np.array(validation.paths), np.array(whole["train"].paths)))
    return replace(
        dataset,
        train=whole["train"],
        query=whole.get("query"),
        gallery=whole.get("gallery"),
        validation=validation,
        left_out={name: len(images) for name, images in broken.items() if images},
    )


def _check_links(dataset: ReidDataset, on_bad_image: Literal["error", "skip"]) -> None:
    """A camera's folder that is a link to a disk that is not there would be left out unseen."""
    folders = {split.folder for split in dataset.splits.values()}
    places = [dataset.root, *(folder / inner for folder in folders for inner, _ in file_tree(folder))]
    links = {path for place in places for path in place.iterdir() if path.is_symlink() and not path.exists()}
    lost = sorted(path for path in links if not is_image(path.name) and not path.name.startswith(NO_DATA))
    if not lost:
        return
    named = ", ".join(f"{path} (a link to {path.readlink()}, which is not there)" for path in lost[:NAMED_AT_MOST])
    if on_bad_image == "error":
        raise UserError(f"{named}: mount its disk, remove the link, or go without by data.on_bad_image=skip")
    warnings.warn(f"{named}: left out", stacklevel=3)


def _broken_among(split: Split, rows: range) -> list[BrokenImage]:
    reasons = ((row, _what_is_wrong(split.path(row))) for row in rows)
    return [BrokenImage(row, split.path(row), reason) for row, reason in reasons if reason is not None]


def _without(split: Split, broken: Sequence[BrokenImage], name: str) -> Split:
    if len(broken) == len(split):
        raise UserError(
            f"{split.folder}: none of the {counted(len(split), 'image')} of {name} can be read; restore them"
        )
    whole = np.ones(len(split), dtype=bool)
    whole[[image.row for image in broken]] = False
    return split.take(whole)


def _what_is_wrong(path: Path) -> str | None:
    try:
        verify(path)
    except UnreadableImage as error:
        return str(error)
    return None
