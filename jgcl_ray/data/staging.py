"""A data set copied to a disk of the machine that reads it: once for all workers there, checked, atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jgcl_ray.atomic import one_at_a_time, room_for
from jgcl_ray.data.datasets import ReidDataset
from jgcl_ray.data.datasets.image_tree import file_tree
from jgcl_ray.errors import UserError
from jgcl_ray.stored_files import read_json

LISTING = "staged.json"  # path -> size, time of change (ns) and SHA-256 of each file, as of the copy

_CHUNK = 2**20
_NAME_BYTES = 100  # of the source's name in its copy's: file systems take 255 in all


def stage_folder(source: Path, disk: Path, progress: Callable[[int, int], None] = lambda done, files: None) -> Path:
    """Copy all files below `source` to a folder of its own below `disk`, unless that is there; returns it.

    Whoever comes while another process copies waits for it. Files whose size or time of change differ from those of
    the copy make a new one. Every copied file is read back and compared by SHA-256. progress: called with how many
    files are done, of how many.
    """
    source = source.resolve()
    name = os.fsdecode(os.fsencode(source.name)[:_NAME_BYTES])
    target = disk / f"{name}-{hashlib.sha256(str(source).encode()).hexdigest()[:12]}"
    with _alone(disk, target.name), room_for(target):
        listed = _list(source)
        if _listing(target) == listed:
            return target
        need, free = sum(size for size, _ in listed.values()), shutil.disk_usage(disk).free
        if need > free:
            raise UserError(f"data.stage_to={disk}: {need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
        partial = disk / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        digests = {}
        for done, path in enumerate(listed):
            digests[path] = _copy(source / path, partial / path)
            progress(done + 1, len(listed))
        content = {path: [*listed[path], digest] for path, digest in digests.items()}
        (partial / LISTING).write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return target


def moved(dataset: ReidDataset, root: Path) -> ReidDataset:
    """The data set with its files below `root` instead of its own root."""
    parts: dict[str, Any] = {
        name: replace(split, folder=root / split.folder.relative_to(dataset.root))
        for name, split in dataset.splits.items()
    }
    return replace(dataset, root=root, **parts)


@contextmanager
def _alone(disk: Path, name: str) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(one_at_a_time(disk / f".{name}.lock"))
        except OSError as error:
            raise UserError(f"data.stage_to={disk}: cannot be written to ({error.strerror})") from None
        yield


def _list(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for inner, names in file_tree(folder, once=False):
        for path in (inner / name for name in names if (folder / inner / name).is_file()):
            status = (folder / path).stat()
            found[path.as_posix()] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))


def _listing(target: Path) -> dict[str, tuple[int, int]] | None:
    file = target / LISTING
    if not file.is_file():
        return None
    content = read_json(file, dict[str, tuple[int, int, str]], f"remove {target}, the data set is copied again")
    return {path: (size, changed) for path, (size, changed, _) in content.items()}


def _copy(source: Path, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as original, target.open("wb") as copy:
        while block := original.read(_CHUNK):
            digest.update(block)
            copy.write(block)
    with target.open("rb") as copy:
        if hashlib.file_digest(copy, "sha256").digest() != digest.digest():
            raise OSError(f"{target}: differs from {source}; the disk is failing")
    return digest.hexdigest()
