"""Who is photographed where: the properties that make the walkers a benchmark."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import fields

import numpy as np

from jgcl_ray.data.walkers.people import LOOK_ALIKE_SHARE, Appearance, draw_people
from jgcl_ray.data.walkers.plan import CAMERAS, draw_plan

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
