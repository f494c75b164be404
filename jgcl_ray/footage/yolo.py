"""ultralytics' `yolo track save_txt=True`: a file a frame, `labels/STEM_FRAME.txt`, boxes as shares of the image.

A line is `class x y width height [confidence] [track]`, x and y of the box's centre, or a polygon's points in place
of the four. Frames count from 1; a frame without boxes has no file. boxmot's `--save-txt` writes the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.footage.rows import NO_TRACK, Rows, is_number, make_rows, split, text_lines


def looks_like_yolo(lines: Sequence[tuple[int, str]]) -> bool:
    """Five to seven columns, the four after the first within [0, 1]."""
    some = [split(line) for _, line in lines[:200]]
    return all(len(values) in (5, 6, 7) for values in some) and all(
        is_number(value) and -0.5 <= float(value) <= 1.5 for values in some for value in values[1:5]
    )


@dataclass(frozen=True)
class _Line:
    frame: int
    values: tuple[float, ...]


def read_yolo(path: Path) -> Rows:
    """All files of a folder. Lines without a track are kept without one, doubled lines fall out later."""
    if not path.is_dir():
        raise UserError(
            f"{path}: boxes of ultralytics without numbers of frames (a loop over model.track(..., save_txt=True) "
            "writes all frames into one file); have `yolo track save_txt=True` write a file a frame, or write the "
            "frame into a column, and give --tracks the folder labels/"
        )
    lines = [line for file in sorted(path.glob("*.txt")) for line in _lines(file)]
    if not lines:
        return make_rows("ultralytics", [], [], np.empty((0, 4)), people=("0",), relative=True)
    have = _Columns.of(lines)
    read = [have.parsed(line.values) for line in lines]
    return make_rows(
        "ultralytics", [line.frame for line in lines], [track for _, _, track in read],
        np.array([box for box, _, _ in read]), confidence=[score for _, score, _ in read],
        kind=[line.values[0] for line in lines], people=("0",), relative=True,
    )  # fmt: skip


def _lines(file: Path) -> list[_Line]:
    found = re.search(r"(\d+)$", file.stem)
    if found is None:
        raise UserError(f"{file}: no number of a frame at the end of its name, as in clip_12.txt")
    lines = []
    for number, line in text_lines(file):
        values = split(line)
        if not all(is_number(value) for value in values) or len(values) < 5:
            raise UserError(f"{file}, line {number}: expected class, x, y, width, height and a track: {line!r}")
        lines.append(_Line(int(found[1]), tuple(float(value) for value in values)))
    return lines


@dataclass(frozen=True)
class _Columns:
    """What stands behind the box, inferred from all lines together."""

    confidence: bool  # before the track
    track: bool

    @classmethod
    def of(cls, lines: Sequence[_Line]) -> _Columns:
        counts = {len(line.values) for line in lines}
        polygons = bool(counts - {5, 6, 7})
        odd, even = ([line.values for line in lines if len(line.values) % 2 == rest] for rest in (1, 0))
        if polygons:  # 1 + points x 2 numbers are odd: a track makes them even, confidence and track odd again
            saved = any(values[-1] > 1 for values in odd)
            return cls(saved, saved or _whole(even))
        if 7 in counts:
            return cls(True, True)
        return cls(False, 6 in counts and _whole(even))

    def parsed(self, values: tuple[float, ...]) -> tuple[list[float], float, float]:
        """Box (left, top, width, height), confidence, track."""
        even, count = len(values) % 2 == 0, len(values)
        if self.confidence:  # a line without a track has one value less
            track, score = (NO_TRACK, values[-1]) if even else (values[-1], values[-2])
            if count == 5:
                track, score = NO_TRACK, float("nan")
            shape = values[1 : count - (1 if even else 2)] if count != 5 else values[1:]
        else:
            track = values[-1] if even and self.track else NO_TRACK
            score = values[-1] if even and not self.track else float("nan")
            shape = values[1 : count - 1] if even else values[1:]
        return _box(shape), score, track


def _whole(rows: Sequence[tuple[float, ...]]) -> bool:
    """Whether the last numbers are tracks rather than confidences."""
    return bool(rows) and all(values[-1] == int(values[-1]) for values in rows)


def _box(shape: tuple[float, ...]) -> list[float]:
    if len(shape) == 4:
        x, y, width, height = shape
        return [x - width / 2, y - height / 2, width, height]
    low, high = np.reshape(shape, (-1, 2)).min(0), np.reshape(shape, (-1, 2)).max(0)
    return [*low.tolist(), *(high - low).tolist()]
