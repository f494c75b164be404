"""What is kept of cameras below CROPS/.footage/: CAMERA.json of one that is done, CAMERA.jsonl of one under way."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's own from Python 3.12 on

from jgcl_ray.errors import UserError
from jgcl_ray.stored_files import parse_json, read_json


class CropRow(TypedDict):
    """A crop: a row of tracks.csv."""

    file: str  # CAMERA/TRACK/FRAME.jpg
    camera: str
    track: str
    frame: int
    time: float  # seconds
    left: float  # this one and the next three: pixels
    top: float
    width: float
    height: float
    confidence: float | None
    quality: float
    overlap: float


class SpanRow(TypedDict):
    """A track: a row of spans.csv."""

    camera: str
    track: str
    first: int  # frame
    last: int
    start: float  # seconds
    end: float
    boxes: int
    crops: int


class TrackRecord(TypedDict):
    """A finished track: a line of the journal after the first."""

    track: int
    folder: str
    rows: list[CropRow]


class CameraRecord(TypedDict):
    """A finished camera."""

    digest: str  # of settings and files
    footage: NotRequired[str]  # path of the video, or of the folder of frames; not known of older records
    camera: str
    rows: list[CropRow]
    spans: list[SpanRow]
    notes: list[str]


class Header(TypedDict):
    """The journal's first line; both as in CameraRecord."""

    digest: str
    footage: NotRequired[str]


def read_record(file: Path) -> CameraRecord:
    """UserError where the file is damaged, or of another camera than its name says."""
    record = read_json(file, CameraRecord, _remedy(file))
    if record["camera"] != file.stem:
        raise UserError(f"{file}: damaged (it is of {record['camera']}); {_remedy(file)}")
    return record


def read_journal(file: Path) -> tuple[Header | None, list[TrackRecord]]:
    """First line and finished tracks; None and nothing where there is no journal.

    The last line may have been cut off, and is then left out; UserError for any other that is damaged.
    """
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    if not lines:
        return None, []
    header = parse_json(lines[0], Header, f"{file}, line 1", _remedy(file))
    tracks = [
        parse_json(line, TrackRecord, f"{file}, line {number}", _remedy(file))
        for number, line in enumerate(lines[1:], start=2)
    ]
    return header, tracks


def _remedy(file: Path) -> str:
    return f"delete it and the folder {file.parents[1] / file.stem}, the camera is done again"
