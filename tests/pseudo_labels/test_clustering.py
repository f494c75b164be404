"""eps, DBSCAN and HDBSCAN on the sparse graph against scikit-learn on dense matrices; what cannot be clustered."""

from __future__ import annotations

from pathlib import Path

import dense
import numpy as np
import pytest
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from jgcl_ray.config import PseudoLabelsConfig, load_config
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels.clustering import METHODS, advice, dbscan_labels, eps_by_rho, pseudo_labels
from jgcl_ray.pseudo_labels.distances import jaccard_distance
from jgcl_ray.wording import counted

AUTHORS = Path(__file__).parents[1] / "data" / "clustering.npz"


@pytest.mark.parametrize("rho", ["0.002", "0.01"])
@pytest.mark.parametrize("k1", [20, 30])
def test_authors_eps_and_labels(k1: int, rho: str) -> None:
    authors = np.load(AUTHORS)
    found = dbscan_labels(authors["features"], k1, 6, float(rho))
    assert found.eps == pytest.approx(float(authors[f"eps_{k1}_{rho}"]), rel=1e-5)
    assert found.labels.dtype == np.int64
    np.testing.assert_array_equal(found.labels, authors[f"labels_{k1}_{rho}"])
    assert (found.num_clusters, found.num_outliers) == (found.labels.max() + 1, (found.labels < 0).sum())


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # cpu:0: torch operations, as on a GPU
@pytest.mark.parametrize("seed", range(6))
def test_eps_and_labels_of_the_dense_way(seed: int, device: str) -> None:
    random = np.random.default_rng(seed)
    rows, k1, rho = (
        int(random.integers(60, 500)),
        int(random.integers(4, 31)),
        float(random.choice([0.002, 0.01, 0.05])),
    )
    min_samples = int(random.integers(2, 6))
    features, _ = dense.clustered(rows, 24, rows // 12 + 1, float(random.uniform(0.3, 1)), seed)
    features[: rows // 10] = features[rows // 10 : rows // 10 * 2]  # distances of 0 among the rest
    distances = dense.jaccard(features, k1, 4)
    eps = dense.eps(distances, rho)
    config = PseudoLabelsConfig(k1=k1, k2=4, rho=rho, min_samples=min_samples)
    found = pseudo_labels(features, config, device=device)
    assert found.eps == pytest.approx(eps, abs=1e-6)
    np.testing.assert_array_equal(found.labels, dense.dbscan(distances, eps, min_samples))


@pytest.mark.parametrize("rho", [1e-9, 0.003, 0.1, 0.8, 1.0])
def test_absent_pairs_count_as_one_in_eps(rho: float) -> None:
    features, _ = dense.clustered(120, 16, 12, 0.5, 3)
    sparse = jaccard_distance(features, 10, 4)
    assert eps_by_rho(sparse, rho) == pytest.approx(dense.eps(dense.filled(sparse), rho), rel=1e-6)
    config = PseudoLabelsConfig(k1=10, k2=4, rho=rho)
    assert pseudo_labels(features, config).eps == pytest.approx(dense.eps(dense.filled(sparse), rho), rel=1e-6)


def test_fixed_eps() -> None:
    features, _ = dense.clustered(200, 16, 15, 0.6, 7)
    found = pseudo_labels(features, PseudoLabelsConfig(k1=15, eps=0.55))
    assert found.eps == 0.55
    np.testing.assert_array_equal(found.labels, dense.dbscan(dense.jaccard(features, 15, 6), 0.55, 4))


@pytest.mark.parametrize("noise", [0.3, 0.6])
def test_hdbscan_equals_the_dense_one(noise: float) -> None:
    features, identities = dense.clustered(240, 24, 15, noise, 5)
    distances = dense.filled(jaccard_distance(features, 15, 4)).clip(1e-6)
    np.fill_diagonal(distances, 0)
    expected = HDBSCAN(min_cluster_size=5, metric="precomputed", copy=True).fit(distances).labels_
    found = pseudo_labels(features, PseudoLabelsConfig(method="hdbscan", k1=15, k2=4, min_samples=5))
    assert np.isnan(found.eps)
    assert adjusted_rand_score(expected, found.labels) == pytest.approx(1, abs=0.02)
    assert adjusted_rand_score(identities, found.labels) > 0.8


def test_duplicates_alone_make_a_cluster_of_zero_distances() -> None:
    features = np.repeat(np.eye(3, 8, dtype=np.float32), 5, axis=0)
    found = pseudo_labels(features, PseudoLabelsConfig(k1=5, k2=2, eps=0.5))
    np.testing.assert_array_equal(found.labels, np.repeat([0, 1, 2], 5))
    one = dbscan_labels(features[:5], 5, 2)
    assert (one.num_clusters, one.num_outliers) == (1, 0)
    assert 0 < one.eps <= 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_fewer_rows_than_k1(rows: int, method: str) -> None:
    features = dense.unit(np.random.default_rng(rows).standard_normal((rows, 4)))
    config = PseudoLabelsConfig(method=method)
    found = pseudo_labels(features, config)
    assert found.labels.shape == (rows,)
    assert found.num_outliers == (found.labels < 0).sum()
    words = "= 30; lower it" if rows >= config.min_samples else f"{counted(rows, 'image')}, and a cluster takes"
    assert words in (advice(found, config) or "")


@pytest.mark.parametrize(
    ("change", "clusters", "words"),
    [
        ({"eps": 1e-5}, 0, "raise pseudo_labels.eps"),
        ({"rho": 1e-7}, 0, "raise pseudo_labels.rho"),
        ({"eps": 0.97, "k1": 60}, 1, "lower pseudo_labels.eps or pseudo_labels.k1"),
        ({"rho": 0.9}, 8, "lower pseudo_labels.rho, 0.16"),
        ({"method": "hdbscan", "min_samples": 90}, 0, "lower pseudo_labels.min_samples"),
        ({"eps": 0.5}, 8, None),
    ],
)
def test_useless_labellings_are_results_with_advice(change: dict, clusters: int, words: str | None) -> None:
    features, _ = dense.clustered(160, 32, 8, 0.3, 11)
    config = PseudoLabelsConfig(**{"k1": 20, **change})
    found = pseudo_labels(features, config)
    said = advice(found, config)
    assert found.num_clusters == clusters
    assert (said is None) if words is None else (words in (said or ""))


def test_eps_of_one_takes_everything() -> None:
    features, _ = dense.clustered(30, 8, 3, 0.5, 0)
    found = dbscan_labels(features, 1, 1)  # nobody shares a neighbour: all distances are 1
    assert found.eps == 1
    np.testing.assert_array_equal(found.labels, dense.dbscan(dense.jaccard(features, 1, 1), 1.0, 4))


def test_bad_input_is_named() -> None:
    features, _ = dense.clustered(30, 8, 3, 0.3, 0)
    with pytest.raises(UserError, match="need the camera"):
        pseudo_labels(features, PseudoLabelsConfig(single_camera="drop"))
    features[4, 2] = np.nan
    with pytest.raises(UserError, match="row 4 is not finite"):
        dbscan_labels(features)


def test_async_is_a_name_of_background() -> None:
    assert load_config(None, ["pseudo_labels.async=true"]).pseudo_labels.background
    assert not load_config(None, ["pseudo_labels.background=false"]).pseudo_labels.background
    with pytest.raises(UserError, match="k2 = 31"):
        load_config(None, ["pseudo_labels.k2=31"])
