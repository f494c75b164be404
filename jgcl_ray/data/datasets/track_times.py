"""When crops were taken: `tracks.csv` and `spans.csv` beside them (python -m jgcl_ray.footage), or frame numbers."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted

TRACKS = "tracks.csv"  # file,camera,track,frame,time,...: a row a crop
SPANS = "spans.csv"  # camera,track,first,last,start,end,...: a row a track
Value = TypeVar("Value")


def times_of(root: Path, paths: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Times of crops `CAMERA/TRACK/NAME` (N,) and first and last time of their tracks (N, 2), float64, nan unknown.

    From tracks.csv, in seconds; a crop without a row there has no time. spans.csv tells how long a track lived beyond
    its crops; None without it. Without tracks.csv the time is the frame's number, the last digits of the name, unless
    most tracks of a camera begin at the same one: then they count frames of the track. None where nothing is known.
    """
    if not (root / TRACKS).is_file():
        return _frame_numbers(root, paths), None
    seconds = _table(root / TRACKS, ("file", "time"), lambda row: (row["file"], _seconds(row["time"])))
    times = np.array([seconds.get(path, np.nan) for path in paths])
    if np.isnan(times).all():
        raise UserError(
            f"{root / TRACKS}: none of its {counted(len(seconds), 'row')} names an image below "
            f"{root}, which are like "
            f"{paths[0]}; give it beside the crops it came with, or move it away"
        )
    if not (root / SPANS).is_file():
        return times, None
    lives = _table(
        root / SPANS,
        ("camera", "track", "start", "end"),
        lambda row: (f"{row['camera']}/{row['track']}", _span(row["start"], row["end"])),
    )
    unknown = (np.nan, np.nan)
    return times, np.array([lives.get(path.rpartition("/")[0], unknown) for path in paths])


def _table(
    path: Path, columns: Sequence[str], read: Callable[[dict[str, str]], tuple[str, Value]]
) -> dict[str, Value]:
    """key -> value of each line; UserError with its number for one that does not parse, or contradicts another."""
    found: dict[str, Value] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = [column for column in columns if column not in (rows.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {', '.join(missing)}; write it again, or move it away")
            for row in rows:
                try:
                    if any(row[column] is None for column in columns):
                        raise ValueError(f"the line ends before {columns[-1]}")
                    key, value = read(row)
                except ValueError as error:
                    raise UserError(f"{path}:{rows.line_num}: {error}; write it again, or move it away") from None
                if found.setdefault(key, value) != value:
                    raise UserError(f"{path}:{rows.line_num}: {key} again, with another time; take one out")
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); write it again, or move it away") from None
    return found


def _seconds(text: str) -> float:
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(f"{text} is no time")
    return seconds


def _span(start: str, end: str) -> tuple[float, float]:
    span = _seconds(start), _seconds(end)
    if span[0] > span[1]:
        raise ValueError(f"ends at {end} before it begins at {start}")
    return span


def _frame_numbers(root: Path, paths: Sequence[str]) -> np.ndarray | None:
    frames = np.array([_frame(path) for path in paths])
    first: dict[str, dict[str, float]] = defaultdict(dict)  # camera -> track -> number
    for path, frame in zip(paths, frames, strict=True):
        camera, track, _ = path.split("/")
        first[camera][track] = min(frame, first[camera].get(track, np.inf))
    restarting = [
        camera for camera, tracks in first.items() if 2 * max(Counter(tracks.values()).values()) > len(tracks) > 1
    ]
    if restarting:
        more = f" and {len(restarting) - 1:,} more" if len(restarting) > 1 else ""
        warnings.warn(
            f"{root}: most tracks of {restarting[0]}{more} begin with the same number, so that the numbers in names "
            f"do not tell when a crop was taken; {TRACKS} with file and time would",
            stacklevel=4,
        )
        return None
    return None if np.isnan(frames).all() else frames


def _frame(path: str) -> float:
    digits = re.findall(r"\d+", path.rpartition("/")[2].rpartition(".")[0])
    return float(digits[-1]) if digits else np.nan
