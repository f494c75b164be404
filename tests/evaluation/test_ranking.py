"""The Market-1501 protocol against the authors' numbers, and against a version that sorts and loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jgcl_ray.data.datasets.reid_dataset import RankingProtocol
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation import ranking
from jgcl_ray.evaluation.ranking import Labels, euclidean, rank, rank_by, rank_camera_pairs

DATA = Path(__file__).parents[1] / "data"


def slow_rank(query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras, topk, protocol="market"):
    """As one would explain it: sort, strike out, walk down the list."""
    average_precisions, first_ranks, penalties = [], [], []
    for feature, identity, camera in zip(query, query_ids, query_cameras, strict=True):
        distances = np.linalg.norm(gallery - feature, axis=1)
        found = []
        for row in np.argsort(distances, kind="stable"):
            own = protocol == "cross_camera" or gallery_ids[row] == identity
            if gallery_ids[row] == -1 or (own and gallery_cameras[row] == camera):
                continue
            found.append(gallery_ids[row] == identity)
        hits = [position + 1 for position, right in enumerate(found) if right]
        if identity == -1 or not hits:
            continue
        average_precisions.append(np.mean([(k + 1) / hit for k, hit in enumerate(hits)]))
        first_ranks.append(hits[0])
        penalties.append(len(hits) / hits[-1])
    cmc = np.array([np.mean(np.array(first_ranks) <= k) for k in range(1, topk + 1)])
    return np.mean(average_precisions), cmc, np.mean(penalties), len(average_precisions)


def test_authors_numbers() -> None:
    with np.load(DATA / "ranking.npz", allow_pickle=False) as golden:
        q, features, ids, cams = int(golden["q"]), golden["features"], golden["ids"], golden["cams"]
        result = rank(features[:q], features[q:], ids[:q], ids[q:], cams[:q], cams[q:])
        assert result.mAP == pytest.approx(float(golden["mAP"]), abs=1e-6)
        np.testing.assert_allclose(result.cmc, golden["cmc"], atol=1e-6)


@pytest.mark.parametrize("protocol", ["market", "cross_camera"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_version(seed: int, protocol: RankingProtocol, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random features with ties, junk, distractors and queries without a match, in chunks of a few queries."""
    random = np.random.default_rng(seed)
    q, g = 23, 90
    features = random.integers(-2, 3, (q + g, 4)).astype(np.float32)  # small integers: many equal distances
    ids = random.integers(-1, 9, q + g)
    cams = random.integers(1, 4, q + g)
    monkeypatch.setattr(ranking, "_CHUNK_BYTES", 5 * 4 * g)
    arguments = (features[:q], features[q:], ids[:q], ids[q:], cams[:q], cams[q:])
    result = rank(*arguments, topk=10, protocol=protocol)
    mAP, cmc, mINP, queries = slow_rank(*arguments, topk=10, protocol=protocol)
    assert result.mAP == pytest.approx(mAP, abs=1e-12)
    assert result.mINP == pytest.approx(mINP, abs=1e-12)
    assert result.queries == queries
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-12)
    assert np.nanmean(result.average_precisions) == pytest.approx(mAP, abs=1e-12)
    assert np.isnan(result.average_precisions).sum() == (result.first_matches == 0).sum() == q - queries
    assert (result.first_matches[result.first_matches > 0] == 1).mean() == pytest.approx(cmc[0], abs=1e-12)


def test_only_the_own_camera_sets_the_protocols_apart() -> None:
    """A stranger by the query's camera, nearer than the match, counts by Market's rule alone."""
    features = np.array([[0, 0], [0.1, 0], [0.2, 0]], np.float32)
    given = (features[:1], features[1:], np.array([1]), np.array([2, 1]), np.array([1]), np.array([1, 2]))
    assert rank(*given).mAP == rank(*given, protocol="market").mAP == 0.5
    assert rank(*given, protocol="cross_camera").mAP == 1
    with pytest.raises(ValueError, match="expected one of market, cross_camera"):
        rank(*given, protocol="both")  # type: ignore[arg-type]


def test_chosen_matches_leave_the_others_out() -> None:
    """As if the gallery did not hold them: the slow version on what is left."""
    random = np.random.default_rng(3)
    q, g = 12, 60
    features = random.integers(-2, 3, (q + g, 4)).astype(np.float32)
    ids, cams, kinds = random.integers(0, 6, q + g), random.integers(1, 4, q + g), random.integers(0, 2, g)
    labels = Labels.of(ids[:q], ids[q:], cams[:q], cams[q:])
    matches = rank_by(euclidean(features[:q], features[q:]), labels).matches
    found = matches.average_precisions(kinds[matches.rows] == 1)
    for query in range(q):
        kept = (ids[q:] != ids[query]) | (kinds == 1)
        alone = [query], q + np.flatnonzero(kept)
        if not ((ids[alone[1]] == ids[query]) & (cams[alone[1]] != cams[query])).any():
            assert np.isnan(found[query])
            continue
        expected = slow_rank(*(part[rows] for part in (features, ids, cams) for rows in alone), topk=1)[0]
        assert found[query] == pytest.approx(expected, abs=1e-12)
    assert labels.matches().tolist() == np.bincount(matches.queries, minlength=q).tolist()


def test_pairs_of_cameras_equal_the_slow_version_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    q, g = 30, 80
    features = random.standard_normal((q + g, 3)).astype(np.float32)
    ids, cams = random.integers(-1, 7, q + g), random.integers(1, 5, q + g)
    monkeypatch.setattr(ranking, "_CHUNK_BYTES", 5 * 4 * g)
    labels = Labels.of(ids[:q], ids[q:], cams[:q], cams[q:])
    pairs = rank_camera_pairs(euclidean(features[:q], features[q:]), labels)
    assert [(pair.query_camera, pair.gallery_camera) for pair in pairs] == [
        (a, b) for a in range(1, 5) for b in range(1, 5) if a != b
    ]
    for pair in pairs:
        of_a, of_b = (
            np.flatnonzero(cams[:q] == pair.query_camera),
            q + np.flatnonzero(cams[q:] == pair.gallery_camera),
        )
        mAP, cmc, _, queries = slow_rank(
            features[of_a], features[of_b], ids[of_a], ids[of_b], cams[of_a], cams[of_b], topk=1
        )
        assert (pair.queries, pair.gallery) == (queries, len(of_b))
        assert pair.mAP == pytest.approx(mAP, abs=1e-12) and pair.rank1 == pytest.approx(cmc[0], abs=1e-12)


def test_same_camera_is_no_match() -> None:
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match="no query has a match: its identity must be in the gallery under another"):
        rank(features[:1], features[1:], np.array([5]), np.array([5, 6]), np.array([1]), np.array([1, 2]))


def test_one_camera_only_is_named() -> None:
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match=r"all images are from one camera \(4\)"):
        rank(features[:1], features[1:], np.array([5]), np.array([5, 6]), np.array([4]), np.array([4, 4]))


def test_strangers_in_the_gallery_are_named() -> None:
    features = np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match="no identity of the queries is in the gallery"):
        rank(features[:1], features[1:], np.array([5]), np.array([0, 6]), np.array([1]), np.array([1, 2]))


def test_empty_gallery() -> None:
    features = np.eye(3, dtype=np.float32)
    none = np.array([], int)
    with pytest.raises(UserError, match="the gallery is empty"):
        rank(features, features[:0], np.array([1, 2, 3]), none, np.array([1, 1, 1]), none)


def test_perfect_and_worst_order() -> None:
    gallery = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    ids, cams = np.array([1, 1, 2, 2]), np.array([2, 2, 2, 2])
    near = rank(np.array([[1, 0]], np.float32), gallery, np.array([1]), ids, np.array([1]), cams)
    far = rank(np.array([[0, 1]], np.float32), gallery, np.array([1]), ids, np.array([1]), cams)
    assert near.mAP == near.mINP == 1.0 and near.cmc[0] == 1.0
    assert far.mAP == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert far.cmc[:3].tolist() == [0.0, 0.0, 1.0]


def test_threads_of_torch_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        features = np.eye(4, dtype=np.float32)
        rank(features[:2], features, np.arange(2), np.arange(4) % 2, np.zeros(2, int), np.ones(4, int))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
