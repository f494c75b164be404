"""Pseudo labels by the definitions, with N x N matrices and loops: slow, and easy to believe."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from sklearn.cluster import DBSCAN


def clustered(rows: int, width: int, people: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around `people` directions: features (rows, width) float32, identities (rows,)."""
    random = np.random.default_rng(seed)
    identities = random.integers(0, people, rows)
    features = random.standard_normal((people, width))[identities] + noise * random.standard_normal((rows, width))
    return unit(features), identities


def unit(features: np.ndarray) -> np.ndarray:
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def squared_distances(features: np.ndarray) -> np.ndarray:
    return cdist(features.astype(np.float64), features.astype(np.float64), "sqeuclidean")


def rank(features: np.ndarray, k: int) -> np.ndarray:
    distances = squared_distances(features)
    np.fill_diagonal(distances, -1)  # the row itself before its duplicates
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def jaccard(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    num_rows = len(features)
    nearest = rank(features, k1)
    half = nearest[:, : int(np.around(k1 / 2)) + 1]
    near = [{int(j) for j in nearest[i] if i in nearest[j]} for i in range(num_rows)]
    nearer = [{int(j) for j in half[i] if i in half[j]} for i in range(num_rows)]
    expanded = [
        near[i].union(*(nearer[c] for c in near[i] if len(nearer[c] & near[i]) > 2 / 3 * len(nearer[c])))
        for i in range(num_rows)
    ]
    return jaccard_of_sets(features, expanded, [list(row) for row in nearest[:, :k2]])


def jaccard_of_sets(features: np.ndarray, sets: list[set[int]], averaged: list[list[int]]) -> np.ndarray:
    num_rows, distances = len(features), squared_distances(features)
    weights = np.zeros((num_rows, num_rows))
    for i, members in enumerate(sets):
        columns = sorted(members)
        weights[i, columns] = np.exp(-distances[i, columns])
        weights[i] /= weights[i].sum()
    weights = np.stack([weights[rows].mean(axis=0) for rows in averaged])
    overlap = np.stack([np.minimum(row, weights).sum(axis=1) for row in weights])
    return np.maximum(1 - overlap / (2 - overlap), 0)


def eps(distances: np.ndarray, rho: float) -> float:
    upper = distances[np.triu_indices(len(distances), 1)]
    positive = np.sort(upper[upper >= 1e-6])
    return float(positive[: max(int(np.round(rho * positive.size)), 1)].mean())


def dbscan(distances: np.ndarray, radius: float, min_samples: int) -> np.ndarray:
    distances = distances.copy()
    np.fill_diagonal(distances, 0)
    return DBSCAN(eps=radius, min_samples=min_samples, metric="precomputed").fit(distances).labels_


def filled(sparse: csr_array) -> np.ndarray:
    """A sparse matrix of distances as a dense one: absent pairs 1, the diagonal 0, stored zeros kept."""
    rows = np.repeat(np.arange(sparse.shape[0]), np.diff(sparse.indptr))
    dense = np.ones(sparse.shape)
    dense[rows, sparse.indices] = sparse.data
    np.fill_diagonal(dense, 0)
    return dense
