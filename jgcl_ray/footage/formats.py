"""What trackers write, read by one function; which of them wrote a file is recognised by its names and columns.

A new format: a function that returns Rows, here or in a file beside this one, and a line in FORMATS.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from jgcl_ray.errors import UserError
from jgcl_ray.footage.kitti import looks_like_kitti, read_kitti
from jgcl_ray.footage.mot import read_mot, read_nvidia
from jgcl_ray.footage.records import read_csv, read_json
from jgcl_ray.footage.rows import Rows, is_number, split, text_lines
from jgcl_ray.footage.yolo import looks_like_yolo, read_yolo
from jgcl_ray.stored_files import in_short

FORMATS: dict[str, Callable[[Path, str | None], Rows]] = {
    "mot": lambda path, _: read_mot(path),
    "ultralytics": lambda path, _: read_yolo(path),
    "csv": read_csv,
    "json": read_json,
    "nvidia": read_nvidia,
    "kitti": lambda path, _: read_kitti(path),
}


# What readers and the libraries below them raise at content that is not what they expect.
_NOT_SO = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, csv.Error)


def read_rows(path: Path, given: str = "auto", camera: str | None = None) -> Rows:
    """The boxes of a track file, or of a folder with a file a frame.

    given: a name in FORMATS, or "auto". camera: whose rows are taken where a file holds several cameras' (`camera_id`
    of NVIDIA's files, a column `camera` in CSV). UserError where the file cannot be read as such.
    """
    if not path.exists():
        raise UserError(f"--tracks {path}: no such file")
    if given != "auto" and given not in FORMATS:
        raise UserError(f"--format {given}: no such format; known: auto, {', '.join(FORMATS)}")
    name = given
    try:
        if given == "auto":
            name = detected(path)
        rows = FORMATS[name](path, camera)
    except _NOT_SO as error:
        raise UserError(
            f"{path}: cannot be read as a track file of the format {name} ({in_short(error)}); correct it, or say "
            "what it is by --format"
        ) from None
    if not len(rows):
        raise UserError(f"{path}: holds no box")
    return rows


def detected(path: Path) -> str:
    """The format, by file names, separators and the number of columns."""
    if path.is_dir():
        return _detected_in_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle", ".npy", ".npz", ".parquet", ".xml", ".zip"):
        raise UserError(
            f"{path}: {suffix} files are not read; have the tracker write MOT text or CSV (mmtracking: --format-only)"
        )
    lines = text_lines(path)
    if not lines:
        raise UserError(f"{path}: empty")
    first = lines[0][1]
    if suffix in (".json", ".jsonl") or first.startswith(("[", "{")):
        return "json"
    if ";" in first:
        raise UserError(f"{path}, line {lines[0][0]}: separated by ';': replace it by ',' or blanks")
    values = split(first)
    if looks_like_kitti(values):
        return "kitti"
    if not all(is_number(value) for value in values):
        return "csv"
    if looks_like_yolo(lines):
        return "ultralytics"
    if "," not in first and len(values) in (8, 9) and not _always(lines, -1, -1):
        return "nvidia"
    return "mot"


def _always(lines: list[tuple[int, str]], column: int, value: float) -> bool:
    return all(float(split(line)[column]) == value for _, line in lines[:200])


def _detected_in_folder(path: Path) -> str:
    files = sorted(path.glob("*.txt"))
    if not files:
        inner = [name for name in ("labels", "gt", "det") if (path / name).is_dir()]
        hint = f"; did you mean {path / inner[0]}?" if inner else ""
        raise UserError(f"--tracks {path}: a folder without .txt files{hint}")
    for file in files:
        lines = text_lines(file)
        if lines:
            return "kitti" if looks_like_kitti(split(lines[0][1])) else "ultralytics"
    raise UserError(f"--tracks {path}: its {len(files):,} .txt files are empty")
