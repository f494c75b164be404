"""Boxes as a track file has them, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted

NO_TRACK = -1
EXACT = 1e15  # as float64 all whole numbers below are different
SHARE = 1.5  # boxes with no number above this are shares of the frame, not pixels
PERSON = ("person", "pedestrian")  # names of the class that is kept unless others are asked for


@dataclass(frozen=True, eq=False)
class Rows:
    """N boxes with the file's own numbers."""

    dialect: str  # what wrote the file, as far as is known
    frame: np.ndarray  # (N,) int64
    track: np.ndarray  # (N,) int64, NO_TRACK where the tracker gave none
    box: np.ndarray  # (N, 4) float64: left, top, width, height; pixels, or shares of the frame where `relative`
    confidence: np.ndarray  # (N,) float64, NaN where there is none
    visibility: np.ndarray  # (N,) float64 in [0, 1], NaN where there is none
    kind: np.ndarray  # (N,) str: class by number or name, "" where there is none
    people: tuple[str, ...] | None  # kinds that are persons in this dialect; None: not known
    first_frame: int | None = None  # number of the first frame, where the dialect says so
    relative: bool = False
    lines: np.ndarray | None = None  # (N,) int64: where a row lies, for messages

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, kept: np.ndarray) -> Rows:
        """The rows of a bool mask (N,) or of row numbers."""
        columns = {name: getattr(self, name)[kept] for name in _COLUMNS}
        lines = None if self.lines is None else self.lines[kept]
        return Rows(
            self.dialect, **columns, people=self.people, first_frame=self.first_frame, relative=self.relative,
            lines=lines,
        )  # fmt: skip


_COLUMNS = ("frame", "track", "box", "confidence", "visibility", "kind")


def make_rows(
    dialect: str,
    frame: Sequence[float] | np.ndarray,
    track: Sequence[float] | np.ndarray,
    box: Sequence[Sequence[float]] | np.ndarray,
    *,
    corners: bool = False,
    confidence: Sequence[float] | np.ndarray | None = None,
    visibility: Sequence[float] | np.ndarray | None = None,
    kind: Sequence[object] | np.ndarray | None = None,
    people: tuple[str, ...] | None = None,
    first_frame: int | None = None,
    relative: bool = False,
    lines: np.ndarray | None = None,
) -> Rows:
    """Rows of plain lists; `corners`: boxes are left, top, right, bottom; kinds are numbers or names.

    ValueError for frames and tracks that are no whole numbers, or of so many digits that two become one.
    """
    count = len(frame)
    boxes = np.array(box, np.float64).reshape(count, 4)
    if corners:
        boxes[:, 2:] -= boxes[:, :2]
    nothing = np.full(count, np.nan)
    frames, tracks = (np.array(each, np.float64).reshape(count) for each in (frame, track))
    _check_whole("frame", frames, lines)
    _check_whole("track", tracks[np.isfinite(tracks)], None)
    return Rows(
        dialect,
        frame=frames.astype(np.int64),
        track=np.where(np.isfinite(tracks) & (tracks >= 0), tracks, NO_TRACK).astype(np.int64),
        box=boxes,
        confidence=nothing if confidence is None else np.array(confidence, np.float64).reshape(count),
        visibility=nothing if visibility is None else np.array(visibility, np.float64).reshape(count),
        kind=np.full(count, "") if kind is None else np.array([_named(value) for value in kind], dtype=str),
        people=people,
        first_frame=first_frame,
        relative=relative,
        lines=lines,
    )


def _check_whole(name: str, numbers: np.ndarray, lines: np.ndarray | None) -> None:
    for row in np.flatnonzero(~((np.abs(numbers) < EXACT) & (numbers == np.round(numbers))))[:1]:
        place = f"box {row + 1}" if lines is None else f"line {lines[row]}"
        raise ValueError(f"{place}: {name} {numbers[row]:.17g} is no whole number, or has more than 15 digits")


def _named(value: object) -> str:
    """A class's number without decimals, or its name in lower case."""
    text = str(value).strip().lower()
    if not is_number(text):
        return text
    return str(int(float(text))) if np.isfinite(float(text)) else ""


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several files of one dialect."""
    first = parts[0]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    return Rows(
        first.dialect, **columns, people=first.people, first_frame=first.first_frame, relative=first.relative
    )  # fmt: skip


def text_lines(path: Path) -> list[tuple[int, str]]:
    """Number and content of the lines that say something; UserError where the file is none of text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected a tracker's text, CSV or JSON") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return [
        (number, line)
        for number, line in enumerate((line.strip() for line in text.splitlines()), 1)
        if line and not line.startswith("#")
    ]


def number_table(path: Path, lines: Sequence[tuple[int, str]]) -> np.ndarray:
    """Lines of numbers, separated by commas or blanks, as float64 (N, columns)."""
    comma = "," in lines[0][1]
    try:
        return np.loadtxt([line for _, line in lines], delimiter="," if comma else None, ndmin=2, comments=None)
    except ValueError:
        raise _bad_line(path, lines, comma) from None


def _bad_line(path: Path, lines: Sequence[tuple[int, str]], comma: bool) -> UserError:
    columns = len(split(lines[0][1]))
    for number, line in lines:
        found = len(line.split(",")) if comma else len(line.split())
        if found != columns:
            return UserError(
                f"{path}, line {number}: {counted(found, 'column')}, and line {lines[0][0]} has {columns}: {line!r}"
            )
        try:
            np.loadtxt([line], delimiter="," if comma else None, comments=None)
        except ValueError:
            return UserError(f"{path}, line {number}: not numbers only: {line[:200]!r}")
    return UserError(f"{path}: no table of numbers")


def split(line: str) -> list[str]:
    """A line's values, separated by commas or else by blanks."""
    return [value.strip() for value in line.split(",")] if "," in line else line.split()


def is_number(text: str) -> bool:
    """Whether float() takes it."""
    try:
        float(text)
    except ValueError:
        return False
    return True
