"""A track file's rows as boxes of people: frames from 1, pixels of the frame, one box a track and frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.footage.rows import NO_TRACK, SHARE, Rows
from jgcl_ray.wording import counted

OUTSIDE = 0.2  # share of boxes with their centre outside the frame from which on the file is another video's
BEYOND = 0.02  # likewise of boxes in frames that there are not


@dataclass(frozen=True, eq=False)
class Tracks:
    """N boxes, by frame and within it by track."""

    frame: np.ndarray  # (N,) int64, the first is 1
    track: np.ndarray  # (N,) int64, 0 or more
    box: np.ndarray  # (N, 4) float64: left, top, width, height; pixels of the frame from 0, not clipped
    confidence: np.ndarray  # (N,) float64, NaN where there is none
    visibility: np.ndarray  # (N,) float64 in [0, 1], NaN where there is none

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, kept: np.ndarray) -> Tracks:
        """The boxes of a bool mask (N,) or of row numbers."""
        return Tracks(*(getattr(self, name)[kept] for name in ("frame", "track", "box", "confidence", "visibility")))


@dataclass(frozen=True)
class Filters:
    """Which rows count."""

    first_frame: str = "auto"  # 0, 1: number of the first frame in the file; names: as in the frames' file names
    classes: tuple[str, ...] = ()  # names or numbers as in the file; (): persons, as the dialect numbers them
    min_confidence: float = 0.0  # where the file has confidences
    min_visibility: float = 0.3  # where the file has visibilities


@dataclass(frozen=True)
class Footage:
    """What is known of the frames before they are read."""

    width: int
    height: int
    frames: int | None  # how many there are; None where only reading will tell
    announced: int = 0  # how many a video's header claims; 0: nothing
    numbers: tuple[int, ...] | None = None  # in the names of frame files


def people_of(
    rows: Rows, path: Path, footage: Footage, filters: Filters
) -> tuple[Tracks, list[str]]:  # fmt: skip
    """Boxes of people and, in words, what was taken for what and what was left out.

    UserError where the rows are no tracks, or another video's.
    """
    rows, notes = _persons(rows, path, filters.classes)
    rows, dropped = _numbered(rows, path)
    said = [f"{path}: {rows.dialect}"]
    frame, numbering = _frames(rows, path, footage, filters.first_frame)
    said.append(numbering)
    if not rows.relative and np.abs(rows.box).max() <= SHARE:
        raise UserError(
            f"{path}: all boxes lie between 0 and 1: shares of the frame, where {rows.dialect} has pixels; multiply "
            f"left and width by {footage.width}, top and height by {footage.height}"
        )
    box = rows.box * ([footage.width, footage.height] * 2) if rows.relative else rows.box
    tracks = Tracks(frame, rows.track, box, rows.confidence, rows.visibility)
    tracks, kept_notes = _filtered(tracks, filters)
    tracks, doubled = _once(tracks, path)
    tracks, beyond = _within_time(tracks, path, footage)
    tracks, empty = _within_frame(tracks, rows, path, footage)
    notes += kept_notes
    for count, what in (
        (dropped, "without a track number"),
        (doubled, "doubled"),
        (beyond, "beyond the last frame"),
        (empty, "empty or outside the frame"),
    ):
        if count:
            notes.append(f"{_boxes(count)} {what} left out")
    if not len(tracks):
        raise UserError(f"{path}: no box of a person is left ({'; '.join(notes)})")
    return tracks, ["; ".join(said), *notes]


def _persons(rows: Rows, path: Path, asked: Sequence[str]) -> tuple[Rows, list[str]]:
    kinds, counts = np.unique(rows.kind, return_counts=True)
    if list(kinds) == [""]:
        if asked:
            raise UserError(f"{path}: --classes {' '.join(asked)}, and the file ({rows.dialect}) has no classes")
        return rows, []
    wanted = tuple(name.lower() for name in asked) or rows.people
    listed = ", ".join(f"{kind or 'none'} ({count:,})" for kind, count in zip(kinds, counts, strict=True))
    if wanted is None:
        if len(kinds) == 1:
            return rows, []
        raise UserError(f"{path}: holds the classes {listed}: say which are people with --classes")
    kept = np.isin(rows.kind, wanted)
    if not kept.any():
        raise UserError(f"{path}: no box of class {', '.join(wanted)}; it holds {listed}: choose with --classes")
    left_out = int((~kept).sum())
    return rows.take(kept), [f"{_boxes(left_out)} of other classes left out"] if left_out else []


def _numbered(rows: Rows, path: Path) -> tuple[Rows, int]:
    kept = rows.track != NO_TRACK
    if not kept.any():
        raise UserError(
            f"{path}: no track numbers in it: these are detections; run a tracker over them, or let --detect find "
            "and track people"
        )
    return rows.take(kept), int((~kept).sum())


def _frames(rows: Rows, path: Path, footage: Footage, given: str) -> tuple[np.ndarray, str]:
    """Frames counted from 1, and how the file counts."""
    low, high = int(rows.frame.min()), int(rows.frame.max())
    if given == "auto":
        given, why = _guess(rows, footage, low, high)
    else:
        why = "as given"
    if given == "names":
        if footage.numbers is None:
            raise UserError("--first-frame names: is of a folder of frames whose names end in numbers")
        names = np.array(footage.numbers)
        place = np.searchsorted(names, rows.frame).clip(max=len(names) - 1)
        missing = names[place] != rows.frame
        if missing.any():
            raise UserError(
                f"{path}: {_boxes(int(missing.sum()))} in frames of which there is no file, first "
                f"{rows.frame[missing][0]}"
            )
        return place + 1, f"frames are numbers in file names ({why})"
    first = int(given)
    if low < first:
        raise UserError(f"{path}: frame {low}, and --first-frame is {first}")
    return rows.frame - first + 1, f"the first frame is {first} ({why}; --first-frame 0 or 1 overrides this)"


def _guess(rows: Rows, footage: Footage, low: int, high: int) -> tuple[str, str]:
    if footage.numbers and low >= footage.numbers[0] > 1 and high > len(footage.numbers):
        return "names", "they reach beyond the count of the files"
    if low < 0:
        return "1", "assumed"
    if rows.first_frame is not None and low >= rows.first_frame:
        return str(rows.first_frame), "by the format"
    if low == 0:
        return "0", "there is a frame 0"
    return "1", "there is no frame 0"


def _filtered(tracks: Tracks, filters: Filters) -> tuple[Tracks, list[str]]:
    notes = []
    kept = np.ones(len(tracks), bool)
    if filters.min_confidence > 0:
        if np.isfinite(tracks.confidence).any():
            kept &= ~(tracks.confidence < filters.min_confidence)
            notes.append(f"{_boxes(int((~kept).sum()))} below confidence {filters.min_confidence:g} left out")
        else:
            notes.append("no confidences in the file: --min-confidence has nothing to filter")
    hidden = tracks.visibility < filters.min_visibility
    if hidden.any():
        kept &= ~hidden
        notes.append(f"{_boxes(int(hidden.sum()))} below visibility {filters.min_visibility:g} left out")
    return tracks.take(kept), notes


def _once(tracks: Tracks, path: Path) -> tuple[Tracks, int]:
    """One box a track and frame, the first of them."""
    _, first = np.unique(np.stack([tracks.frame, tracks.track]), axis=1, return_index=True)
    doubled = len(tracks) - len(first)
    distinct = len(np.unique(np.column_stack([tracks.frame, tracks.track, tracks.box]), axis=0)) if doubled else 0
    if doubled and distinct - len(first) > len(first):
        raise UserError(
            f"{path}: on average {len(tracks) / len(first):.1f} boxes of one track in one frame: what was read as "
            "the track is no track number"
        )
    return tracks.take(first), doubled


def _within_time(tracks: Tracks, path: Path, footage: Footage) -> tuple[Tracks, int]:
    last = int(tracks.frame.max(initial=0))
    if footage.frames is None:  # a video's header is no count, but it is not wrong by a tenth
        if footage.announced and last > 1.1 * footage.announced + 25:
            raise UserError(
                f"{path}: its last frame is {last:,}, and the video has about {footage.announced:,}: is it another "
                "video's, or of another frame rate?"
            )
        return tracks, 0
    beyond = tracks.frame > footage.frames
    count = int(beyond.sum())
    if count > max(BEYOND * len(tracks), 1):
        raise UserError(
            f"{path}: {count:,} of {len(tracks):,} boxes lie beyond the end: its last frame is {last:,}, and there "
            f"are {footage.frames:,}: is it another video's?"
        )
    return tracks.take(~beyond), count


def _within_frame(tracks: Tracks, rows: Rows, path: Path, footage: Footage) -> tuple[Tracks, int]:
    if not np.isfinite(tracks.box).all():
        raise UserError(f"{path}: a box of frame {tracks.frame[~np.isfinite(tracks.box).all(1)][0]} is not finite")
    if not len(tracks):
        return tracks, 0
    left, top, width, height = tracks.box.T
    x, y = left + width / 2, top + height / 2
    outside = (x < 0) | (y < 0) | (x > footage.width) | (y > footage.height)
    if outside.mean() > OUTSIDE:
        raise UserError(
            f"{path}: {outside.mean():.0%} of the boxes lie outside the {footage.width} x {footage.height} frame "
            f"(frame {tracks.frame[outside][0]}: x {x[outside][0]:.0f}, y {y[outside][0]:.0f}): is it another "
            "video's, of another size, or does it hold corners where left, top, width, height are expected?"
        )
    inside = clipped(tracks.box, footage.width, footage.height)
    empty = (inside[:, 2] < 1) | (inside[:, 3] < 1)
    return tracks.take(~empty), int(empty.sum())


def clipped(box: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes (N, 4) cut at the edges of the frame; of those outside, width or height is 0 or less."""
    low = np.maximum(box[:, :2], 0)
    high = np.minimum(box[:, :2] + box[:, 2:], [width, height])
    return np.column_stack([low, high - low])


def without_short(tracks: Tracks, least: int) -> tuple[Tracks, int]:
    """Tracks of `least` boxes or more, and how many were shorter."""
    _, inverse, counts = np.unique(tracks.track, return_inverse=True, return_counts=True)
    return tracks.take(counts[inverse] >= least), int((counts < least).sum())


def _boxes(count: int) -> str:
    return counted(count, "box", "boxes")
