"""CA-Jaccard against its definition in sets; entropy of a cluster's cameras."""

from __future__ import annotations

import dense
import numpy as np
import pytest

from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels import camera_aware
from jgcl_ray.pseudo_labels.clustering import pseudo_labels
from jgcl_ray.pseudo_labels.distances import jaccard_distance


@pytest.mark.parametrize("cameras", [1, 2, 5])
def test_equals_the_definition(cameras: int) -> None:
    features, _ = dense.clustered(120, 16, 10, 0.6, cameras)
    seen_by = np.random.default_rng(cameras).integers(0, cameras, 120) * 3 + 1
    config = PseudoLabelsConfig(k1_intra=4, k1_inter=9, k2_intra=2, k2_inter=3)
    order = dense.rank(features, 120)
    intra = [[j for j in order[i] if seen_by[j] == seen_by[i]][:5] for i in range(120)]
    inter = [[j for j in order[i] if seen_by[j] != seen_by[i]][:9] for i in range(120)]
    sets = [{j for near in (intra, inter) for j in near[i] if i in near[j]} for i in range(120)]
    averaged = [intra[i][:2] + inter[i][:3] for i in range(120)]
    expected = dense.jaccard_of_sets(features, sets, averaged)
    np.fill_diagonal(expected, 0)
    found = camera_aware.encode(features, seen_by, config).within(1.0)
    np.testing.assert_allclose(dense.filled(found), expected, atol=1e-5)


def test_joins_what_the_camera_keeps_apart() -> None:
    random = np.random.default_rng(0)
    people, offsets = random.standard_normal((10, 32)), 1.4 * random.standard_normal((3, 32))
    identities, cameras = np.repeat(np.arange(10), 18), np.tile(np.repeat(np.arange(3), 6), 10)
    features = dense.unit(people[identities] + offsets[cameras] + 0.2 * random.standard_normal((180, 32)))
    same_person, same_camera = identities[:, None] == identities, cameras[:, None] == cameras
    plain = dense.filled(jaccard_distance(features, 20, 6))
    aware = dense.filled(camera_aware.encode(features, cameras, PseudoLabelsConfig()).within(1.0))
    assert plain[same_person & ~same_camera].mean() > plain[~same_person & same_camera].mean()
    assert aware[same_person & ~same_camera].mean() < 0.5 < 0.9 < aware[~same_person & same_camera].mean()


def test_entropy_of_cameras() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1, 2, -1])
    cameras = np.array([5, 5, 2, 5, 2, 5, 9, 9])
    np.testing.assert_allclose(camera_aware.camera_entropy(labels, cameras), [0, np.log(2), 0], atol=1e-12)
    np.testing.assert_array_equal(camera_aware.drop_clusters(labels, cameras), [-1, -1, 0, 0, 0, 0, -1, -1])
    weights = camera_aware.entropy_weights(labels, cameras)
    np.testing.assert_allclose(weights, np.array([0, 0, 1, 1, 1, 1, 0, 0]) * np.log(2) / np.log(3), rtol=1e-6)
    np.testing.assert_array_equal(camera_aware.entropy_weights(labels, np.zeros(8, int)), [1] * 7 + [0])
    assert camera_aware.camera_entropy(np.full(3, -1), np.arange(3)).size == 0
    np.testing.assert_array_equal(camera_aware.drop_clusters(np.full(3, -1), np.arange(3)), [-1] * 3)


def test_single_camera_clusters_are_dropped_or_weighed() -> None:
    features, identities = dense.clustered(120, 24, 6, 0.2, 1)
    cameras = np.where(identities < 2, 0, np.arange(120) % 3)
    kept, dropped, weighed = (
        pseudo_labels(features, PseudoLabelsConfig(k1=15, eps=0.5, single_camera=choice), cameras)
        for choice in ("keep", "drop", "weigh")
    )
    assert (kept.num_clusters, dropped.num_clusters) == (6, 4)
    assert dropped.num_outliers == kept.num_outliers + (identities < 2).sum()
    np.testing.assert_array_equal(weighed.labels, kept.labels)
    assert kept.weights is None
    assert (weighed.weights[identities < 2] == 0).all()
    assert (weighed.weights[identities >= 2] > 0.9).all()


@pytest.mark.parametrize("cameras", [np.zeros(4, int), np.zeros(30)])
def test_cameras_of_another_kind_are_named(cameras: np.ndarray) -> None:
    features, _ = dense.clustered(30, 8, 3, 0.3, 0)
    with pytest.raises(UserError, match="one integer for each of 30 images"):
        pseudo_labels(features, PseudoLabelsConfig(distance="camera_aware_jaccard"), cameras)
