"""Files that are either as they were or complete, and a lock for those who make one."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jgcl_ray.errors import UserError

_NO_ROOM = {
    errno.ENOSPC: "its disk is full; make room and give the command again",
    errno.EDQUOT: "its disk is full; make room and give the command again",
    errno.EFBIG: "larger than a file may be there; raise the limit (ulimit -f), or give another place",
}

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path in the same folder to write to; on leaving without an error it is on disk and takes `path`'s place.

    Otherwise, and after a crash at any moment, `path` is what it was. UserError where its folder is missing, or where
    it is no file: a device would be a plain file afterwards.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    check_replaceable(path, str(path))
    partial = partial_of(path)
    _clear_away(path)
    try:
        with room_for(path):
            yield partial
            allow_as_usual(partial)
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """UserError where writing `path` fails on a full disk or at a limit of its size, whatever the library that writes
    makes of it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            # safetensors has an error of its own, torch.save one that follows on the system's.
            for number, reason in _NO_ROOM.items():
                if getattr(cause, "errno", None) == number or f"(os error {number})" in str(cause):
                    raise UserError(f"{path}: {reason}") from None
            cause = cause.__context__
        raise


def check_replaceable(path: Path, name: str) -> None:
    """UserError, which calls it `name`, where there is something at `path` that is no file."""
    if path.is_dir():
        raise UserError(f"{name}: a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise UserError(f"{name}: a device or a pipe, not to be replaced; give the name of a file")


def partial_of(path: Path) -> Path:
    """Where this process writes what is to become `path`; the suffix stays: some formats go by it."""
    return path.with_name(f".{os.getpid()}.partial.{_kept(path)}")


def _kept(path: Path) -> str:
    """The name, or what stands for it where there would be no room for more before it."""
    if len(os.fsencode(path.name)) <= 200:
        return path.name
    return hashlib.sha256(os.fsencode(path.name)).hexdigest() + path.suffix[-40:]


def _clear_away(path: Path) -> None:
    """Drop what commands that were killed on the way to `path` left, an hour later: one elsewhere may still write."""
    for stale in path.parent.glob(f".*.partial.{glob.escape(_kept(path))}"):
        pid = stale.name[1:].partition(".")[0]
        with suppress(FileNotFoundError):
            if pid.isdecimal() and not _runs(int(pid)) and time.time() - stale.stat().st_mtime > 3600:
                stale.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def allow_as_usual(file: Path) -> None:
    """The rights that a new file has here; safetensors, for one, makes its own for the owner alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


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
    """One process of this machine at a time holds the lock; the system takes it from one that ends.

    Whoever has to wait says so once.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for another process, which holds %s", lock)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
