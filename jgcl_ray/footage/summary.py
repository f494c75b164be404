"""What lies in a folder of crops: its tables, its summary, its contact sheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.atomic import write_bytes, write_json
from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.data.datasets.reid_dataset import natural_order
from jgcl_ray.data.datasets.unfinished import STATE
from jgcl_ray.errors import UserError
from jgcl_ray.footage.kept import CameraRecord, CropRow, read_record
from jgcl_ray.image_files import UnreadableImage, read_image, write_picture
from jgcl_ray.ownership import is_counts, is_table
from jgcl_ray.places import check_file
from jgcl_ray.wording import counted

TRACKS = (
    "file",
    "camera",
    "track",
    "frame",
    "time",
    "left",
    "top",
    "width",
    "height",
    "confidence",
    "quality",
    "overlap",
)
SPANS = ("camera", "track", "first", "last", "start", "end", "boxes", "crops")
LENGTHS = (1, 2, 4, 8, 16, 32, 64)  # seconds: edges of the histogram of track lengths
SHEET_ROWS, SHEET_COLUMNS = 16, 10  # tracks, crops of each


def records_of(out: Path) -> list[CameraRecord]:
    """What is known of the finished cameras of a folder, in the natural order of their names; UserError: damaged."""
    files = sorted((out / STATE).glob("*.json"), key=lambda path: natural_order(path.stem))
    records = [read_record(path) for path in files]
    return [record for record in records if (out / record["camera"]).is_dir()]


def check_tables(out: Path) -> None:
    """UserError where one of the files of `write_tables` and `write_summary` is not ours."""
    wrote = {"tracks.csv": is_table(TRACKS[:4]), "spans.csv": is_table(SPANS[:4]), "summary.json": is_counts}
    for name, ours in wrote.items():
        check_file(out / name, "--out", ours, parents=True)


def write_tables(out: Path, records: Sequence[CameraRecord]) -> None:
    """`tracks.csv`, a row a crop, and `spans.csv`, a row a track, each as a whole."""
    write_bytes(out / "tracks.csv", _table(TRACKS, [row for record in records for row in record["rows"]]))
    write_bytes(out / "spans.csv", _table(SPANS, [row for record in records for row in record["spans"]]))


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def summary(records: Sequence[CameraRecord]) -> dict[str, Any]:
    """Counts of cameras, tracks and crops, of each camera too, and histograms of the tracks' seconds and crops."""
    spans = [span for record in records for span in record["spans"]]
    seconds = np.array([span["end"] - span["start"] for span in spans])
    crops = np.array([span["crops"] for span in spans], int)
    counts, _ = np.histogram(seconds, [0, *LENGTHS, np.inf])
    names = [
        f"under {LENGTHS[0]} s",
        *(f"{low} to {high} s" for low, high in pairwise(LENGTHS)),
    ]
    return {
        "cameras": len(records),
        "tracks": len(spans),
        "crops": int(crops.sum()),
        "seconds_per_track": dict(zip([*names, f"{LENGTHS[-1]} s and more"], counts.tolist(), strict=True)),
        "crops_per_track": {str(number): int((crops == number).sum()) for number in np.unique(crops).tolist()},
        "by_camera": {
            record["camera"]: {
                "tracks": len(record["spans"]),
                "crops": len(record["rows"]),
                "notes": record["notes"],
            }
            for record in records
        },
    }


def write_summary(out: Path, records: Sequence[CameraRecord]) -> list[str]:
    """`summary.json`, and the same in lines to be read."""
    found = summary(records)
    write_json(out / "summary.json", found)
    lines = [
        f"{name}: {counted(one['tracks'], 'track')}, {counted(one['crops'], 'crop')}"
        for name, one in found["by_camera"].items()
    ]
    if found["cameras"] > 1:
        every = f"all {counted(found['cameras'], 'camera')}"
        lines.append(f"{every}: {counted(found['tracks'], 'track')}, {counted(found['crops'], 'crop')}")
    lengths = list(found["seconds_per_track"].items())
    most = max(count for _, count in lengths)
    there = [place for place, (_, count) in enumerate(lengths) if count] or [0]
    lines.append("tracks by length:")
    for name, count in lengths[there[0] : there[-1] + 1]:
        lines.append(f"  {name:>13}  {count:6,}  {'#' * round(40 * count / max(most, 1))}".rstrip())
    return lines


def write_sheet(out: Path, file: Path, records: Sequence[CameraRecord]) -> None:
    """Crops of tracks spread over all cameras, a row a track, with time and quality."""
    share = max(1, SHEET_ROWS // max(len(records), 1))  # rows of each camera
    rows: list[list[Tile | None]] = []
    for record in records[:SHEET_ROWS]:
        spans = record["spans"]
        for place in np.unique(np.linspace(0, len(spans) - 1, min(share, len(spans))).round().astype(int)):
            mine = [row for row in record["rows"] if row["track"] == spans[place]["track"]]
            chosen = np.unique(np.linspace(0, len(mine) - 1, min(SHEET_COLUMNS, len(mine))).round().astype(int))
            rows.append([_tile(out, mine[number]) for number in chosen])
    write_picture(contact_sheet(rows), file)


def _tile(out: Path, row: CropRow) -> Tile | None:
    path = out / row["file"]
    if not path.is_file():  # the user has thrown it away
        return None
    caption = f"{row['camera']}/{row['track']}\n{row['time']:.1f} s\nquality {row['quality']:.2f}"
    try:
        return Tile(read_image(path).rgb, caption)
    except UnreadableImage as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete it, or its camera's folder to cut it anew"
        ) from None
