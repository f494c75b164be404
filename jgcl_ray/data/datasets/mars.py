"""MARS (Zheng et al., "MARS: A Video Benchmark for Large-Scale Person Re-identification", ECCV 2016)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.division import first_of_each_camera, middle_of_each_tracklet, thinned
from jgcl_ray.data.datasets.matlab import matrix
from jgcl_ray.data.datasets.reid_dataset import (
    NamedImage,
    ReidDataset,
    check_disjoint,
    is_image,
    labelled_split,
    locate,
    visible,
    warn_of_counts,
)
from jgcl_ray.errors import UserError
from jgcl_ray.stored_files import read_lines

TITLE = "MARS"
FOLDERS = ("bbox_train", "bbox_test")
NAME = re.compile(r"(?P<identity>\d{4}|00-1)C(?P<camera>\d)T(?P<tracklet>\d+)F(?P<frame>\d+)\.")
EXAMPLE = "0001/0001C1T0001F001.jpg"
JUNK = "00-1"
# By which the query tracklets are known; all three are needed.
INFO = ("test_name.txt", "tracks_test_info.mat", "query_IDX.mat")

Track = tuple[str, str, str]  # identity, camera and tracklet, as in file names


def read_mars(data: DataConfig) -> ReidDataset:
    """MARS below `data.root` (or its inner folder); counts that differ are warned about.

    The tracklets are those of the file names; nothing tells when they were filmed, so `times` is None. A query is the
    middle image of each query tracklet: those of `info/`, or without it each person's first one in each camera. The
    gallery is all test images, the query tracklets' own and distractors (identity 0) among them, without junk.
    """
    root = locate(data.root, TITLE, ("MARS", "mars", "MARS-v160809"), [FOLDERS])
    named = {folder: _images(root / folder) for folder in FOLDERS}
    everything = sum(len(images) for images in named.values())
    tracks = sorted({track for images in named.values() for track in images.values()})
    numbers = {track: number for number, track in enumerate(tracks)}
    train, test = (_without_junk(named[folder], numbers) for folder in FOLDERS)
    for folder, images in zip(FOLDERS, (train, test), strict=True):
        if not images:
            raise UserError(f"{root / folder}: all images are junk (identity 00-1); unpack {TITLE} again")
    asked = _query_tracks(root / "info")
    if asked is None:
        people = [image for image in test if image.identity > 0]
        queries = {image.tracklet for image in first_of_each_camera(people)}
        division = "info/ is not there: queries are each person's first tracklet in each camera"
    else:
        queries, division = {numbers[track] for track in asked if track in numbers}, ""
        if len(queries) < len(asked):
            raise UserError(
                f"{root / 'info'}: {len(asked) - len(queries):,} of {len(asked):,} query tracklets have no image in "
                f"{root / FOLDERS[1]}; unpack {TITLE} again, in full"
            )
    query = middle_of_each_tracklet([image for image in test if image.tracklet in queries])
    dataset = ReidDataset(
        name="mars",
        root=root,
        train=labelled_split(root / FOLDERS[0], train),
        query=labelled_split(root / FOLDERS[1], query),
        gallery=labelled_split(root / FOLDERS[1], test),
        division=division,
    )
    check_disjoint(dataset)
    counts = {
        "train images": (len(train), 509_914),
        "images": (everything, 1_191_003),
        "train identities": (len({image.identity for image in train}), 625),
        "train tracklets": (len({image.tracklet for image in train}), 8_298),
        "cameras": (len({image.camera for image in train}), 6),
    }
    if asked is not None:
        counts["query tracklets"] = (len(query), 1_980)
    warn_of_counts("mars", root, counts)
    return thinned(dataset, data.per_tracklet)


def _images(folder: Path) -> dict[str, Track]:
    """`PERSON/NAME.jpg` -> track, of all images one folder deep."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {TITLE} has {FOLDERS[0]}/ and {FOLDERS[1]}/, unpack it again")
    people = [entry.name for entry in visible(folder) if entry.is_dir()]
    paths = [f"{person}/{entry.name}" for person in people for entry in visible(folder / person)]
    images = {path: _track(path) for path in paths if is_image(path)}
    strange = sorted(path for path, track in images.items() if track is None)
    if strange:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        raise UserError(
            f"{folder / strange[0]}{more}: not a file name of {TITLE}, which look like {EXAMPLE}; rename or remove "
            "it, or choose another data.name"
        )
    if not images:
        raise UserError(f"{folder}: holds no {EXAMPLE}; unpack {TITLE} again")
    return {path: track for path, track in images.items() if track is not None}


def _track(path: str) -> Track | None:
    match = NAME.match(path.rpartition("/")[2])
    return None if match is None else (match["identity"], match["camera"], match["tracklet"])


def _without_junk(images: dict[str, Track], numbers: dict[Track, int]) -> list[NamedImage]:
    return [
        NamedImage(path, int(track[0]), int(track[1]), numbers[track])
        for path, track in images.items()
        if track[0] != JUNK
    ]


def _query_tracks(info: Path) -> list[Track] | None:
    """The authors' query tracklets; None where there is no such folder."""
    if not info.is_dir():
        return None
    missing = [name for name in INFO if not (info / name).is_file()]
    if missing:
        raise UserError(
            f"{info}: {', '.join(missing)} missing; copy it from the authors' archive, or move {info} away"
        )
    names = [line.strip() for line in read_lines(info / INFO[0], "take it from the authors' archive") if line.strip()]
    spans = matrix(info / INFO[1], "track_test_info")
    chosen = matrix(info / INFO[2], "query_IDX").ravel()
    if spans.ndim != 2 or spans.shape[1] != 4 or not _within(chosen, len(spans)):
        raise UserError(f"{info / INFO[2]}: not of the tracklets of {INFO[1]}; take both from the authors' archive")
    spans = spans[chosen - 1]
    if not _within(spans[:, :2], len(names)):
        raise UserError(
            f"{info / INFO[1]}: not of the {len(names):,} images of {INFO[0]}; take both from the archive"
        )
    first, last = ([_track(names[row - 1]) for row in spans[:, column]] for column in (0, 1))
    tracks = [track for track, end in zip(first, last, strict=True) if track is not None and track == end]
    if len(tracks) < len(spans):
        raise UserError(
            f"{info / INFO[1]}: {len(spans) - len(tracks):,} query tracklets begin and end in different ones"
        )
    return tracks


def _within(numbers: np.ndarray, most: int) -> bool:
    return bool(numbers.size and numbers.min() >= 1 and numbers.max() <= most)
