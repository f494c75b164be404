"""What a set of walkers is made of, before anything is rendered: people, scenes, and the photos to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jgcl_ray.data.walkers.people import Appearance
from jgcl_ray.data.walkers.scenes import Scene
from jgcl_ray.meshes.gait import Gait
from jgcl_ray.meshes.projection_folders import SplitName

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

Split = Literal["train", "query", "gallery"]


@dataclass(frozen=True)
class Step:
    """Which frame of a walk past a camera a photo is (tracks.py)."""

    tracklet: int  # the number that the tracker gives it
    time: float  # seconds on the camera's clock
    number: int  # of the frame in its visit, from 0
    elapsed: float  # seconds since the visit began


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
    projections: bool  # comes with mesh projections, where the set has any
    true_views: bool  # photographed from the seven other views too
    seed: int  # of the draws left to the photographer; the same for all frames of a visit
    step: Step | None = None  # None: a photo by itself

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
