"""Scores without labels: against literal versions, and on encoders that are good, noisy and collapsed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jgcl_ray.batches import Tracks
from jgcl_ray.evaluation.unlabelled import (
    disturbed,
    effective_rank,
    neighbour_stability,
    recognition,
    split_half,
    tracklet_ends,
)


def normalised(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.fixture
def people() -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Features of 30 people, six photos each in three cameras."""
    random = np.random.default_rng(0)
    features = np.repeat(random.standard_normal((30, 16)), 6, axis=0)
    return features, np.tile(np.arange(3), 60), random


def test_stability_is_that_of_a_literal_version(people) -> None:
    centres, cameras, random = people
    features = normalised(centres + 0.8 * random.standard_normal(centres.shape))
    rows = np.arange(0, 180, 7)
    moved = normalised(features[rows] + 0.3 * random.standard_normal((len(rows), 16)))
    common = 0
    for row, query in zip(rows, moved, strict=True):
        others = [other for other in range(180) if cameras[other] != cameras[row]]
        own = sorted(others, key=lambda other: -float(features[other] @ features[row]))[:5]
        its = sorted(others, key=lambda other: -float(features[other] @ query))[:5]
        common += len({*own} & {*its})
    assert neighbour_stability(features, moved, rows, cameras) == pytest.approx(common / (5 * len(rows)))
    ranks = [
        1 + sum(features[other] @ q > features[row] @ q for other in range(180))
        for row, q in zip(rows, moved, strict=True)
    ]
    assert recognition(features, moved, rows) == pytest.approx(np.mean([1 / rank for rank in ranks]))


def test_one_camera_or_none_known_counts_all_other_images(people) -> None:
    centres, _, random = people
    features = normalised(centres + 0.5 * random.standard_normal(centres.shape))
    rows = np.arange(180)
    unknown = neighbour_stability(features, features, rows, np.full(180, -1))
    assert unknown == neighbour_stability(features, features, rows, np.zeros(180, np.int64)) == 1


def test_fewer_images_than_neighbours() -> None:
    features = normalised(np.eye(3) + 0.1)
    assert neighbour_stability(features, features, np.arange(3), np.array([0, 1, 1])) == 1


def test_an_encoder_that_loses_the_person_scores_less(people) -> None:
    centres, cameras, random = people
    rows = np.arange(180)

    def scores(noise: float) -> tuple[float, float]:
        features = normalised(centres + 0.2 * random.standard_normal(centres.shape))
        moved = normalised(centres + noise * random.standard_normal(centres.shape))
        return neighbour_stability(features, moved, rows, cameras), recognition(features, moved, rows)

    good, bad = scores(0.2), scores(3.0)
    assert good[0] > bad[0] and good[1] > bad[1]


def test_effective_rank_counts_directions() -> None:
    random = np.random.default_rng(0)
    wide = random.standard_normal((500, 8))
    assert effective_rank(wide) == pytest.approx(8, rel=0.02)
    assert effective_rank(wide * [1, 1, *[1e-6] * 6]) == pytest.approx(2, rel=0.02)


def test_disturbed_images_differ_by_the_draw_alone() -> None:
    image = np.full((96, 48, 3), 100, np.uint8)
    image[40:60] = 200
    one, again, other = (disturbed(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.dtype == np.uint8 and one.shape == image.shape
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert (image[0] == 100).all()
    covered = (other == 114).all(2).mean()
    assert 0.01 < covered < 0.2


def test_ends_are_the_first_and_last_moment_of_tracklets_of_two_images_or_more() -> None:
    tracklets = np.array([7, 3, 7, -1, 3, 7, 9, -1])
    times = np.array([2.0, 5.0, 1.0, 0.0, 4.0, 3.0, 0.0, 9.0])
    ends = tracklet_ends(Tracks(tracklets, times))
    assert ends is not None and ends.tolist() == [[4, 1], [2, 5]]
    untimed = tracklet_ends(Tracks(tracklets))
    assert untimed is not None and untimed.tolist() == [[1, 4], [0, 5]]
    assert tracklet_ends(Tracks(np.array([1, 1, 2, -1]))) is None and tracklet_ends(None) is None


def test_tracklets_are_found_as_by_a_literal_version_and_no_better_by_a_collapsed_encoder() -> None:
    random = np.random.default_rng(2)
    walks = np.repeat(random.standard_normal((40, 12)), 3, axis=0)
    ends = tracklet_ends(Tracks(np.repeat(np.arange(40), 3)))
    assert ends is not None
    scores = []
    for noise in (0.2, 1.5):
        features = normalised(walks + noise * random.standard_normal(walks.shape)).astype(np.float32)
        similarity = features[ends[:, 0]] @ features[ends[:, 1]].T
        ranks = 1 + (similarity > np.diag(similarity)[:, None]).sum(1)
        found = split_half(torch.from_numpy(features), ends)
        assert (found.mAP, found.rank1) == pytest.approx(((1 / ranks).mean(), (ranks == 1).mean()))
        scores.append(found.mAP)
    assert scores[0] > 0.95 > 0.5 > scores[1]
    noise = normalised(random.standard_normal(walks.shape)).astype(np.float32)
    assert split_half(torch.from_numpy(noise), ends).mAP < 0.25
