from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from jgcl_ray.batches import PseudoLabels
from jgcl_ray.pseudo_labels.quality import measure


def labelling(labels: list[int]) -> PseudoLabels:
    array = np.array(labels)
    return PseudoLabels(array, 0.4, int(array.max(initial=-1)) + 1, int((array < 0).sum()))


def test_all_that_is_known_is_measured() -> None:
    labels = labelling([0, 0, 0, 0, 1, 1, 1, 2, -1, -1])
    identities = np.array([7, 7, 7, 3, 3, 3, 3, -1, 7, 7])
    cameras = np.array([0, 1, 0, 0, 2, 2, 2, 4, 0, 1])
    previous = np.array([1, 1, 1, 1, 0, 0, 0, -1, 0, 0])
    quality = measure(labels, previous, identities, cameras)
    assert (quality.num_clusters, quality.num_outliers, quality.eps) == (3, 2, 0.4)
    assert quality.size_histogram == {1: 1, 2: 1, 4: 1}
    assert quality.largest_share == 0.4
    assert quality.single_camera_share == pytest.approx(2 / 3)
    assert quality.nmi_previous == pytest.approx(1)
    assert quality.nmi == pytest.approx(normalized_mutual_info_score(identities[:7], labels.labels[:7]))
    assert quality.ari == pytest.approx(adjusted_rand_score(identities[:7], labels.labels[:7]))
    assert quality.purity == pytest.approx(6 / 7)
    assert quality.metrics()["purity"] == quality.purity


def test_what_is_unknown_is_left_out() -> None:
    metrics = measure(labelling([0, 0, 1])).metrics()
    sizes = {"clusters_of_1_to_1", "clusters_of_2_to_3"}
    assert set(metrics) == {"num_clusters", "num_outliers", "eps", "recall", "largest_share"} | sizes


def test_no_cluster_is_measured_too() -> None:
    quality = measure(labelling([-1, -1]), np.array([0, 0]), np.array([1, 2]), np.array([0, 1]))
    assert quality.size_histogram == {}
    assert (quality.nmi, quality.purity, quality.single_camera_share) == (None, None, None)
    assert measure(PseudoLabels(np.array([0]), float("nan"), 1, 0)).metrics().get("eps") is None
