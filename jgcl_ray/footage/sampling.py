"""Which boxes of a track become crops: spread over time and over the sides that a person shows, the best of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jgcl_ray.footage.tracks import Tracks

TRIES = 2  # boxes of a slot of time that are cut out to compare their sharpness
SPARE = 2  # slots for each crop that is kept, to choose the sides from
SURE_WITHIN = 45.0  # degrees of standard deviation up to which an estimated direction counts


@dataclass(frozen=True)
class Sampling:
    """How many crops, and which boxes are fit."""

    per_track: int = 12  # at most
    every: float = 0.5  # seconds between crops of a track, about: slots of time, crops half of it apart
    min_height: int = 24  # pixels inside the frame
    max_overlap: float = 0.7  # share covered by another box
    min_inside: float = 0.6  # share within the frame
    min_boxes: int = 3  # shorter tracks are left out
    views: bool = True  # choose by the estimated direction too


@dataclass(frozen=True, eq=False)
class Candidates:
    """M boxes to be cut out, by frame."""

    row: np.ndarray  # (M,) int64, of Tracks
    slot: np.ndarray  # (M,) int64; of those with one slot of a track the best crop stays


def candidates(
    tracks: Tracks, quality: np.ndarray, fit: np.ndarray, rate: float, sampling: Sampling
) -> Candidates:  # fmt: skip
    """The best boxes of each slot of time, by their geometry.

    A track's time is divided into slots of `every` seconds or, on a long one, SPARE x per_track equal ones.
    quality: (N,) of each box. fit: (N,) bool, the boxes that may become crops; at least one.
    """
    rows, slots = [], []
    by_track = np.argsort(tracks.track, kind="stable")
    starts = np.flatnonzero(np.diff(tracks.track[by_track], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(by_track)], strict=True):
        mine = by_track[start:stop]
        good = mine[fit[mine]]
        if not len(good):
            continue
        time = (tracks.frame[good] - tracks.frame[good[0]]) / rate
        span = float(time[-1]) + 1e-6
        most = SPARE * sampling.per_track if sampling.views else sampling.per_track
        count = max(1, min(most, int(span / sampling.every) + 1))
        slot = np.minimum((time / span * count).astype(np.int64), count - 1)
        order = np.lexsort((-quality[good], slot))
        place = np.arange(len(good)) - np.searchsorted(slot[order], slot[order])
        chosen = order[place < TRIES]
        rows.append(good[chosen])
        slots.append(slot[chosen])
    row, slot = np.concatenate(rows), np.concatenate(slots)
    order = np.argsort(row)
    return Candidates(row[order], slot[order])


def spaced_in_time(time: np.ndarray, quality: np.ndarray, least: float) -> np.ndarray:
    """Of M crops in the order of time those that stay: of two closer than `least` seconds the better."""
    kept: list[int] = []
    for row in range(len(time)):
        if not kept or time[row] - time[kept[-1]] >= least:
            kept.append(row)
        elif quality[row] > quality[kept[-1]]:
            kept[-1] = row
    return np.array(kept)


def choose(
    time: np.ndarray,
    quality: np.ndarray,
    count: int,
    yaw: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
) -> np.ndarray:
    """Of M crops of a track the rows of `count`, ascending: the best first, then who is good and unlike those taken.

    time: (M,) seconds. quality: (M,). yaw, deviation: (M,) degrees, the estimated direction and how sure it is.
    Unlikeness is the distance in time over the track's span and, both being sure, in direction over 180 degrees.
    """
    if len(time) <= count:
        return np.arange(len(time))
    span = float(np.ptp(time)) or 1.0
    sure = np.zeros(len(time)) if deviation is None else (1 - np.asarray(deviation) / SURE_WITHIN).clip(0, 1)
    turn = np.zeros(len(time)) if yaw is None else np.asarray(yaw, float)
    taken = [int(quality.argmax())]
    apart = np.full(len(time), np.inf)
    while len(taken) < count:
        last = taken[-1]
        side = np.abs((turn - turn[last] + 180) % 360 - 180) / 180 * np.minimum(sure, sure[last])
        apart = np.minimum(apart, np.hypot((time - time[last]) / span, side))
        score = apart * quality
        score[taken] = -1
        taken.append(int(score.argmax()))
    return np.array(sorted(taken))
