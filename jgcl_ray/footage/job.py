"""One camera as a piece of work: what is done already stays, crops go to disk a whole track at a time.

`CROPS/.footage/CAMERA.jsonl` grows by a line a finished track, so that a stopped command goes on; `CAMERA.json` says
that the camera is done, with which settings, and what there is of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.atomic import write_json
from jgcl_ray.data.datasets.unfinished import STATE, journal_of
from jgcl_ray.errors import UserError
from jgcl_ray.footage.camera import Tracklet, judged, tracklets
from jgcl_ray.footage.detect import write_tracks
from jgcl_ray.footage.formats import read_rows
from jgcl_ray.footage.kept import CameraRecord, CropRow, Header, SpanRow, TrackRecord, read_journal, read_record
from jgcl_ray.footage.sampling import Sampling
from jgcl_ray.footage.sources import Source
from jgcl_ray.footage.tracks import Filters, Tracks, people_of, without_short
from jgcl_ray.footage.video import FrameReader, ReadProgress, open_footage
from jgcl_ray.wording import counted

VERSION = 1  # of what is written; another one is made anew

Watch = Callable[[int, int], None]  # frame, last frame


@dataclass(frozen=True)
class Job:
    """A camera and how its crops are chosen."""

    source: Source
    out: Path
    filters: Filters
    sampling: Sampling
    weights: Path | None = None  # of --detect

    @property
    def footage(self) -> Path:
        """The video, or the folder of frames."""
        found = self.source.video or self.source.frames
        assert found is not None
        return found

    @property
    def record(self) -> Path:
        return self.out / STATE / f"{self.source.camera}.json"

    @property
    def journal(self) -> Path:
        return journal_of(self.out, self.source.camera)

    @property
    def folder(self) -> Path:
        return self.out / self.source.camera

    def digest(self) -> str:
        """Of the settings and of the files' sizes and dates: with another one the camera is done anew."""
        source = self.source
        files = [path for path in (source.video, source.frames, source.tracks, self.weights) if path is not None]
        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return _digest(VERSION, asdict(source), asdict(self.filters), asdict(self.sampling), states)

    @property
    def detected(self) -> Path:
        """Where the tracks of --detect go: found once, whatever is made of them."""
        assert self.source.detect is not None
        changed = self.footage.stat().st_mtime_ns
        said = _digest(self.source.detect, self.weights, self.footage, changed, self.source.fps)
        return self.out / STATE / f"{self.source.camera}.{said[:12]}.tracks.txt"


def _digest(*said: Any) -> str:
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()


def finished(job: Job) -> CameraRecord | None:
    """What there is of a camera that is done with these settings; None where it is to be done."""
    record = read_record(job.record) if job.record.exists() and job.folder.is_dir() else None
    return record if record is not None and record["digest"] == job.digest() else None


def begun_otherwise(job: Job, replace: bool) -> bool:
    """Whether there are crops of this camera that are to be cut anew, of the same footage with other settings.

    UserError where they are of other footage, unless `replace`.
    """
    if not job.folder.is_dir():
        return False
    found: Header | CameraRecord | None = read_record(job.record) if job.record.exists() else None
    if found is None:
        found, _ = read_journal(job.journal)
    if found is None or found["digest"] == job.digest():
        return False
    before = found.get("footage")
    if before not in (None, str(job.footage)) and not replace:
        raise UserError(
            f"camera {job.source.camera}: its crops in {job.folder} are of {before}, not of {job.footage}: give "
            "another --camera or --out, or --replace to cut them anew"
        )
    return True


def work(job: Job, watch: Watch = lambda frame, last: None) -> CameraRecord:
    """Do a camera, or what is left of it; its record. UserError for whatever the user can fix."""
    with _disk_errors_in_one_line(job.out):
        (job.out / STATE).mkdir(parents=True, exist_ok=True)
        source = job.source
        reader = open_footage(source.video, source.frames, source.fps)
        tracks, notes = _tracks(job, reader, watch)
        tracks, short = without_short(tracks, job.sampling.min_boxes)
        if short:
            notes.append(f"{counted(short, 'track')} of fewer than {job.sampling.min_boxes} boxes left out")
        if not len(tracks):
            raise UserError(f"camera {source.camera}: no track has {job.sampling.min_boxes} boxes (--min-boxes)")
        boxes = judged(tracks, reader.footage.width, reader.footage.height, job.sampling)
        notes += boxes.notes
        if not boxes.fit.any():
            raise UserError(f"camera {source.camera}: no box is left ({'; '.join(boxes.notes)})")
        done = _taken_up(job)  # from here on what there was is gone
        last, reading = int(tracks.frame.max()), ReadProgress()
        names = _Names(tracks)
        with job.journal.open("a", encoding="utf-8") as journal:
            skip = frozenset(line["track"] for line in done)
            for one in tracklets(
                reader, tracks, boxes, job.sampling, reading, skip, lambda frame: watch(frame, last)
            ):
                line = _write(job, tracks, one, names.of(one.track))
                journal.write(json.dumps(line) + "\n")
                journal.flush()
                done.append(line)
        notes += _losses(reading, tracks)
        record = _record(job, reader, tracks.take(_of_fit(tracks, boxes.fit)), done, names, notes)
        write_json(job.record, record)
        job.journal.unlink()
        return record


def _taken_up(job: Job) -> list[TrackRecord]:
    """Tracks that an earlier call with the same settings has finished; whatever else there is of the camera goes."""
    header: Header = {"digest": job.digest(), "footage": str(job.footage)}
    ours = job.journal.exists() or job.record.exists()
    if job.folder.exists() and not ours and any(job.folder.iterdir()):
        raise UserError(f"{job.folder}: there already, and not made by this command; give another --out or --camera")
    before, done = read_journal(job.journal)
    if before is not None and before["digest"] == header["digest"]:
        lines = [line for line in done if (job.folder / line["folder"]).is_dir()]
        kept = {line["folder"] for line in lines}
        for path in job.folder.iterdir() if job.folder.exists() else ():
            if path.name not in kept:
                shutil.rmtree(path)
    else:
        lines = []
        shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True, exist_ok=True)
    job.record.unlink(missing_ok=True)
    partial = job.journal.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]), encoding="utf-8")
    partial.replace(job.journal)
    return lines


def _tracks(job: Job, reader: FrameReader, watch: Watch) -> tuple[Tracks, list[str]]:
    source, filters = job.source, job.filters
    file = source.tracks
    if file is None:
        assert source.detect is not None
        file = job.detected
        if not file.exists():
            last = reader.footage.frames or reader.footage.announced
            write_tracks(reader, file, source.detect, job.weights, lambda frame: watch(frame, last))
        if not file.stat().st_size:
            raise UserError(f"camera {source.camera}: --detect found no one")
        filters = replace(filters, classes=(), first_frame="1")
    else:
        filters = replace(filters, first_frame=source.first_frame)
    rows = read_rows(file, source.format, source.tracks_camera)
    return people_of(rows, file, reader.footage, filters)


class _Names:
    """Folders of tracks: their numbers, padded to the longest, four digits at least."""

    def __init__(self, tracks: Tracks) -> None:
        self._digits = max(4, len(str(int(tracks.track.max()))))

    def of(self, track: int) -> str:
        return f"{track:0{self._digits}d}"


def _write(job: Job, tracks: Tracks, one: Tracklet, name: str) -> TrackRecord:
    """Put a track's crops into their folder, which appears when it is complete."""
    partial, folder = job.folder / f".{name}.partial", job.folder / name
    for path in (partial, folder):
        shutil.rmtree(path, ignore_errors=True)
    partial.mkdir()
    rows: list[CropRow] = []
    for crop in one.crops:
        file = f"{crop.frame:06d}.jpg"
        (partial / file).write_bytes(crop.jpeg)
        left, top, width, height = (round(float(value), 1) for value in tracks.box[crop.row])
        confidence = float(tracks.confidence[crop.row])
        rows.append(
            {
                "file": f"{job.source.camera}/{name}/{file}",
                "camera": job.source.camera,
                "track": name,
                "frame": crop.frame,
                "time": round(crop.time + job.source.start, 3),
                "left": left,
                "top": top,
                "width": width,
                "height": height,
                "confidence": None if np.isnan(confidence) else round(confidence, 4),
                "quality": round(crop.quality, 3),
                "overlap": round(crop.overlap, 3),
            }
        )
    partial.rename(folder)
    return {"track": one.track, "folder": name, "rows": rows}


def _record(
    job: Job, reader: FrameReader, tracks: Tracks, done: list[TrackRecord], names: _Names, notes: list[str]
) -> CameraRecord:
    rows = sorted((row for line in done for row in line["rows"]), key=lambda row: row["file"])
    crops = {line["folder"]: len(line["rows"]) for line in done}
    times = {(row["track"], row["frame"]): row["time"] for row in rows}
    spans: list[SpanRow] = []
    numbers, first, counts = np.unique(tracks.track, return_index=True, return_counts=True)
    ends = dict(zip(tracks.track.tolist(), tracks.frame.tolist(), strict=True))  # boxes are ordered by frame
    for track, start, count in zip(numbers.tolist(), first.tolist(), counts.tolist(), strict=True):
        name, begin, end = names.of(track), int(tracks.frame[start]), ends[track]
        if name not in crops:
            continue
        at = [
            times.get((name, frame), round((frame - 1) / reader.rate + job.source.start, 3)) for frame in (begin, end)
        ]
        spans.append(
            {"camera": job.source.camera, "track": name, "first": begin, "last": end, "start": at[0], "end": at[1],
             "boxes": count, "crops": crops[name]}
        )  # fmt: skip
    lost = len(numbers) - len(spans)
    if lost:
        notes.append(f"{counted(lost, 'track')} in frames that could not be decoded: lost")
    return {
        "digest": job.digest(),
        "footage": str(job.footage),
        "camera": job.source.camera,
        "rows": rows,
        "spans": spans,
        "notes": notes,
    }


def _of_fit(tracks: Tracks, fit: np.ndarray) -> np.ndarray:
    """Which boxes are of tracks that have a fit one, (N,) bool."""
    return np.isin(tracks.track, np.unique(tracks.track[fit]))


def _losses(reading: ReadProgress, tracks: Tracks) -> list[str]:
    notes = []
    if reading.read < reading.wanted:
        last = int(tracks.frame.max())
        beyond = int((tracks.frame > reading.read).sum())
        lost = f"{counted(last - reading.read, 'frame')} and {counted(beyond, 'box', 'boxes')}"
        notes.append(
            f"the video ends, or cannot be decoded further, after frame {reading.read:,}: {lost} lost; if frames are "
            "missing before, crops show later ones: see the sheet"
        )
    if reading.damaged:
        notes.append(
            f"{counted(len(reading.damaged), 'frame')} cannot be decoded, first {reading.damaged[0]:,}: lost"
        )
    if reading.variable:
        notes.append("variable frame rate: times are the container's time stamps")
    elif reading.gaps:
        notes.append(
            f"the time stamps skip about {counted(reading.gaps, 'frame')} (damaged?): if the tracker saw them, "
            "numbers are off by as many from there on"
        )
    return notes


@contextmanager
def _disk_errors_in_one_line(out: Path) -> Iterator[None]:
    """A full disk, and folders that may not be written, as one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{out}: no space left; free some and give the command again, it goes on") from None
        if error.errno == errno.EFBIG:
            raise UserError(f"{out}: a file would be larger than allowed; raise the limit (ulimit -f)") from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR) and str(error.filename).startswith(str(out)):
            raise UserError(f"{error.filename}: {os.strerror(error.errno)}") from None
        raise
