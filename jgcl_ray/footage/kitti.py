"""KITTI's tracking text: a file a sequence (FairMOT's variant too), or a frame, as NVIDIA DeepStream writes it."""

from __future__ import annotations

import re
from pathlib import Path

from jgcl_ray.errors import UserError
from jgcl_ray.footage.rows import PERSON, Rows, is_number, make_rows, split, text_lines


def looks_like_kitti(values: list[str]) -> bool:
    """`frame track class ...` of 16 values or more, or DeepStream's `class track ...`."""
    if len(values) < 15:
        return False
    words = [not is_number(value) for value in values]
    return words[:3] == [False, False, True] or (words[0] and not any(words[1:]))


def read_kitti(path: Path) -> Rows:
    """Frames count from 0; corners, not sizes; DeepStream's files are `SOURCE_STREAM_FRAME.txt`."""
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    frames: list[float] = []
    tracks: list[float] = []
    boxes: list[list[float]] = []
    scores: list[float] = []
    kinds: list[str] = []
    for file in files:
        for number, line in text_lines(file):
            values = split(line)
            if not looks_like_kitti(values):
                raise UserError(f"{file}, line {number}: no line of KITTI's tracking text: {line!r}")
            sequence = is_number(values[0])
            if not sequence and not path.is_dir():
                raise UserError(f"{file}: a frame's boxes; give the folder with the files of all frames")
            frames.append(float(values[0]) if sequence else _frame_of(file))
            tracks.append(float(values[1]))
            kinds.append(values[2 if sequence else 0])
            start = 6 if sequence else 5
            boxes.append([float(value) for value in values[start : start + 4]])
            scores.append(_score(values, 17 if sequence else 16))
    return make_rows(
        "KITTI tracking", frames, tracks, boxes, corners=True, confidence=scores, kind=kinds,
        people=tuple(name for name in PERSON if name in {kind.lower() for kind in kinds}) or None, first_frame=0,
    )  # fmt: skip


def _score(values: list[str], place: int) -> float:
    score = float(values[place]) if len(values) > place else -1.0
    return score if score > 0 else float("nan")


def _frame_of(file: Path) -> int:
    found = re.search(r"(\d+)$", file.stem)
    if found is None:
        raise UserError(f"{file}: no number of a frame at the end of its name")
    return int(found[1])
