"""What every data set is read into: splits of rows in one order on every machine."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
UNKNOWN_CAMERA = -1
NO_TRACKLET = -1
LARGEST_NUMBER = 10**18 - 1  # of identities, cameras and tracklets
# What a query's ranking leaves out, besides junk. market: the images of its own identity and camera (Zheng et al.,
# ICCV 2015). cross_camera: all images of its camera, as usual for sets of two cameras.
RankingProtocol = Literal["market", "cross_camera"]
NO_DATA = (".", "__MACOSX", "@eaDir")  # hidden files, and what macOS archives and Synology disks add


@dataclass(frozen=True, eq=False)
class Split:
    """N images in the order of their relative paths, code point by code point: the same on every machine.

    Row i of the training split is row i of the memory bank.
    """

    folder: Path  # absolute
    paths: tuple[str, ...]  # N, relative to folder, with forward slashes, strictly ascending
    identities: np.ndarray | None  # (N,) int64; 0 marks distractors; None where nobody labelled them
    cameras: np.ndarray  # (N,) int64, -1 unknown
    # Of images cut out along tracks: numbers that no two tracks share, of whatever cameras; NO_TRACKLET for others.
    tracklets: np.ndarray | None = None  # (N,) int64; None where nobody tracked
    # (N,) float64: seconds on the camera's own clock, or its frames' numbers where no clock is known; nan unknown
    times: np.ndarray | None = None
    spans: np.ndarray | None = None  # (N, 2) float64: first and last time of each image's whole track, nan unknown

    def __post_init__(self) -> None:
        for labels in (self.cameras, self.identities, self.tracklets):
            assert labels is None or (labels.dtype == np.int64 and labels.shape == (len(self.paths),))
        assert self.times is None or (self.times.dtype == np.float64 and self.times.shape == (len(self.paths),))
        assert self.spans is None or (self.spans.dtype == np.float64 and self.spans.shape == (len(self.paths), 2))
        assert all(before < after for before, after in pairwise(self.paths)), "rows in order"

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def tracklet_spans(self) -> np.ndarray | None:
        """(N, 2) float64: first and last time of each image's track; None without tracklets or times.

        `spans` as far as they are known, else over the images of the track that are here; nan outside tracks and
        where nothing of the track has a time.
        """
        if self.tracklets is None or self.times is None:
            return None
        known = np.flatnonzero((self.tracklets != NO_TRACKLET) & ~np.isnan(self.times))
        tracks, track = np.unique(self.tracklets[known], return_inverse=True)
        first, last = np.full(len(tracks), np.inf), np.full(len(tracks), -np.inf)
        np.minimum.at(first, track, self.times[known])
        np.maximum.at(last, track, self.times[known])
        found = np.full((len(self), 2), np.nan)
        tracked = np.flatnonzero(np.isin(self.tracklets, tracks))
        places = np.searchsorted(tracks, self.tracklets[tracked])
        found[tracked] = np.stack([first[places], last[places]], axis=1)
        return found if self.spans is None else np.where(np.isnan(self.spans), found, self.spans)

    def path(self, row: int) -> Path:
        """Absolute path of the image in `row`."""
        return self.folder / self.paths[row]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the rows: equal on two machines exactly if row i is the same file name on both, for all i."""
        return hashlib.sha256("\0".join(self.paths).encode("utf-8", "surrogateescape")).hexdigest()

    def take(self, rows: np.ndarray) -> Split:
        """The split with only `rows`: (M,) ascending row numbers, or (N,) bool."""
        kept = np.arange(len(self))[rows]
        paths = tuple(self.paths[row] for row in kept)
        columns = {name: getattr(self, name) for name in ("identities", "cameras", "tracklets", "times", "spans")}
        return replace(
            self, paths=paths, **{name: column[kept] for name, column in columns.items() if column is not None}
        )


@dataclass(frozen=True, eq=False)
class ReidDataset:
    """A data set: what trains, and where somebody labelled them, what is searched for and among what."""

    name: str
    root: Path  # absolute; the inner folder, where that was found
    train: Split
    query: Split | None = None  # without junk (identity -1), like the gallery
    gallery: Split | None = None
    validation: Split | None = None  # the authors' own validation list, whose rows are part of train as well
    camera_names: Mapping[int, str] = field(default_factory=dict)  # where cameras have names rather than numbers
    protocol: RankingProtocol = "market"  # by which the set is usually scored
    division: str = ""  # how people came to train or to be searched for, where that is not the authors' doing
    left_out: Mapping[str, int] = field(default_factory=dict)  # images that cannot be read, by split (check_images)

    @property
    def description(self) -> str:
        """Name, place and, where it is known, division, for logs."""
        return f"{self.name} in {self.root}" + (f" ({self.division})" if self.division else "")

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "query": self.query, "gallery": self.gallery, "validation": self.validation}
        return {name: split for name, split in named.items() if split is not None}


@dataclass(frozen=True)
class Published:
    """The counts that a data set's authors published."""

    train: int
    query: int
    gallery: int
    train_identities: int
    test_identities: int
    cameras: int

    def compare(self, dataset: ReidDataset) -> None:
        """Warn, once, about every count that differs."""
        query, gallery = dataset.query, dataset.gallery
        assert query is not None and gallery is not None
        found = {
            "train images": (len(dataset.train), self.train),
            "query images": (len(query), self.query),
            "gallery images": (len(gallery), self.gallery),
            "train identities": (_distinct(dataset.train.identities), self.train_identities),
            "query identities": (_distinct(query.identities), self.test_identities),
            "cameras": (_distinct(dataset.train.cameras), self.cameras),
        }
        warn_of_counts(dataset.name, dataset.root, found)


def warn_of_counts(name: str, root: Path, counts: Mapping[str, tuple[int, int]]) -> None:
    """Warn, once, about every count that was found and differs from the published one: what -> (found, published)."""
    differing = [f"{n:,} instead of {right:,} {what}" for what, (n, right) in counts.items() if n != right]
    if differing:
        warnings.warn(f"{root} is not {name} as published: {', '.join(differing)}", stacklevel=3)


@dataclass(frozen=True)
class NamedImage:
    """One image before it has a row."""

    path: str
    identity: int
    camera: int
    tracklet: int = NO_TRACKLET


def labelled_split(folder: Path, images: Sequence[NamedImage]) -> Split:
    """Images in any order as a split with identities; UserError for numbers of more than 64 bits."""
    ordered = sorted(images, key=lambda image: image.path)
    for image in ordered:
        for what, number in (("identity", image.identity), ("camera", image.camera), ("tracklet", image.tracklet)):
            if abs(number) > LARGEST_NUMBER:
                raise UserError(f"{folder / image.path}: {what} {number} has more than 18 digits; renumber it")
    tracklets = np.array([image.tracklet for image in ordered], dtype=np.int64)
    return Split(
        folder=folder,
        paths=tuple(image.path for image in ordered),
        identities=np.array([image.identity for image in ordered], dtype=np.int64),
        cameras=np.array([image.camera for image in ordered], dtype=np.int64),
        tracklets=tracklets if (tracklets != NO_TRACKLET).any() else None,
    )


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Entries of a folder without what is no data (`__MACOSX`, `._0002.jpg`)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(NO_DATA):
                check_name(entry.path, entry.name)
                yield entry


def check_name(path: str | Path, name: str) -> None:
    """UserError for an image whose name holds its folders, as some programs unpack archives made on Windows."""
    if "\\" in name and is_image(name):
        raise UserError(
            f"{path}: a backslash in its name, where an archive made on Windows has a folder; unpack that again with "
            "a program that makes folders of them (unzip, bsdtar), or move the image into its folder"
        )


def is_image_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is an image by its name and no folder: a link to a file that is not there is one, too."""
    return is_image(entry.name) and not entry.is_dir()


def is_image(name: str) -> bool:
    """Whether a file name ends like an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def image_names(folder: Path) -> list[str]:
    """Names of the images that lie in `folder` itself; UserError where it is missing or holds none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; unpack the data set again, or correct data.root")
    names = [entry.name for entry in visible(folder) if is_image_file(entry)]
    if not names:
        raise UserError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}); unpack the data set again")
    return names


def existing_root(root: Path | None, title: str) -> Path:
    """`data.root` as a folder that is there."""
    if root is None:
        raise UserError(f"data.root is not set: give the folder that holds {title}, data.root=FOLDER")
    if not root.is_dir():
        found = "a file, not a folder" if root.exists() else "no such folder"
        raise UserError(f"data.root={root}: {found}; give the folder that holds {title}")
    return root.absolute()


def locate(root: Path | None, title: str, inner: Sequence[str], layouts: Sequence[Sequence[str]]) -> Path:
    """The folder that holds one of the layouts (or a part of one): `root`, or the usual folder inside it.

    inner: names of the folder into which the authors' archive unpacks, in any case. layouts: names of sub-folders.
    """
    root = existing_root(root, title)
    parts = {part for layout in layouts for part in layout}

    def holds_a_part(folder: Path) -> bool:
        return any((folder / part).is_dir() for part in parts)

    if holds_a_part(root):
        return root
    usual = {name.lower() for name in inner}
    inside = sorted(
        root / entry.name
        for entry in visible(root)
        if entry.name.lower() in usual and holds_a_part(root / entry.name)
    )
    if len(inside) > 1:
        names = " and ".join(folder.name for folder in inside)
        raise UserError(f"data.root={root} holds {names}: give one of them")
    if not inside:
        wanted = " or ".join("/, ".join(layout) + "/" for layout in layouts)
        raise UserError(
            f"data.root={root}: no {title} here; expected the folder that holds {wanted} (or {inner[0]}/ with them)"
        )
    return inside[0]


def check_disjoint(dataset: ReidDataset) -> None:
    """UserError where a person to be trained on is also searched for: scores would mean nothing."""
    assert dataset.query is not None and dataset.gallery is not None
    train = dataset.train
    assert train.identities is not None and dataset.query.identities is not None
    assert dataset.gallery.identities is not None
    tested = np.union1d(dataset.query.identities, dataset.gallery.identities)
    shared = np.intersect1d(train.identities, tested[tested > 0])
    if shared.size:
        example = train.path(int(np.flatnonzero(train.identities == shared[0])[0]))
        raise UserError(
            f"{dataset.root}: {counted(shared.size, 'identity', 'identities')} both in train "
            "and in query or gallery, first "
            f"{shared[0]} ({example}): take them out of one of the two, or renumber them"
        )


def warn_of_one_camera(dataset: ReidDataset) -> None:
    """Warn where the training images come from one known camera only."""
    cameras = np.unique(dataset.train.cameras)
    if cameras.size == 1 and cameras[0] != UNKNOWN_CAMERA:
        name = dataset.camera_names.get(int(cameras[0]), str(cameras[0]))
        warnings.warn(
            f"{dataset.train.folder}: all training images are from one camera ({name}), so nothing is learnt across "
            "cameras; an encoder for several needs images of each, with data.name=folder in a folder per camera",
            stacklevel=2,
        )


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sort key by which cam2 comes before cam10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _distinct(labels: np.ndarray | None) -> int:
    return 0 if labels is None else int(np.unique(labels).size)
