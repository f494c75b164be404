"""People divided into those to train on and those to search for, where a data set's authors drew no line."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.reid_dataset import (
    NO_TRACKLET,
    NamedImage,
    RankingProtocol,
    ReidDataset,
    Split,
    labelled_split,
)
from jgcl_ray.wording import counted


@dataclass(frozen=True)
class Division:
    """A fixed rule: people in the order of SHA-256 of "NUMBER:PERSON"; the first of them train.

    No random generator is asked, so that it is the same on every machine, and who comes or goes moves few others.
    """

    train_share: float  # of all people, rounded down
    number: int  # another order for each

    @classmethod
    def of(cls, data: DataConfig) -> Division:
        """As the configuration wants it."""
        return cls(data.train_share, data.split)

    def training(self, people: Collection[int], count: int | None = None) -> frozenset[int]:
        """Who trains; count: how many, where the share does not say."""
        first = int(self.train_share * len(people)) if count is None else count
        return frozenset(sorted(people, key=self._place)[:first])

    def summary(self, train: int, test: int) -> str:
        """What the division is, for logs."""
        people = counted(train, "person", "people")
        return f"{people} to train on, {test:,} to search for: order of SHA-256, split {self.number}"

    def _place(self, person: int) -> bytes:
        return hashlib.sha256(f"{self.number}:{person}".encode()).digest()


def divided(
    name: str,
    root: Path,
    images: Sequence[NamedImage],
    training: frozenset[int],
    *,
    protocol: RankingProtocol,
    division: str,
) -> ReidDataset:
    """Images below `root` as a data set: those of `training` train, the others are searched for.

    The queries are each person's first photo, by path, in each camera; the gallery is the others, and a query that is
    the only photo of its person and camera. Without test people there is no query and no gallery.
    """
    train = [image for image in images if image.identity in training]
    test = [image for image in images if image.identity not in training]
    queries = first_of_each_camera(test)
    photos = Counter((image.identity, image.camera) for image in test)
    asked = {image.path for image in queries}
    gallery = [image for image in test if image.path not in asked or photos[image.identity, image.camera] == 1]
    return ReidDataset(
        name=name,
        root=root,
        train=labelled_split(root, train),
        query=labelled_split(root, queries) if test else None,
        gallery=labelled_split(root, gallery) if test else None,
        protocol=protocol,
        division=division,
    )


def first_of_each_camera(images: Sequence[NamedImage]) -> list[NamedImage]:
    """The first photo, by path, of each person in each camera."""
    first: dict[tuple[int, int], NamedImage] = {}
    for image in sorted(images, key=lambda image: image.path):
        first.setdefault((image.identity, image.camera), image)
    return list(first.values())


def middle_of_each_tracklet(images: Sequence[NamedImage]) -> list[NamedImage]:
    """The middle photo, by path, of each tracklet."""
    tracklets: dict[int, list[NamedImage]] = {}
    for image in sorted(images, key=lambda image: image.path):
        tracklets.setdefault(image.tracklet, []).append(image)
    return [members[len(members) // 2] for members in tracklets.values()]


def thinned(dataset: ReidDataset, per_tracklet: int | None) -> ReidDataset:
    """At most so many images of each tracklet of train and gallery, evenly spread over its paths; None: all."""
    if per_tracklet is None:
        return dataset
    gallery = dataset.gallery
    return replace(
        dataset,
        train=_thinned(dataset.train, per_tracklet),
        gallery=None if gallery is None else _thinned(gallery, per_tracklet),
    )


def _thinned(split: Split, per_tracklet: int) -> Split:
    if split.tracklets is None:
        return split
    order = np.argsort(split.tracklets, kind="stable")
    _, starts, counts = np.unique(split.tracklets[order], return_index=True, return_counts=True)
    place = np.empty(len(split), np.int64)  # of a row in its tracklet
    place[order] = np.arange(len(split)) - np.repeat(starts, counts)
    size = np.empty(len(split), np.int64)
    size[order] = np.repeat(counts, counts)
    # Of each of `per_tracklet` equal parts the first image: where place * per_tracklet / size passes a whole number.
    chosen = (place * per_tracklet) // size != ((place - 1) * per_tracklet) // size
    # What is known of a track's life must not shrink with its images.
    return replace(split, spans=split.tracklet_spans).take(
        chosen | (size <= per_tracklet) | (split.tracklets == NO_TRACKLET)
    )
