"""Track files with names: CSV with a header (supervision's CSVSink), JSON (its JSONSink, ultralytics' to_json)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jgcl_ray.errors import UserError
from jgcl_ray.footage.rows import NO_TRACK, PERSON, SHARE, Rows, make_rows, text_lines
from jgcl_ray.wording import counted

FRAME = ("frame", "frame_number", "frame_index", "frame_id", "frame_idx", "frame_no", "frame_num", "framenumber")
TRACK = ("tracker_id", "track_id", "track", "trackid", "object_id", "obj_id", "id", "identity")
CONFIDENCE = ("confidence", "conf", "score")
NAME = ("class_name", "name", "label", "category", "class", "cls", "class_id")
CAMERA = ("camera", "camera_id", "cam")
CORNERS = (("x_min", "y_min", "x_max", "y_max"), ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
SIZES = (
    ("left", "top", "width", "height"),
    ("bb_left", "bb_top", "bb_width", "bb_height"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "width", "height"),
)
BOX = ("box", "bbox", "xyxy", "bbox_xyxy", "tlwh", "bbox_tlwh", "ltwh", "bbox_ltwh", "xywh")
LISTS = ("detections", "objects", "results", "predictions", "boxes", "tracks", "annotations", "instances")


def read_csv(path: Path, camera: str | None) -> Rows:
    """A header, then a box a line; separated by commas, tabs or blanks."""
    lines = text_lines(path)
    if not lines:
        raise UserError(f"{path}: empty")
    header = lines[0][1]
    separator = "," if "," in header else "\t" if "\t" in header else " "
    reader = csv.DictReader(io.StringIO("\n".join(line for _, line in lines)), delimiter=separator)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    if len(names) < 3:
        raise UserError(f"{path}, line {lines[0][0]}: no header and no numbers: {header!r}")
    reader.fieldnames = names
    records = []
    for record in reader:
        if None in record or None in record.values():  # DictReader marks a surplus and a want so
            raise UserError(f"{path}, row {reader.line_num}: not {counted(len(names), 'column')}, as the header has")
        records.append({name: value.strip() for name, value in record.items()})
    return _rows(path, records, camera, "CSV")


def read_json(path: Path, camera: str | None) -> Rows:
    """A list of boxes that name their frame, a list or object of frames, or a line of JSON each."""
    text = "\n".join(line for _, line in text_lines(path))
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            content = [json.loads(line) for line in text.splitlines()]
        except json.JSONDecodeError:
            raise UserError(f"{path}: no JSON (line {error.lineno}: {error.msg})") from None
    return _rows(path, list(_flattened(path, content)), camera, "JSON")


def _flattened(path: Path, content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, Mapping):
        inner = [content[name] for name in (*LISTS, "frames") if isinstance(content.get(name), list | dict)]
        if inner:
            yield from _flattened(path, inner[0])
            return
        if not all(key.strip().lstrip("-").isdecimal() for key in content):
            raise UserError(
                f"{path}: an object whose keys are no frames; expected FRAME: [boxes], or a list of boxes"
            )
        for key, boxes in content.items():
            yield from (_record(path, box) | {"frame": int(key)} for box in boxes)
        return
    for place, entry in enumerate(content):
        if isinstance(entry, list):  # a list a frame, as results in the order of frames are collected
            yield from (_record(path, box) | {"frame": place} for box in entry)
            continue
        record = _record(path, entry)
        inner = [record[name] for name in LISTS if isinstance(record.get(name), list)]
        if inner:
            outer = {name: value for name, value in record.items() if name in (*FRAME, *CAMERA)}
            yield from (outer | _record(path, box) for box in inner[0])
        else:
            yield record


def _record(path: Path, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise UserError(f"{path}: a box is an object with names, found {str(entry)[:60]!r}")
    return {str(name).strip().lower(): value for name, value in entry.items()}


def _rows(path: Path, records: list[dict[str, Any]], camera: str | None, kind: str) -> Rows:
    if not records:
        return make_rows(kind, [], [], [])
    records = _of_camera(path, records, camera)
    frame = _name(records, FRAME)
    if frame is None:
        raise UserError(
            f"{path}: no column for the frame ({', '.join(FRAME[:3])}, ...), only {_known(records)}; let the tracker "
            "write it (supervision: sink.append(detections, {'frame': number}))"
        )
    track = _name(records, TRACK)
    if track is None:
        raise UserError(f"{path}: no column for the track ({', '.join(TRACK[:3])}, ...), only {_known(records)}")
    names, corners = _box_columns(path, records)
    confidence = _name(records, CONFIDENCE)
    label = _label(records)
    boxes = [_box(path, row, record, names) for row, record in enumerate(records, 1)]
    relative = max(max(map(abs, box)) for box in boxes) <= SHARE
    labels = None if label is None else ["" if record.get(label) is None else record[label] for record in records]
    people = None if labels is None else _people({str(value).lower() for value in labels})
    return make_rows(
        kind,
        [_number(path, row, record.get(frame), frame) for row, record in enumerate(records, 1)],
        [_number(path, row, record.get(track), track, NO_TRACK) for row, record in enumerate(records, 1)],
        boxes,
        corners=corners,
        confidence=None
        if confidence is None
        else [
            _number(path, row, record.get(confidence), confidence, float("nan")) for row, record in enumerate(records)
        ],
        kind=labels,
        people=people,
        relative=relative,
    )


def _of_camera(path: Path, records: list[dict[str, Any]], camera: str | None) -> list[dict[str, Any]]:
    column = _name(records, CAMERA)
    if column is None:
        return records
    cameras = sorted({str(record.get(column)) for record in records})
    if camera is None and len(cameras) > 1:
        raise UserError(
            f"{path}: holds the cameras {', '.join(cameras[:8])}: say whose boxes to take with --tracks-camera NAME"
        )
    if camera is not None and camera not in cameras:
        raise UserError(f"{path}: no camera {camera}; it holds {', '.join(cameras[:8])}")
    return [record for record in records if camera in (None, str(record.get(column)))]


def _people(labels: set[str]) -> tuple[str, ...] | None:
    """Who is a person: by name; by number as in COCO's list, where it starts at 0."""
    named = tuple(name for name in PERSON if name in labels)
    return named or (("0",) if labels <= {str(number) for number in range(100)} and "0" in labels else None)


def _label(records: list[dict[str, Any]]) -> str | None:
    """The column of the class: a name before a number."""
    found = [name for name in NAME if name in records[0]]
    worded = [name for name in found if not str(records[0][name]).replace(".", "").isdecimal()]
    return next(iter(worded or found), None)


def _box_columns(path: Path, records: list[dict[str, Any]]) -> tuple[tuple[str, ...], bool]:
    first = records[0]
    for names in SIZES:  # before corners: xmin, ymin may come with width, height
        if all(name in first for name in names):
            return names, False
    for names in CORNERS:
        if all(name in first for name in names):
            return names, True
    for name in BOX:
        if name in first:
            inner = first[name]
            if isinstance(inner, Mapping):
                for group, corners in ((CORNERS, True), (SIZES, False)):
                    for names in group:
                        if all(part in inner for part in names):
                            return (name, *names), corners
            elif isinstance(inner, list) and len(inner) == 4:
                if name in ("box", "bbox", "xywh"):
                    raise UserError(
                        f"{path}: {name}: four numbers that may be corners or sizes, from a corner or the centre; "
                        "name it xyxy or ltwh"
                    )
                return (name,), "xyxy" in name
    raise UserError(f"{path}: no box; expected x1, y1, x2, y2 or left, top, width, height among {_known(records)}")


def _box(path: Path, row: int, record: dict[str, Any], names: tuple[str, ...]) -> list[float]:
    if len(names) == 4:
        return [_number(path, row, record.get(name), name) for name in names]
    inner = record.get(names[0])
    if len(names) == 1:
        if not isinstance(inner, list) or len(inner) != 4:
            raise UserError(f"{path}, box {row}: {names[0]} is not four numbers: {inner!r}")
        return [_number(path, row, value, names[0]) for value in inner]
    if not isinstance(inner, Mapping):
        raise UserError(f"{path}, box {row}: {names[0]} holds no {', '.join(names[1:])}: {inner!r}")
    return [_number(path, row, inner.get(name), name) for name in names[1:]]


def _number(path: Path, row: int, value: Any, name: str, nothing: float | None = None) -> float:
    if nothing is not None and (value is None or str(value).strip().lower() in ("", "none", "nan")):
        return nothing
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{path}, box {row}: {name} is no number: {value!r}") from None


def _name(records: list[dict[str, Any]], names: Iterable[str]) -> str | None:
    """The first of the names that any record has: a box without a track may lack it."""
    there = {name for record in records for name in record}
    return next((name for name in names if name in there), None)


def _known(records: list[dict[str, Any]]) -> str:
    return ", ".join(str(name) for name in records[0])
