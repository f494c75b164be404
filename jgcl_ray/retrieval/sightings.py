"""Where and when images of a gallery were taken: CAMERA/TRACK/NAME, as `python -m jgcl_ray.footage` writes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jgcl_ray.data.datasets.track_times import TRACKS, times_of
from jgcl_ray.places import absolute


@dataclass(frozen=True)
class Sighting:
    """Of one image."""

    camera: str = ""  # "" not known, like track
    track: str = ""  # in its camera
    time: float = float("nan")  # seconds on the camera's clock, or the frame's number where there is no tracks.csv


UNKNOWN = Sighting()


def sightings_of(paths: Sequence[str], places: Iterable[Path]) -> dict[str, Sighting]:
    """The sighting of each image, by absolute path; images that lie otherwise are left out.

    An image counts as tracked where tracks.csv lies beside its camera's folder, or where it lies two folders below
    one of the `places`. Times are those of that table, else numbers in the names (track_times).
    """
    given = {str(absolute(place)) for place in places}
    by_root: dict[Path, list[str]] = defaultdict(list)
    tabled: dict[Path, bool] = {}
    for path in paths:
        parents = Path(path).parents
        if len(parents) < 3:
            continue
        root = parents[2]
        if root not in tabled:
            tabled[root] = (root / TRACKS).is_file()
        if tabled[root] or str(root) in given:
            by_root[root].append(path)
    found: dict[str, Sighting] = {}
    for root, inside in by_root.items():
        names = [Path(path).relative_to(root).as_posix() for path in inside]
        times = times_of(root, names)[0]
        for row, (path, name) in enumerate(zip(inside, names, strict=True)):
            camera, track, _ = name.split("/")
            found[path] = Sighting(camera, track, float("nan") if times is None else float(times[row]))
    return found


@dataclass(frozen=True)
class Filter:
    """Which images may be answers."""

    cameras: tuple[str, ...] = ()  # none: all
    since: float | None = None  # time of the image, inclusive like `until`
    until: float | None = None

    def __bool__(self) -> bool:
        return bool(self.cameras) or self.since is not None or self.until is not None

    def kept(self, sightings: Sequence[Sighting]) -> np.ndarray:
        """Which of the images, (N,) bool; where time is asked for, those without one are not."""
        wanted = np.ones(len(sightings), bool)
        if self.cameras:
            wanted &= np.array([one.camera in self.cameras for one in sightings], bool)
        times = np.array([one.time for one in sightings], np.float64)
        if self.since is not None:
            wanted &= times >= self.since
        if self.until is not None:
            wanted &= times <= self.until
        return wanted
