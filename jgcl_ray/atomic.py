"""Files that are either as they were or complete, and a lock for those who make one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jgcl_ray.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path in the same folder to write to; on leaving without an error it is on disk and takes `path`'s place.

    Otherwise, and after a crash at any moment, `path` is what it was. UserError where its folder is missing.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise UserError(f"{path}: a folder; give the name of a file")
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")  # the suffix stays: some formats go by it
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, at any moment."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, values: Any) -> None:
    """The same, of a JSON document; ValueError for NaN and infinity, which are none.

    Objects have a line for each entry; a list of plain values has one line, however long.
    """
    write_bytes(path, (_layout(values, "\n") + "\n").encode())


def _layout(values: Any, line: str) -> str:
    inner = line + " "
    if isinstance(values, dict) and values:
        # A key becomes a string in JSON's own way.
        entries = [f"{json.dumps({key: 0})[1:-4]}: {_layout(value, inner)}" for key, value in values.items()]
        return "{" + inner + f",{inner}".join(entries) + line + "}"
    if isinstance(values, list | tuple) and any(isinstance(value, dict | list | tuple) for value in values):
        return "[" + inner + f",{inner}".join(_layout(value, inner) for value in values) + line + "]"
    return json.dumps(values, allow_nan=False)


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """One process of this machine at a time holds the lock; the system takes it from one that ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
