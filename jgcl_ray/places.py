"""Places that results go to, tried before the work; what is there and not ours is refused."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from jgcl_ray.atomic import check_replaceable, partial_of
from jgcl_ray.errors import UserError
from jgcl_ray.ownership import Wrote, refuse_foreign


def absolute(path: Path) -> Path:
    """The absolute path, ~ resolved; UserError as in `at_home`."""
    return at_home(path).absolute()


def at_home(path: Path) -> Path:
    """The path, ~ resolved; UserError where ~NAME is nobody's folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(f"{path}: nobody here has the folder {path.parts[0]}; write it out, or as ./{path}") from None


def check_file(path: Path, option: str, wrote: Wrote, parents: bool = False) -> None:
    """UserError where no file can be written at `path` or replaced there; `option`: what the user gave it by.

    Tried by a file beside it, which goes at once. wrote: of jgcl_ray.ownership, knows the files that may be replaced.
    parents: missing folders above it will be made; else they must be there.
    """
    with _refused(path, option):
        check_replaceable(path, f"{option} {path}")
        refuse_foreign(path, option, wrote)
        if not parents and not os.path.lexists(path.parent):
            raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first")
        with suppress(FileNotFoundError):
            path.lstat()  # of a name that is too long
        _try(path.parent, partial_of(path).name)


def check_apart(given: Mapping[str, Path | None]) -> None:
    """UserError where two of the places, by their options, are one; None: not given."""
    real = [(option, path, Path(os.path.realpath(path))) for option, path in given.items() if path is not None]
    for (option, path, place), (other_option, other, other_place) in itertools.combinations(real, 2):
        if place == other_place:
            raise UserError(f"{option} {path} and {other_option} {other} are one place; give two")


def check_outside(path: Path, option: str, photos: Path, photos_option: str) -> None:
    """UserError where `path`, to be written to, lies among photos: its pictures would be some of them next time."""
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(photos)):
        raise UserError(
            f"{option} {path}: lies in {photos_option}{photos}, and all pictures below are photos to this data set; "
            "give another place"
        )


def check_folder(path: Path, option: str) -> None:
    """UserError where there is no folder at `path` and none can be made, or where nothing can be written in it.

    Tried by a file in it, or in the nearest folder above it that exists; it goes at once.
    """
    with _refused(path, option):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{option} {path}: not a folder; give the name of a folder, or of one to be made")
        _try(path, partial_of(path / "trial").name)


@contextmanager
def _refused(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be written to ({error.strerror}); give another place") from None


def _try(folder: Path, name: str) -> None:
    wanted, missing = folder, []
    while not os.path.lexists(folder):
        missing.append(folder.name)
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    for made in (wanted, *(folder / part for part in missing)):
        with suppress(FileNotFoundError):
            made.lstat()  # the file system refuses a name that is too long for it
    trial = folder / name
    try:
        with trial.open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())  # some file systems find no room only here
    finally:
        trial.unlink(missing_ok=True)
