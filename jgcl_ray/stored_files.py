"""Files that the project wrote, read again: checked against what was written, and named in one line when damaged.

One reader for JSON documents, one for arrays. Whoever reads says what shape the content has and what the user can do
without the file.
"""

from __future__ import annotations

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from jgcl_ray.errors import UserError
from jgcl_ray.strict_yaml import read_yaml

Content = TypeVar("Content")

# What NumPy and zipfile raise at files that are not, or no longer, archives of plain arrays.
UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, SyntaxError, ArithmeticError),
    *(NotImplementedError, RuntimeError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error),
    tokenize.TokenError,  # of an array's header
)


def refuse_pipe(path: Path) -> None:
    """UserError for a pipe or a device: who opens it may wait for ever."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: a pipe or a device, not a file; give a file")


def read_json(path: Path, kind: type[Content], remedy: str) -> Content:
    """The JSON document in a file, as a dataclass or any other type that pydantic checks.

    remedy: what to do about a damaged file, the end of the UserError's line. A file that is not there is a
    UserError, too.
    """
    refuse_pipe(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    return parse_json(content, kind, str(path), remedy)


def read_lines(path: Path, remedy: str) -> list[str]:
    """The lines of a text in UTF-8; UserError as in `read_json`."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged (no text in UTF-8: {error}); {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def read_yaml_as(path: Path, kind: type[Content], remedy: str) -> Content:
    """The same of a YAML document."""
    try:
        document = read_yaml(path)
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from None
    return checked(document, kind, str(path), remedy)


def parse_json(content: bytes | str, kind: type[Content], source: str, remedy: str) -> Content:
    """The same of a document in memory; source: where it is from."""
    try:
        # Not pydantic's own parser: it refuses what Python writes of file names that are no text.
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: damaged (not JSON: {error}); {remedy}") from None
    return checked(document, kind, source, remedy)


def checked(document: object, kind: type[Content], source: str, remedy: str) -> Content:
    """The same of what was parsed already."""
    try:
        found: Content = _adapter(cast(Any, kind)).validate_python(document)
    except (ValidationError, RecursionError, OverflowError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else in_short(error)
        raise UserError(f"{source}: damaged ({reason}); {remedy}") from None
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_arrays(
    path: Path, expected: Mapping[str, str], remedy: str, optional: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Arrays of an npz by name, those of `optional` as far as they are there; UserError as in `read_json`.

    expected: kind and shape of each array, as "iu N 3": letters of numpy's dtype.kind, then sizes; a letter is the
    same number wherever it stands, * any number.
    """
    optional = optional or {}
    refuse_pipe(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in (*expected, *(name for name in optional if name in archive))}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except UNREADABLE as error:
        # NumPy's own word on what is no archive is to load pickles without care.
        reason = in_short(error) if zipfile.is_zipfile(path) or isinstance(error, OSError) else "no archive of arrays"
        raise UserError(f"{path}: damaged ({reason}); {remedy}") from None
    sizes: dict[str, int] = {}
    for name, array in found.items():
        kinds, *shape = {**expected, **optional}[name].split()
        if array.dtype.kind not in kinds or not _fits(array.shape, shape, sizes):
            raise UserError(
                f"{path}: damaged ({name} is {array.dtype} {array.shape}, expected ({', '.join(shape)}) with "
                f"{', '.join(f'{size} = {number}' for size, number in sizes.items()) or 'numbers'}); {remedy}"
            )
    return found


def _fits(shape: tuple[int, ...], wanted: list[str], sizes: dict[str, int]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(
        want == "*" or have == (int(want) if want.isdecimal() else sizes.setdefault(want, have))
        for have, want in zip(shape, wanted, strict=True)
    )


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def in_short(error: BaseException) -> str:
    """The first line of an error, for the brackets of a UserError."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
