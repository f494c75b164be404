"""Re-ranking against the dense definition, with N x N matrices and sets."""

from __future__ import annotations

import numpy as np
import pytest

from jgcl_ray.errors import UserError
from jgcl_ray.evaluation import reranking
from jgcl_ray.evaluation.ranking import Labels, rank, rank_by
from jgcl_ray.evaluation.reranking import rerank


def people(rows: int, width: int, number: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around `number` directions: features (rows, width) float32, identities (rows,)."""
    random = np.random.default_rng(seed)
    identities = random.integers(1, number + 1, rows)
    features = random.standard_normal((number + 1, width))[identities] + noise * random.standard_normal((rows, width))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), identities


def dense_rerank(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, share: float) -> np.ndarray:
    """Zhong et al., eq. by eq., in float64."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    rows = range(len(features))
    squared = np.array([[np.sum((a - b) ** 2) for b in features] for a in features])
    original = squared / squared.max(axis=1, keepdims=True)  # a row's distances by its largest
    order = np.argsort(squared - np.diag([1.0] * len(features)), axis=1, kind="stable")  # the row itself first

    def reciprocal(i: int, k: int) -> set[int]:  # eq. 2 and 3: N(i, k), the row itself besides
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    weights = np.zeros(squared.shape)
    for i in rows:
        near = reciprocal(i, k1)
        expanded = set(near)  # eq. 5
        for j in near:
            half = reciprocal(j, int(np.around(k1 / 2)))
            if len(near & half) > 2 / 3 * len(half):
                expanded |= half
        members = sorted(expanded)
        weights[i, members] = np.exp(-original[i, members])  # eq. 7
        weights[i] /= weights[i].sum()
    weights = np.stack([weights[order[i, :k2]].mean(axis=0) for i in rows])  # eq. 11, the local query expansion
    jaccard = np.array(  # eq. 10
        [[1 - np.minimum(v, w).sum() / np.maximum(v, w).sum() for w in weights] for v in weights]
    )
    final = (1 - share) * jaccard + share * original  # eq. 12
    return final[: len(query), len(query) :]


@pytest.mark.parametrize(
    ("queries", "gallery", "number", "noise", "k1", "k2", "share"),
    [
        (20, 90, 9, 0.5, 20, 6, 0.3),
        (20, 90, 9, 1.2, 20, 6, 0.3),
        (15, 60, 6, 0.8, 7, 1, 0.0),
        (15, 60, 6, 0.8, 9, 3, 1.0),
        (3, 9, 2, 0.5, 20, 6, 0.3),  # fewer rows than neighbours
        (1, 1, 1, 0.5, 20, 6, 0.3),
    ],
)
def test_equals_the_dense_definition(
    queries: int, gallery: int, number: int, noise: float, k1: int, k2: int, share: float
) -> None:
    features, _ = people(queries + gallery, 24, number, noise, seed=queries + k1)
    expected = dense_rerank(features[:queries], features[queries:], k1, k2, share)
    found = rerank(features[:queries], features[queries:], k1, k2, share)(slice(0, queries))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = people(130, 16, 12, 0.8, seed=3)
    whole = rerank(features[:30], features[30:], threads=1)(slice(0, 30))
    monkeypatch.setattr(reranking, "_BLOCK_NUMBERS", 7 * 130)
    distances = rerank(features[:30], features[30:], threads=3)
    parts = np.concatenate([distances(slice(start, start + 7)) for start in range(0, 30, 7)])
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_ranks_better_where_neighbours_tell_people_apart() -> None:
    features, identities = people(330, 24, 25, 0.75, seed=5)
    cameras = np.random.default_rng(0).integers(1, 4, 330)
    labels = Labels.of(identities[:60], identities[60:], cameras[:60], cameras[60:])
    plain = rank(features[:60], features[60:], identities[:60], identities[60:], cameras[:60], cameras[60:])
    again = rank_by(rerank(features[:60], features[60:]), labels)
    assert plain.mAP + 0.02 < again.mAP < 1


def test_all_alike() -> None:
    features = np.zeros((9, 4), np.float32)
    features[:, 0] = 1
    np.testing.assert_array_equal(np.isfinite(rerank(features[:3], features[3:], 4, 2)(slice(0, 3))), True)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k1": 5, "k2": 6}, "k1=5, k2=6"), ({"k2": 0}, "k2=0"), ({"original": 1.5}, "lambda=1.5")],
)
def test_impossible_settings(options: dict, message: str) -> None:
    features, _ = people(10, 4, 2, 0.5, seed=0)
    with pytest.raises(UserError, match=message):
        rerank(features[:3], features[3:], **options)


def test_diverged_features_are_named() -> None:
    features, _ = people(10, 4, 2, 0.5, seed=0)
    features[7] = np.nan
    with pytest.raises(UserError, match="row 7 is not finite"):
        rerank(features[:3], features[3:])
