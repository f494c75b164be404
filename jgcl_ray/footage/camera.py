"""One camera's footage: from boxes along tracks to crops in folders, a track at a time, in memory that stays flat."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image

from jgcl_ray.footage.quality import geometric_quality, sharpness
from jgcl_ray.footage.sampling import Candidates, Sampling, candidates, choose, spaced_in_time
from jgcl_ray.footage.tracks import Tracks, clipped
from jgcl_ray.footage.video import Frame, FrameReader, ReadProgress
from jgcl_ray.meshes.estimator import HEIGHT, WIDTH, BodyEstimator
from jgcl_ray.wording import counted

JPEG_QUALITY = 95


@dataclass(frozen=True, eq=False)
class Crop:
    """A person of one frame, cut out."""

    row: int  # of Tracks
    frame: int
    time: float  # seconds since the camera's first frame
    quality: float  # in [0, 1]
    overlap: float  # in [0, 1]
    jpeg: bytes
    size: tuple[int, int]  # width and height, pixels
    small: np.ndarray | None  # for the estimator of directions, with `size`


@dataclass(frozen=True, eq=False)
class Tracklet:
    """What is kept of a track."""

    track: int
    crops: tuple[Crop, ...]  # by frame


@dataclass
class _Open:
    """A track on its way: the best crop of each slot of time so far."""

    last: int  # row of its last candidate
    best: dict[int, Crop] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Boxes:
    """What a camera's N boxes are worth, by their geometry."""

    inside: np.ndarray  # (N, 4) float64: left, top, width, height in pixels, clipped to the frame
    quality: np.ndarray  # (N,) in [0, 1], sharpness not counted
    overlap: np.ndarray  # (N,) in [0, 1], share that another box covers
    fit: np.ndarray  # (N,) bool: may become a crop
    notes: tuple[str, ...]  # what is left out, in words


def judged(tracks: Tracks, width: int, height: int, sampling: Sampling) -> Boxes:
    """The boxes of frames of width x height pixels, and which of them the limits of `sampling` let through."""
    quality, overlap, share = geometric_quality(tracks, width, height)
    inside = clipped(tracks.box, width, height)
    fit = np.ones(len(tracks), bool)
    notes = []
    for unfit, what in (
        (inside[:, 3] < sampling.min_height, f"lower than {sampling.min_height} pixels (--min-height)"),
        (overlap > sampling.max_overlap, f"covered by more than {sampling.max_overlap:g} (--max-overlap)"),
        (share < sampling.min_inside, f"with less than {sampling.min_inside:g} in the frame (--min-inside)"),
    ):
        count = int((unfit & fit).sum())
        fit &= ~unfit
        if count:
            notes.append(f"{counted(count, 'box', 'boxes')} {what} left out")
    lost = len(np.unique(tracks.track)) - len(np.unique(tracks.track[fit]))
    if lost:
        notes.append(f"{counted(lost, 'track')} left out, with no other boxes than these")
    return Boxes(inside, quality, overlap, fit, tuple(notes))


def tracklets(
    reader: FrameReader,
    tracks: Tracks,
    boxes: Boxes,
    sampling: Sampling,
    reading: ReadProgress,
    skip: frozenset[int] = frozenset(),
    watch: Callable[[int], None] = lambda frame: None,
) -> Iterator[Tracklet]:
    """The tracklets of a camera in the order in which they end; `skip`: tracks that are done.

    Frames that cannot be decoded lose their crops, and are counted in `reading`. watch: called with the frame.
    """
    wanted = candidates(tracks, boxes.quality, boxes.fit, reader.rate, sampling)
    if skip:
        left = ~np.isin(tracks.track[wanted.row], list(skip))
        wanted = Candidates(wanted.row[left], wanted.slot[left])
    if not len(wanted.row):
        return
    frames = tracks.frame[wanted.row]
    opened: dict[int, _Open] = {}
    for row in wanted.row.tolist():
        opened.setdefault(int(tracks.track[row]), _Open(row)).last = row
    reading.wanted = int(frames[-1])
    place = 0
    for frame in reader.frames(np.unique(frames).tolist(), reading):
        while place < len(frames) and frames[place] <= frame.number:
            row, slot = int(wanted.row[place]), int(wanted.slot[place])
            one = opened[int(tracks.track[row])]
            if frames[place] == frame.number:
                pixels = _pixels(frame, boxes.inside[row])
                value = float(boxes.quality[row]) * sharpness(pixels)
                if slot not in one.best or value > one.best[slot].quality:
                    one.best[slot] = _crop(frame, row, pixels, value, float(boxes.overlap[row]), sampling.views)
            if row == one.last:
                yield from _finished(int(tracks.track[row]), opened, sampling)
            place += 1
        watch(frame.number)
    for track in list(opened):
        yield from _finished(track, opened, sampling)


def _pixels(frame: Frame, box: np.ndarray) -> np.ndarray:
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[:2] + box[2:]).astype(int)
    return np.ascontiguousarray(frame.pixels[top:bottom, left:right])


def _crop(frame: Frame, row: int, pixels: np.ndarray, quality: float, overlap: float, views: bool) -> Crop:
    image = Image.fromarray(pixels)
    written = io.BytesIO()
    image.save(written, "JPEG", quality=JPEG_QUALITY)
    small = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) if views else None
    return Crop(row, frame.number, frame.time, quality, overlap, written.getvalue(), image.size, small)


def _finished(track: int, opened: dict[int, _Open], sampling: Sampling) -> Iterator[Tracklet]:
    crops = sorted(opened.pop(track).best.values(), key=lambda crop: crop.frame)
    if not crops:
        return
    times, values = (np.array([getattr(crop, name) for crop in crops]) for name in ("time", "quality"))
    crops = [crops[place] for place in spaced_in_time(times, values, sampling.every / 2)]
    yaw = deviation = None
    if sampling.views and len(crops) > sampling.per_track:
        yaw, deviation = _estimator().directions_of(
            np.stack([crop.small for crop in crops if crop.small is not None]),
            np.array([c.size[::-1] for c in crops]),
        )
    time = np.array([crop.time for crop in crops])
    kept = choose(time, np.array([crop.quality for crop in crops]), sampling.per_track, yaw, deviation)
    yield Tracklet(track, tuple(crops[place] for place in kept))


@lru_cache(maxsize=1)
def _estimator() -> BodyEstimator:
    return BodyEstimator()
