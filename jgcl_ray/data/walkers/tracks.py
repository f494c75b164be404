"""Walks past a camera in place of single photos: tracklets as a tracker would cut them out, its mistakes included."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jgcl_ray.atomic import write_bytes
from jgcl_ray.data.walkers.photos import Photo, Step

TRACKS_FILE = "tracks.csv"  # in the set's folder: the columns name, tracklet, time
FRAMES, EVERY = 6, 0.4  # of a visit, and seconds between them
SPAN = (FRAMES - 1) * EVERY
GAP = 1.0  # mean seconds until the next walker comes into view: about four others overlap with each visit
SWITCH_SHARE = 0.04  # of the tracklets, that go on with another person who passed at the same time
FRAME_RATE = 25  # frames a second, by which file names count
CADENCE = 0.95  # cycles of the gait a second
TURN = 7.0  # standard deviation of a walker's turning, degrees a second
HIDDEN_FRAMES = 3  # in which a visit's passer-by or occluder is seen


@dataclass(frozen=True)
class _Visit:
    """A walk past a camera: `photo` is as its first frame."""

    photo: Photo
    start: float  # seconds on the camera's clock
    turn: float  # degrees a second
    hidden: int  # first frame in which a passer-by or an occluder is seen


def follow(photos: Sequence[Photo], rng: np.random.Generator, straight: Collection[int] = ()) -> list[Photo]:
    """The photos, those of the training split replaced by the frames of walks that begin with them.

    Every second photo that a person has in a camera, at least one, becomes a visit of FRAMES frames. In each camera
    the visits overlap in time, with other people's and never with the same person's; a few tracklets change over to
    another person. `straight`: rows of people who do not turn while they walk.
    """
    in_camera: dict[int, dict[int, list[Photo]]] = defaultdict(lambda: defaultdict(list))
    others = []
    for photo in photos:
        if photo.split == "train":
            in_camera[photo.camera][photo.person].append(photo)
        else:
            others.append(photo)
    frames, tracklets = [], 0
    for camera in sorted(in_camera):
        begun = {person: taken[::2][: max(1, len(taken) // 2)] for person, taken in in_camera[camera].items()}
        visits = [
            replace(visit, turn=0.0) if visit.photo.person in straight else visit for visit in _schedule(begun, rng)
        ]
        frames += _switch([_frames(visit, tracklets + number, rng) for number, visit in enumerate(visits)], rng)
        tracklets += len(visits)
    return [*sorted(frames, key=lambda photo: photo.name), *others]


def write_tracks(file: Path, photos: Sequence[Photo]) -> None:
    """Tracklet and time of all photos that are frames of a walk, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("name", "tracklet", "time"))
    rows.writerows((photo.path, photo.step.tracklet, f"{photo.step.time:.2f}") for photo in photos if photo.step)
    write_bytes(file, text.getvalue().encode())


def _schedule(begun: dict[int, list[Photo]], rng: np.random.Generator) -> list[_Visit]:
    """The visits of one camera in the order in which they begin; a person comes back when all have passed once."""
    visits: list[_Visit] = []
    now = 0.0
    for turn in range(max(len(photos) for photos in begun.values())):
        passing = [photos[turn] for _, photos in sorted(begun.items()) if len(photos) > turn]
        for place in rng.permutation(len(passing)):
            start = round(now * FRAME_RATE) / FRAME_RATE
            hidden = int(rng.integers(FRAMES - HIDDEN_FRAMES + 1))
            visits.append(_Visit(passing[place], start, float(rng.normal(0, TURN)), hidden))
            now += rng.exponential(GAP)
        now += 2 * SPAN
    return visits


def _frames(visit: _Visit, tracklet: int, rng: np.random.Generator) -> list[Photo]:
    photo, frames = visit.photo, []
    for number in range(FRAMES):
        elapsed = number * EVERY
        time = visit.start + elapsed
        gait = photo.gait
        phase = (gait.phase + 2 * math.pi * CADENCE * elapsed) % (2 * math.pi)
        nod, head_turn = rng.normal(0, 0.04, 2)
        hidden = visit.hidden <= number < visit.hidden + HIDDEN_FRAMES
        frames.append(
            replace(
                photo,
                name=f"{photo.identity:04d}_c{photo.camera}s1_{round(time * FRAME_RATE):06d}_{number:02d}.jpg",
                gait=replace(
                    gait,
                    phase=phase,
                    head_nod=float(gait.head_nod + nod),
                    head_turn=float(gait.head_turn + head_turn),
                ),
                yaw=(photo.yaw + visit.turn * elapsed) % 360,
                passer_by=photo.passer_by if hidden else -1,
                occluder=photo.occluder and hidden,
                step=Step(tracklet, round(time, 2), number, round(elapsed, 2)),
            )
        )
    return frames


def _switch(tracklets: list[list[Photo]], rng: np.random.Generator) -> list[Photo]:
    """The frames of one camera, in which pairs of overlapping tracklets have changed over to each other's person."""
    starts = [_steps(frames)[0].time for frames in tracklets]
    close = [i for i in range(len(starts) - 1) if starts[i + 1] - starts[i] <= SPAN / 2]
    left = round(SWITCH_SHARE * len(tracklets) / 2)
    switched: set[int] = set()
    for first in rng.permutation(close).tolist() if close else []:
        second = first + 1
        if not left or {first, second} & switched:
            continue
        left -= 1
        switched |= {first, second}
        middle = (starts[second] + starts[first] + SPAN) / 2  # of the time in which both are seen
        numbers = [_steps(tracklets[place])[0].tracklet for place in (first, second)]
        for place, other in ((first, numbers[1]), (second, numbers[0])):
            tracklets[place] = [
                replace(photo, step=replace(step, tracklet=other)) if step.time > middle else photo
                for photo, step in zip(tracklets[place], _steps(tracklets[place]), strict=True)
            ]
    return [photo for frames in tracklets for photo in frames]


def _steps(frames: Sequence[Photo]) -> list[Step]:
    return [photo.step for photo in frames if photo.step is not None]
