"""Cut-outs: what they hold, and that rendering them goes on where it stopped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from jgcl_ray.estimator_training import cutouts as module
from jgcl_ray.estimator_training.cutouts import (
    CUTOUTS,
    HEIGHT,
    SURFACE_STEP,
    WIDTH,
    Cutouts,
    ensure_cutouts,
    render_shard,
    surface_codes,
    surface_places,
)


def test_walkers_fill_their_cut_outs(cutouts: Cutouts) -> None:
    assert len(cutouts) == 4 * CUTOUTS and cutouts.layers.shape == (4 * CUTOUTS, 5, HEIGHT, WIDTH)
    colour, alpha, mask = cutouts.layers[:, :3], cutouts.layers[:, 3], cutouts.layers[:, 4]
    assert (colour.max(axis=1) <= alpha).all()  # premultiplied
    dressed, bare = alpha > 127, mask > 127
    assert (bare & dressed).sum() > 0.97 * bare.sum() and dressed.sum() > bare.sum()
    left, top, right, bottom = cutouts.box.T
    assert ((bottom - top > HEIGHT - 10) | (right - left > WIDTH - 10)).all()
    for picture, box in zip(dressed, cutouts.box, strict=True):
        rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
        assert np.abs(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - box).max() < 2
    assert (np.abs(cutouts.yaw) <= math.pi).all() and np.degrees(cutouts.pitch).min() > -5


def test_joints_lie_in_the_body(cutouts: Cutouts) -> None:
    for mask, joints in zip(cutouts.layers[:, 4], cutouts.joints, strict=True):
        x, y = joints.astype(int).T
        around = np.pad(mask > 127, 1)
        near = np.any([around[y + dy, x + dx] for dy in range(3) for dx in range(3)], axis=0)
        assert near.mean() > 0.9


def test_the_same_arguments_render_the_same(cutouts: Cutouts) -> None:
    again = render_shard(seed=3, number=0, figures=1)
    np.testing.assert_array_equal(again.layers, render_shard(seed=3, number=0, figures=1).layers)
    other = render_shard(seed=3, number=1, figures=1)
    assert not np.array_equal(again.yaw, other.yaw)


def test_rendering_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "FIGURES", 1)
    rendered: list[int] = []

    def render(seed: int, number: int) -> Cutouts:
        rendered.append(number)
        if len(rendered) == 2:
            raise KeyboardInterrupt
        return render_shard(seed, number, 1)

    monkeypatch.setattr(module, "render_shard", render)
    with pytest.raises(KeyboardInterrupt):
        ensure_cutouts(2, seed=5, workers=0)
    found = ensure_cutouts(2, seed=5, workers=0)
    assert rendered == [0, 1, 1] and len(found) == 2 * CUTOUTS
    ensure_cutouts(2, seed=5, workers=0)
    assert rendered == [0, 1, 1]


def test_people_of_the_street_stand_in_two_poses_and_in_folds_of_their_own() -> None:
    street = render_shard(seed=3, number=0, figures=1)
    assert len(street) == CUTOUTS == 8
    np.testing.assert_array_equal(street.pose[0], street.pose[3])
    assert not np.array_equal(street.pose[3], street.pose[4])
    np.testing.assert_array_equal(street.phenotypes[0], street.phenotypes[7])


def test_pixels_know_which_point_of_the_body_they_see(cutouts: Cutouts) -> None:
    places = surface_places(cutouts.surface)
    assert places.shape == (len(cutouts), 3, HEIGHT, WIDTH)
    inside = ~np.isnan(places[:, 0])
    np.testing.assert_array_equal(inside, cutouts.layers[:, 4] > 127)
    head, feet = (np.nanmax(places[:, 2], axis=(1, 2)), np.nanmin(places[:, 2], axis=(1, 2)))
    assert (head > 0.6).all() and (feet < -0.75).all()
    facing = np.abs(np.degrees(cutouts.yaw)) < 60  # the reference faces -y
    behind = np.abs(np.degrees(cutouts.yaw)) > 120
    depth = np.nanmean(places[:, 1], axis=(1, 2))
    assert facing.any() and behind.any() and depth[facing].max() < depth[behind].min()


def test_points_are_coded_to_half_a_step() -> None:
    places = np.array([[np.nan, -0.94, 0.0, 0.0037, 0.8147]], np.float32)
    again = surface_places(surface_codes(places))
    assert np.isnan(again[0, 0]) and np.abs(again - places)[0, 1:].max() <= 0.5001 * SURFACE_STEP
