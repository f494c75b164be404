"""Which cameras there are: from the command line, a YAML of many, or folders in MOTChallenge's layout."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jgcl_ray.data.datasets.reid_dataset import natural_order
from jgcl_ray.errors import UserError
from jgcl_ray.footage.formats import FORMATS
from jgcl_ray.places import absolute
from jgcl_ray.strict_yaml import read_yaml

TABLES = ("tracks.csv", "spans.csv", "summary.json")  # beside the cameras' folders
LONGEST_NAME = 160  # bytes of a camera's; files that are made of it have longer ones
LATEST = 1e11  # seconds, 3,000 years
DETECTIONS_OF = ("FRCNN", "SDP", "DPM")  # MOT17 has every sequence three times; the first at hand is taken


@dataclass(frozen=True)
class Source:
    """A camera's footage and what a tracker wrote of it."""

    camera: str
    video: Path | None = None  # either this
    frames: Path | None = None  # or a folder of images
    tracks: Path | None = None  # a file, or a folder with a file a frame; None with `detect`
    format: str = "auto"
    first_frame: str = "auto"
    tracks_camera: str | None = None  # whose rows, where the track file holds several cameras'
    fps: float | None = None  # of the frames; None: the video's own
    start: float = 0.0  # seconds from a common zero to the first frame
    detect: str | None = None  # a detector to find people with, in place of tracks

    def checked(self) -> Source:
        """Itself, with absolute paths; UserError where something is missing or does not go together."""
        camera = self.camera
        if not camera or camera.startswith((".", "__MACOSX", "@eaDir")) or any(sign in camera for sign in "/\\\0\n"):
            raise UserError(f"--camera {camera!r}: give it a name that a folder can have")
        if len(os.fsencode(camera)) > LONGEST_NAME or camera in TABLES:
            why = "too long" if camera not in TABLES else "a table's name"
            raise UserError(f"--camera {camera}: {why}; give another name to the folder of its crops")
        if (self.video is None) == (self.frames is None):
            raise UserError(f"camera {camera}: give either --video FILE or --frames DIR")
        if self.frames is not None:
            self = _from_layout(self)
        if self.tracks is None and self.detect is None:
            raise UserError(f"camera {camera}: --tracks is missing (or --detect, to find people without)")
        if self.tracks is not None and self.detect is not None:
            raise UserError(f"camera {camera}: give either --tracks or --detect")
        if self.first_frame not in ("auto", "0", "1", "names"):
            raise UserError(f"camera {camera}: --first-frame {self.first_frame}: 0, 1, names or auto")
        if self.format != "auto" and self.format not in FORMATS:
            raise UserError(f"camera {camera}: --format {self.format}: known are auto, {', '.join(FORMATS)}")
        if self.fps is not None and not 1e-4 < self.fps < 1000:
            raise UserError(f"camera {camera}: --fps {self.fps:g}: frames a second, above 0.0001 and below 1,000")
        if not abs(self.start) < LATEST:
            raise UserError(f"camera {camera}: --start {self.start:g}: seconds from a common zero of all cameras")
        places = {name: getattr(self, name) for name in ("video", "frames", "tracks")}
        for name, path in places.items():
            if path is not None and not path.exists():
                raise UserError(f"camera {camera}: --{name} {path}: no such file or folder")
            if path is not None and not (path.is_file() or path.is_dir()):  # read more than once, or without an end
                raise UserError(
                    f"camera {camera}: --{name} {path}: a pipe or a device; save it as a file and give that"
                )
        found: dict[str, Any] = {name: absolute(path) for name, path in places.items() if path is not None}
        return replace(self, **found)


def _from_layout(source: Source) -> Source:
    """What a MOTChallenge folder says of itself, where its images or the folder itself are given as frames."""
    assert source.frames is not None
    frames = source.frames
    root = next((path for path in (frames, frames.absolute().parent) if (path / "seqinfo.ini").is_file()), None)
    if root is None and (frames / "img1").is_dir():  # CVAT's export has no seqinfo.ini
        root = frames
    if root is None:
        return source
    info = _sequence_info(root)
    images = root / info.get("imdir", "img1")
    truth = root / "gt" / "gt.txt"
    tracks = source.tracks
    if tracks is None and source.detect is None:
        if not truth.is_file():
            raise UserError(f"{root}: no gt/gt.txt, and det/ has no track numbers: give --tracks or --detect")
        tracks = truth
    rate = source.fps or (float(info["framerate"]) if "framerate" in info else None)
    return replace(source, frames=images, tracks=tracks, fps=rate)


def _sequence_info(root: Path) -> Mapping[str, str]:
    file = root / "seqinfo.ini"
    if not file.is_file():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8-sig"))
        found = dict(parser["Sequence"])
        float(found.get("framerate", "1"))
    except (configparser.Error, KeyError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not MOTChallenge's seqinfo.ini ({type(error).__name__}: {error})") from None
    return found


def sequences(folder: Path) -> list[Source]:
    """A MOTChallenge sequence, or all that lie in a folder (of MOT17's three copies of each, one)."""
    if not folder.is_dir():
        raise UserError(f"--sequence {folder}: no such folder")
    if (folder / "seqinfo.ini").is_file() or (folder / "img1").is_dir():
        return [Source(_sequence_name(folder), frames=folder)]
    inner = sorted((path for path in folder.iterdir() if (path / "seqinfo.ini").is_file()), key=lambda p: p.name)
    if not inner:
        raise UserError(f"--sequence {folder}: neither seqinfo.ini nor img1/ in it, nor folders with seqinfo.ini")
    chosen: dict[str, Path] = {}
    for path in sorted(inner, key=_copy_of):
        stem, _, detections = path.name.rpartition("-")
        chosen.setdefault(stem if detections in DETECTIONS_OF else path.name, path)
    return [Source(_sequence_name(path), frames=path) for path in sorted(chosen.values())]


def _copy_of(path: Path) -> int:
    ending = path.name.rpartition("-")[2]
    return DETECTIONS_OF.index(ending) if ending in DETECTIONS_OF else 0


def _sequence_name(folder: Path) -> str:
    return _sequence_info(folder).get("name", "") or folder.absolute().name


def read_sources(path: Path) -> list[Source]:
    """Cameras of a YAML file: a list of, or names with, the settings of Source; paths relative to the file."""
    content = read_yaml(path, "--sources")
    entries = content.get("cameras", content) if isinstance(content, Mapping) else content
    if isinstance(entries, Mapping):
        entries = [{"camera": name, **_mapping(path, entry)} for name, entry in entries.items()]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UserError(f"--sources {path}: expected `cameras:` and a list of camera, video or frames, and tracks")
    return [_source(path, _mapping(path, entry)) for entry in entries]


def _mapping(path: Path, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise UserError(f"--sources {path}: a camera is a list of settings, found {entry!r}")
    return {str(name): value for name, value in entry.items()}


def _source(path: Path, entry: dict[str, Any]) -> Source:
    known = {field.name for field in fields(Source)} | {"sequence"}
    unknown = sorted(set(entry) - known)
    if unknown:
        raise UserError(f"--sources {path}: {unknown[0]} is no setting; known: {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if value is None:
            continue
        if isinstance(value, Mapping | list):
            raise UserError(f"--sources {path}: {name}: {value!r} is more than one; a camera has one {name}")
        if name in ("video", "frames", "tracks", "sequence"):
            values[name] = path.absolute().parent / str(value)
        elif name in ("fps", "start"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"--sources {path}: {name}: {value!r} is no number")
            values[name] = float(value)
        else:
            values[name] = str(value)
    if "sequence" in values:
        values["frames"] = values.pop("sequence")
        values.setdefault("camera", _sequence_name(values["frames"]))
    if "camera" not in values:
        raise UserError(f"--sources {path}: a camera without a name (`camera: NAME`)")
    return Source(**values)


def checked(sources: Sequence[Source]) -> list[Source]:
    """All of them, in the natural order of their names; UserError where two have one."""
    names = [source.camera for source in sources]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(
            f"--camera {twice[0]}: given twice; the parts of one camera's footage need names of their own"
        )
    if not sources:
        raise UserError("no camera: give --camera NAME --video FILE --tracks FILE, --sequence DIR or --sources YAML")
    return sorted((source.checked() for source in sources), key=lambda source: natural_order(source.camera))
