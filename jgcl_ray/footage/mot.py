"""MOTChallenge's text and its dialects: a line a box, frame and track first, then left, top, width, height.

motchallenge.net/instructions; boxmot, ByteTrack, OC-SORT, DeepSORT, FairMOT, Norfair write variants of it, which
differ in separator, in what follows the box and in the number of the first frame. NVIDIA's (PhysicalAI-SmartSpaces,
MTMC tracking of 2024) puts camera, track and frame first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.footage.rows import PERSON, Rows, make_rows, number_table, text_lines
from jgcl_ray.stored_files import read_lines
from jgcl_ray.wording import counted

PEDESTRIAN = ("1",)  # of MOTChallenge's twelve classes; distractors, reflections and statues have others


def read_mot(path: Path) -> Rows:
    """Six columns or more; ground truth (gt/gt.txt) loses the rows whose flag is 0."""
    lines = text_lines(path)
    if not lines:
        raise UserError(f"{path}: empty")
    table = number_table(path, lines)
    where = np.array([number for number, _ in lines])
    columns = table.shape[1]
    if columns < 6:
        raise UserError(
            f"{path}, line {lines[0][0]}: {counted(columns, 'column')}; MOT text has frame, track, "
            "left, top, width, height "
            "and more, separated by commas or blanks"
        )
    _check_whole(path, table, where)
    names = path.with_name("labels.txt")
    if _is_ground_truth(path, table):
        if names.is_file():
            return _cvat(table, where, [name.strip().lower() for name in read_lines(names, "restore it")])
        return _ground_truth(table, where)
    return _results(table, where, blanks="," not in lines[0][1], last=[line for _, line in lines])


def _check_whole(path: Path, table: np.ndarray, where: np.ndarray) -> None:
    heads = table[:, :2]
    wrong = np.flatnonzero(~np.isfinite(heads).all(1) | (heads != np.round(heads)).any(1))
    if len(wrong):
        raise UserError(
            f"{path}, line {where[wrong[0]]}: frame and track come first and are whole numbers; found "
            f"{heads[wrong[0], 0]:g} and {heads[wrong[0], 1]:g}"
        )


def _is_ground_truth(path: Path, table: np.ndarray) -> bool:
    return (path.parent.name == "gt" or path.name == "gt.txt") and table.shape[1] >= 7


def _ground_truth(table: np.ndarray, where: np.ndarray) -> Rows:
    """Flag; from 2016 on class and visibility. Frames, tracks and pixels count from 1."""
    counted = table[:, 6] != 0
    table, where = table[counted], where[counted]
    box = table[:, 2:6] - [1, 1, 0, 0]
    if table.shape[1] != 9:  # MOT15: what follows the flag are coordinates of the world, or -1
        return make_rows("MOTChallenge 2015 ground truth", table[:, 0], table[:, 1], box, first_frame=1, lines=where)
    return make_rows(
        "MOTChallenge ground truth", table[:, 0], table[:, 1], box, visibility=table[:, 8], kind=table[:, 7],
        people=PEDESTRIAN, first_frame=1, lines=where,
    )  # fmt: skip


def _cvat(table: np.ndarray, where: np.ndarray, names: list[str]) -> Rows:
    """CVAT's export: classes are lines of labels.txt, counted from 1."""
    counted = table[:, 6] != 0
    table, where = table[counted], where[counted]
    number = table[:, 7].astype(int)
    kinds = [names[n - 1] if 0 < n <= len(names) else str(n) for n in number]
    people = tuple(name for name in PERSON if name in names) or None
    return make_rows(
        "CVAT's MOT export", table[:, 0], table[:, 1], table[:, 2:6], visibility=table[:, 8], kind=kinds,
        people=people, first_frame=1, lines=where,
    )  # fmt: skip


def _results(table: np.ndarray, where: np.ndarray, blanks: bool, last: list[str]) -> Rows:
    """What a tracker wrote. A confidence that is never above 0 is none: many writers put -1, some cut 0.7 to 0."""
    columns = table.shape[1]
    head = (table[:, 0], table[:, 1], table[:, 2:6])
    if not blanks and columns == 9:
        scores = _six_decimals(last)
        if scores or not _like_visibility(table):
            return make_rows(
                "boxmot", *head, lines=where, confidence=_scores(table[:, 8]), kind=table[:, 7], people=PEDESTRIAN,
            )  # fmt: skip
        kept = table[:, 6] != 0
        rows = make_rows(
            "MOTChallenge ground truth",
            *head,
            lines=where,
            visibility=table[:, 8],
            kind=table[:, 7],
            people=PEDESTRIAN,
        )
        return rows.take(kept)
    if blanks and columns == 9:  # conf class -1, all written as whole numbers; its classes count from 0
        return make_rows("boxmot 10", *head, lines=where, kind=table[:, 7], people=("0",))
    dialect = {True: "boxmot 2021" if columns == 10 else "MOT text", False: "MOT text"}[blanks]
    confidence = _scores(table[:, 6]) if columns >= 7 else None
    return make_rows(dialect, *head, lines=where, confidence=confidence)


def _scores(column: np.ndarray) -> np.ndarray:
    return column if (column > 0).any() else np.full(len(column), np.nan)


def _six_decimals(lines: list[str]) -> bool:
    """boxmot writes its scores with %.6f; ground truth has as many digits as it needs."""
    return all(len(line.rsplit(",", 1)[-1].strip().partition(".")[2]) == 6 for line in lines)


def _like_visibility(table: np.ndarray) -> bool:
    flag, share = table[:, 6], table[:, 8]
    return bool(np.isin(flag, (0, 1)).all() and ((share >= 0) & (share <= 1)).all())


def read_nvidia(path: Path, camera: str | None) -> Rows:
    """`camera track frame left top width height x y`, blanks between; frames from 0; several cameras in a file."""
    lines = text_lines(path)
    table = number_table(path, lines) if lines else np.empty((0, 9))
    if table.shape[1] < 7:
        raise UserError(f"{path}: {table.shape[1]} columns; NVIDIA's files have camera, track, frame, box, x, y")
    where = np.array([number for number, _ in lines])
    cameras = sorted({int(number) for number in table[:, 0]})
    if camera is None and len(cameras) > 1:
        raise UserError(
            f"{path}: holds the cameras {_some(cameras)}: say whose boxes to take with --tracks-camera NUMBER"
        )
    if camera is not None:
        kept = table[:, 0] == float(camera) if camera.lstrip("-").isdecimal() else np.zeros(len(table), bool)
        if not kept.any():
            raise UserError(f"{path}: no camera {camera}; it holds {_some(cameras)}")
        table, where = table[kept], where[kept]
    return make_rows("NVIDIA MTMC", table[:, 2], table[:, 1], table[:, 3:7], first_frame=0, lines=where)


def _some(values: list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
