"""Who is photographed where: the properties that make the walkers a benchmark."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from dataclasses import fields

import numpy as np
import pytest

from jgcl_ray.data.walkers.people import LOOK_ALIKE_SHARE, Appearance, draw_people
from jgcl_ray.data.walkers.photos import Photo
from jgcl_ray.data.walkers.plan import CAMERAS, draw_plan
from jgcl_ray.data.walkers.rendering import PRESETS

PLAN = draw_plan(train=60, test=40, images=10, true_views=50, seed=3)


def test_same_arguments_same_plan() -> None:
    again = draw_plan(train=60, test=40, images=10, true_views=50, seed=3)
    assert again.photos == PLAN.photos and again.people == PLAN.people
    assert draw_plan(train=60, test=40, images=10, true_views=50, seed=4).photos != PLAN.photos


def test_train_and_test_are_disjoint_and_names_unique() -> None:
    people = defaultdict(set)
    for photo in PLAN.photos:
        people[photo.mesh_split].add(photo.person)
    assert not people["train"] & people["test"]
    assert len(people["train"]) == 60
    assert len({photo.path for photo in PLAN.photos}) == len(PLAN.photos)


def test_each_identity_has_its_images_in_three_to_five_cameras_twice_each() -> None:
    seen: dict[int, list[int]] = defaultdict(list)
    for photo in PLAN.photos:
        if photo.identity:
            seen[photo.identity].append(photo.camera)
            assert photo.name.startswith(f"{photo.identity:04d}_c{photo.camera}s1_")
    assert sorted(seen) == list(range(1, 101))
    for cameras in seen.values():
        assert len(cameras) == 10
        assert 3 <= len(set(cameras)) <= 5
        assert min(np.bincount(cameras)[np.unique(cameras)]) >= 2


def test_every_query_has_a_match_under_another_camera_and_there_are_distractors() -> None:
    gallery = {(photo.identity, photo.camera) for photo in PLAN.photos if photo.split == "gallery"}
    queries = [photo for photo in PLAN.photos if photo.split == "query"]
    assert len(queries) >= 3 * 40
    for query in queries:
        assert any(identity == query.identity and camera != query.camera for identity, camera in gallery)
    assert any(identity == 0 for identity, _ in gallery)


def test_cameras_see_different_sides() -> None:
    """Mean direction of walking, camera by camera: fronts in the first, backs in the second."""
    mean = {}
    for camera in range(1, CAMERAS + 1):
        yaw = np.radians([photo.yaw for photo in PLAN.photos if photo.camera == camera])
        assert ((yaw >= 0) & (yaw < 2 * np.pi)).all()
        mean[camera] = np.exp(1j * yaw).mean()
    assert mean[1].real > 0.6 and mean[2].real < -0.6
    assert mean[3].imag > 0.6 and mean[4].imag < -0.6


def test_true_views_only_of_unobstructed_walkers() -> None:
    chosen = [photo for photo in PLAN.photos if photo.true_views]
    assert len(chosen) == 50
    assert all(photo.passer_by < 0 and not photo.occluder and photo.identity for photo in chosen)


def test_presets_of_before_are_drawn_as_before() -> None:
    """Caches are keyed by preset and seed: names are made of draws from the stream that all else comes from."""
    names = ",".join(photo.path for photo in PRESETS["tiny"].plan(seed=1).photos)
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "fa6d0aa448e82c69"
    assert PRESETS["demo"].made_of(1) == {
        "revision": 1, "seed": 1, "train": 60, "test": 40, "images": 10, "true_views": 240, "height": 128
    }  # fmt: skip


class TestMedium:
    @pytest.fixture(scope="class")
    def photos(self) -> list[Photo]:
        return PRESETS["medium"].plan(seed=1).photos

    def test_a_share_of_the_training_people_is_seen_from_opposite_sides_by_two_cameras_only(
        self, photos: list[Photo]
    ) -> None:
        yaws: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for photo in photos:
            if photo.split == "train":
                yaws[photo.identity][photo.camera].append(photo.yaw)
        apart = []
        for cameras in (cameras for cameras in yaws.values() if len(cameras) == 2):
            one, other = cameras.values()
            assert len(one) == len(other) == 4
            apart.append(min(abs((a - b + 180) % 360 - 180) for a in one for b in other))
        assert len(yaws) == 200 and len(apart) == 60
        assert min(apart) >= 140

    def test_test_photos_carry_what_scores_need(self, photos: list[Photo]) -> None:
        test = [photo for photo in photos if photo.split != "train"]
        assert len({photo.identity for photo in test if photo.identity}) == 300
        drawn = [photo for photo in test if photo.projections]
        assert drawn == [photo for photo in test if photo.true_views]
        assert len({photo.identity for photo in drawn}) == len(drawn) == 40
        assert {photo.split for photo in drawn} == {"query"}

    def test_training_photos_keep_projections_and_some_true_views(self, photos: list[Photo]) -> None:
        train = [photo for photo in photos if photo.split == "train"]
        assert all(photo.projections for photo in train)
        assert sum(photo.true_views for photo in train) == 240


def test_look_alikes_share_all_but_one_attribute() -> None:
    people = draw_people(np.random.default_rng(0), 2000)
    alike = 0
    for first, second in itertools.pairwise(people):
        if first.shape == second.shape:  # drawn from a continuum: equal only among look-alikes
            alike += 1
            assert first != second
    assert alike > 0.5 * LOOK_ALIKE_SHARE * len(people)
    base = people[0]
    assert {field.name for field in fields(Appearance)} >= {"shape", "upper", "lower", "hair", "bag"}
    assert sum(person == base for person in people) == 1
