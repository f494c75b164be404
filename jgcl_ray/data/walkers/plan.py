"""Which photos a set of walkers consists of: a pure function of its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jgcl_ray.data.walkers.people import Appearance, draw_people
from jgcl_ray.data.walkers.scenes import Scene, draw_scenes
from jgcl_ray.meshes.gait import Gait, draw_gait
from jgcl_ray.meshes.projection_folders import SplitName

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

CAMERAS = 6
CAMERAS_PER_IDENTITY = (3, 4, 5)
TRAIN_SHARE = 0.6  # of the identities, where a preset does not say otherwise
DISTRACTOR_SHARE = 0.15  # of the gallery's size
PASSER_BY_SHARE, OCCLUDER_SHARE = 0.12, 0.08

Split = Literal["train", "query", "gallery"]


@dataclass(frozen=True)
class Photo:
    """One photo to take."""

    name: str  # Market-1501's file name: identity, camera, frame
    split: Split
    identity: int  # 0 for distractors
    person: int  # row of Plan.people
    camera: int  # from 1
    gait: Gait
    yaw: float  # degrees in [0, 360)
    passer_by: int  # row of Plan.people, -1 for nobody
    occluder: bool
    true_views: bool  # photographed from the seven other views too
    seed: int  # of the draws left to the photographer

    @property
    def path(self) -> str:
        """Relative to the set's folder."""
        return f"{FOLDERS[self.split]}/{self.name}"

    @property
    def mesh_split(self) -> SplitName:
        """Folder of the projections: `train` or `test`."""
        return "train" if self.split == "train" else "test"


@dataclass(frozen=True)
class Plan:
    """A set of walkers before anything is rendered."""

    people: list[Appearance]
    scenes: list[Scene]
    photos: list[Photo]


def draw_plan(train: int, test: int, images: int, true_views: int, seed: int) -> Plan:
    """`train` + `test` identities with `images` photos each, and distractors; true views for `true_views` photos."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(5)]
    people_rng, scene_rng, photo_rng, distractor_rng, view_rng = streams
    distractors = max(1, round(DISTRACTOR_SHARE * test))
    people = draw_people(people_rng, train) + draw_people(people_rng, test) + draw_people(people_rng, distractors)
    scenes = draw_scenes(scene_rng)
    photos: list[Photo] = []
    for person in range(train + test):
        photos += _photos_of(people, scenes, photo_rng, person, person + 1, images, is_test=person >= train)
    for person in range(train + test, len(people)):
        taken = _photos_of(people, scenes, distractor_rng, person, 0, images, is_test=True)
        photos += [photo for photo in taken if photo.split == "gallery"]
    photos = sorted(photos, key=lambda photo: (photo.mesh_split != "train", photo.split, photo.name))
    wanted = [
        row for row, photo in enumerate(photos) if photo.identity and photo.passer_by < 0 and not photo.occluder
    ]
    chosen = set(view_rng.permutation(wanted)[:true_views].tolist())
    photos = [
        Photo(**{**vars(photo), "true_views": row in chosen, "seed": seed * 1_000_003 + row})
        for row, photo in enumerate(photos)
    ]
    return Plan(people, scenes, photos)


def _photos_of(
    people: list[Appearance],
    scenes: list[Scene],
    rng: np.random.Generator,
    person: int,
    identity: int,
    images: int,
    is_test: bool,
) -> list[Photo]:
    """A person's photos: at least two in each of the cameras passed, the first of a test camera being a query."""
    passed = min(int(rng.choice(CAMERAS_PER_IDENTITY)), max(images // 2, 1))
    cameras = sorted(rng.permutation(CAMERAS)[:passed].tolist())
    photos = []
    for order, camera in enumerate(np.resize(cameras, images)):
        scene = scenes[camera]
        split: Split = "train"
        if is_test:
            split = "query" if order < passed and identity else "gallery"
        frame = int(rng.integers(1, 100_000))
        # A distractor's name has no identity to tell it from another's, so its frame carries the person.
        frame = frame if identity else person * 100 + order
        photos.append(
            Photo(
                name=f"{identity:04d}_c{camera + 1}s1_{frame:06d}_{order:02d}.jpg",
                split=split,
                identity=identity,
                person=person,
                camera=int(camera) + 1,
                gait=draw_gait(rng, people[person].arms),
                yaw=float(rng.normal(scene.yaw, scene.yaw_spread) % 360),
                passer_by=int(rng.integers(len(people))) if rng.random() < PASSER_BY_SHARE else -1,
                occluder=bool(rng.random() < OCCLUDER_SHARE),
                true_views=False,
                seed=0,
            )
        )
    return photos
