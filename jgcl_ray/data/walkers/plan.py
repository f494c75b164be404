"""Which photos a set of walkers consists of: a pure function of its arguments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jgcl_ray.data.walkers.people import Appearance, draw_people
from jgcl_ray.data.walkers.photos import Photo, Plan, Split
from jgcl_ray.data.walkers.scenes import Scene, draw_scenes
from jgcl_ray.data.walkers.tracks import follow
from jgcl_ray.meshes.gait import draw_gait

CAMERAS = 6
CAMERAS_PER_IDENTITY = (3, 4, 5)
TRAIN_SHARE = 0.6  # of the identities, where a preset does not say otherwise
DISTRACTOR_SHARE = 0.15  # of the gallery's size
PASSER_BY_SHARE, OCCLUDER_SHARE = 0.12, 0.08
OPPOSITE_CAMERAS = ((0, 1), (2, 3), (4, 5))  # whose usual directions of walking are 180 degrees apart (scenes.py)
OPPOSITE_SPREAD, OPPOSITE_MOST = 12.0, 20.0  # standard deviation and bound around those directions, degrees


def draw_plan(
    train: int,
    test: int,
    images: int,
    true_views: int,
    seed: int,
    opposite_share: float = 0.0,
    test_views: int | None = None,
    tracks: bool = False,
) -> Plan:
    """`train` + `test` identities with `images` photos each, and distractors; true views for `true_views` photos.

    opposite_share: of the training identities, seen by two cameras from opposite sides (140 degrees apart or more)
    and by no other. test_views: queries, each of another identity, that alone of all test photos have projections
    and true views, `true_views` then being of training photos; None: all photos have projections, and true views are
    of training and test photos alike. tracks: training photos are frames of walks (tracks.py); the test photos are
    those of the plan without.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(7)]
    people_rng, scene_rng, photo_rng, distractor_rng, view_rng, opposite_rng, track_rng = streams
    distractors = max(1, round(DISTRACTOR_SHARE * test))
    people = draw_people(people_rng, train) + draw_people(people_rng, test) + draw_people(people_rng, distractors)
    scenes = draw_scenes(scene_rng)
    photos: list[Photo] = []
    opposite = {
        int(person): OPPOSITE_CAMERAS[opposite_rng.integers(len(OPPOSITE_CAMERAS))]
        for person in opposite_rng.permutation(train)[: round(opposite_share * train)]
    }
    for person in range(train + test):
        is_test, sides = person >= train, opposite.get(person)
        photos += _photos_of(people, scenes, photo_rng, person, person + 1, images, is_test, sides)
    for person in range(train + test, len(people)):
        taken = _photos_of(people, scenes, distractor_rng, person, 0, images, is_test=True)
        photos += [photo for photo in taken if photo.split == "gallery"]
    photos = sorted(photos, key=lambda photo: (photo.mesh_split != "train", photo.split, photo.name))
    photos = [replace(photo, seed=seed * 1_000_003 + row) for row, photo in enumerate(photos)]
    if tracks:
        photos = follow(photos, track_rng, opposite.keys())
    chosen = _with_true_views(photos, view_rng, true_views, test_views)
    photos = [
        replace(
            photo,
            projections=test_views is None or photo.split == "train" or row in chosen,
            true_views=row in chosen,
        )
        for row, photo in enumerate(photos)
    ]
    return Plan(people, scenes, photos)


def _with_true_views(
    photos: list[Photo], rng: np.random.Generator, true_views: int, test_views: int | None
) -> set[int]:
    """Rows of the photos that are taken from all sides: of walkers whom nothing hides."""
    wanted = [
        row for row, photo in enumerate(photos) if photo.identity and photo.passer_by < 0 and not photo.occluder
    ]
    drawn = rng.permutation(wanted).tolist()
    if test_views is None:
        return set(drawn[:true_views])
    of_training = [row for row in drawn if photos[row].split == "train"]
    one_each = {photos[row].person: row for row in drawn if photos[row].split == "query"}
    return {*of_training[:true_views], *list(one_each.values())[:test_views]}


def _photos_of(
    people: list[Appearance],
    scenes: list[Scene],
    rng: np.random.Generator,
    person: int,
    identity: int,
    images: int,
    is_test: bool,
    sides: tuple[int, int] | None = None,
) -> list[Photo]:
    """A person's photos: at least two in each of the cameras passed, the first of a test camera being a query.

    sides: the only two cameras, which then see the person from their usual sides.
    """
    passed = min(int(rng.choice(CAMERAS_PER_IDENTITY)), max(images // 2, 1))
    cameras = sorted(rng.permutation(CAMERAS)[:passed].tolist())
    if sides is not None:
        cameras = list(sides)
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
                yaw=_draw_yaw(rng, scene, sides is not None),
                passer_by=int(rng.integers(len(people))) if rng.random() < PASSER_BY_SHARE else -1,
                occluder=bool(rng.random() < OCCLUDER_SHARE),
                projections=True,
                true_views=False,
                seed=0,
            )
        )
    return photos


def _draw_yaw(rng: np.random.Generator, scene: Scene, usual_side: bool) -> float:
    if not usual_side:
        return float(rng.normal(scene.yaw, scene.yaw_spread) % 360)
    return float((scene.yaw + np.clip(rng.normal(0, OPPOSITE_SPREAD), -OPPOSITE_MOST, OPPOSITE_MOST)) % 360)
