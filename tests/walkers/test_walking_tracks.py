"""Walks past a camera: who is seen when, what the tracker calls it, and that the frames show one walk."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.data.walkers import PRESETS, WalkersSize, render
from jgcl_ray.data.walkers.photos import Photo
from jgcl_ray.data.walkers.tracks import EVERY, FRAMES, SPAN, SWITCH_SHARE, TRACKS_FILE
from jgcl_ray.errors import UserError

MEDIUM = PRESETS["medium"]
SIZE = WalkersSize(train=2, test=1, images=4, true_views=1, height=64, test_views=1, tracks=True)


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return replace(MEDIUM, tracks=True).plan(seed=1).photos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracks") / "set"
    render(folder, SIZE, seed=5, workers=1)
    return folder


def by_visit(photos: list[Photo]) -> dict[int, list[Photo]]:
    """The frames of each visit: the draws of all its frames begin with one seed."""
    visits: dict[int, list[Photo]] = defaultdict(list)
    for photo in photos:
        if photo.step is not None:
            visits[photo.seed].append(photo)
    return {seed: sorted(frames, key=lambda photo: photo.step.number) for seed, frames in visits.items()}


def by_tracklet(photos: list[Photo]) -> dict[int, list[Photo]]:
    tracklets: dict[int, list[Photo]] = defaultdict(list)
    for photo in photos:
        if photo.step is not None:
            tracklets[photo.step.tracklet].append(photo)
    return {number: sorted(frames, key=lambda photo: photo.step.time) for number, frames in tracklets.items()}


def test_the_test_photos_are_those_without_tracks(photos: list[Photo]) -> None:
    def pictures(of: list[Photo]) -> list[Photo]:
        return [replace(photo, projections=False, true_views=False) for photo in of if photo.split != "train"]

    assert pictures(photos) == pictures(MEDIUM.plan(seed=1).photos)


def test_every_training_photo_is_a_frame_of_a_visit_that_begins_with_a_photo_of_the_plan_without(
    photos: list[Photo],
) -> None:
    before = {photo.seed: photo for photo in MEDIUM.plan(seed=1).photos if photo.split == "train"}
    visits = by_visit(photos)
    assert all((photo.step is not None) == (photo.split == "train") for photo in photos)
    assert len({photo.path for photo in photos}) == len(photos)
    for seed, frames in visits.items():
        first = before[seed]
        assert [frame.step.number for frame in frames] == list(range(FRAMES))
        assert len({(frame.person, frame.camera) for frame in frames}) == 1
        assert (frames[0].person, frames[0].camera, frames[0].yaw) == (first.person, first.camera, first.yaw)
        assert all(round(b.step.time - a.step.time, 6) == EVERY for a, b in pairwise(frames))
    seen = {(photo.person, photo.camera) for photo in before.values()}
    assert {(frames[0].person, frames[0].camera) for frames in visits.values()} == seen


def test_walkers_move_and_turn_a_little_but_those_of_opposite_sides_go_straight(photos: list[Photo]) -> None:
    cameras, turned = defaultdict(set), defaultdict(list)
    for frames in by_visit(photos).values():
        cameras[frames[0].person].add(frames[0].camera)
        turned[frames[0].person].append(abs((frames[-1].yaw - frames[0].yaw + 180) % 360 - 180))
        assert len({frame.gait.phase for frame in frames}) == FRAMES
        assert len({frame.gait.stride for frame in frames}) == 1
    straight = [max(turns) for person, turns in turned.items() if len(cameras[person]) == 2]
    others = [turn for person, turns in turned.items() if len(cameras[person]) > 2 for turn in turns]
    assert len(straight) == 60 and max(straight) < 1e-6
    assert 4 < np.median(others) < 20 and max(others) < 90


def test_tracklets_overlap_in_time_with_other_people_s_and_never_with_the_same_person_s(photos: list[Photo]) -> None:
    spans = defaultdict(list)
    for frames in by_visit(photos).values():
        spans[frames[0].camera].append((frames[0].step.time, frames[-1].step.time, frames[0].person))
    overlaps, visits = 0, 0
    for of_camera in spans.values():
        visits += len(of_camera)
        for one, other in combinations(of_camera, 2):
            if one[0] <= other[1] and other[0] <= one[1]:
                overlaps += 1
                assert one[2] != other[2]
    assert 2 < 2 * overlaps / visits < 8  # others in view during a visit


def test_a_tracklet_is_one_camera_s_and_a_few_change_over_to_another_person(photos: list[Photo]) -> None:
    tracklets = by_tracklet(photos)
    assert sorted(tracklets) == list(range(len(by_visit(photos))))
    switched = 0
    for frames in tracklets.values():
        assert len({frame.camera for frame in frames}) == 1
        assert frames[-1].step.time - frames[0].step.time <= 2 * SPAN
        people = [frame.person for frame in frames]
        changes = sum(a != b for a, b in pairwise(people))
        assert changes <= 1 and len(frames) >= 2
        switched += changes
    assert 0.5 * SWITCH_SHARE <= switched / len(tracklets) <= 1.5 * SWITCH_SHARE


def test_the_data_set_gives_each_training_row_its_tracklet_and_time(root: Path) -> None:
    dataset = open_dataset(DataConfig(name="walkers", root=root))
    frames = {photo.path: photo for photo in SIZE.plan(seed=5).photos if photo.step is not None}
    train = dataset.train
    assert len(train) == len(frames) and train.tracklets is not None and train.times is not None
    for row, path in enumerate(train.paths):
        step = frames[f"{train.folder.name}/{path}"].step
        assert train.tracklets[row] == step.tracklet and train.times[row] == pytest.approx(step.time)
    assert dataset.query.tracklets is None and dataset.gallery.times is None


def test_a_file_of_tracks_that_lacks_an_image_is_refused(root: Path, tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).symlink_to(root / folder)
    lines = (root / TRACKS_FILE).read_text().splitlines(keepends=True)
    for damaged in (lines[:-1], [lines[0], "x,y\n"], lines[1:]):
        (tmp_path / TRACKS_FILE).write_text("".join(damaged))
        with pytest.raises(UserError, match=TRACKS_FILE):
            open_dataset(DataConfig(name="walkers", root=tmp_path))
    (tmp_path / TRACKS_FILE).unlink()
    assert open_dataset(DataConfig(name="walkers", root=tmp_path)).train.tracklets is None


def test_frames_of_a_walk_look_more_alike_than_another_visit(root: Path) -> None:
    def picture(photo: Photo) -> np.ndarray:
        with Image.open(root / photo.path) as image:
            return np.asarray(image.convert("RGB").resize((24, 48)), float)

    visits = list(by_visit(SIZE.plan(seed=5).photos).values())
    shown = [[picture(frame) for frame in frames] for frames in visits]
    for number, frames in enumerate(shown):
        near = np.mean([np.abs(a - b).mean() for a, b in pairwise(frames)])
        far = np.mean([np.abs(frames[0] - other[0]).mean() for i, other in enumerate(shown) if i != number])
        assert 1 < near < far
