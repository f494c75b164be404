"""Neighbours and the sparse Jaccard distance against dense definitions and the GCL authors' numbers."""

from __future__ import annotations

from pathlib import Path

import dense
import faiss
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels import exact_search, neighbours, on_device
from jgcl_ray.pseudo_labels.distances import encode, jaccard_distance
from jgcl_ray.pseudo_labels.neighbours import nearest
from jgcl_ray.pseudo_labels.on_device import encode_on_device, nearest_on_device

AUTHORS = Path(__file__).parents[1] / "data" / "clustering.npz"


def random_cases() -> list[tuple[str, np.ndarray, int, int]]:
    random = np.random.default_rng(3)
    cases = [
        (f"random {n} x {d}, k1 {k1}, k2 {k2}", dense.unit(random.standard_normal((n, d))), k1, k2)
        for n, d, k1, k2 in [
            (1, 3, 5, 2),
            (2, 3, 5, 2),
            (5, 4, 2, 1),
            (40, 8, 30, 6),
            (90, 16, 20, 6),
            (90, 16, 25, 3),
        ]
    ]
    cases += [
        (f"clusters {seed}", dense.clustered(150, 24, 9, 0.3 + 0.3 * seed, seed)[0], 12 + seed, 4)
        for seed in range(4)
    ]
    # 16 different rows at exact distances; no more of them than candidates, among which ties go by row.
    signs = np.where(random.random((10 + neighbours.SPARE, 4)) < 0.5, -0.5, 0.5).astype(np.float32)
    pairs = np.repeat(dense.unit(random.standard_normal((30, 8))), 2, axis=0)
    return [*cases, ("ties", signs, 10, 4), ("duplicates", pairs, 8, 4), ("all alike", signs[[0] * 12], 4, 2)]


def dense_of(sparse: csr_array) -> np.ndarray:
    assert sparse.dtype == np.float32
    assert sparse.diagonal().sum() == 0
    assert (sparse.indices != np.repeat(np.arange(sparse.shape[0]), np.diff(sparse.indptr))).all()
    assert sparse.has_sorted_indices
    filled = dense.filled(sparse)
    np.testing.assert_array_equal(filled, filled.T)
    return filled


@pytest.mark.parametrize(
    ("name", "features", "k1", "k2"), random_cases(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_equals_the_dense_definition(name: str, features: np.ndarray, k1: int, k2: int) -> None:
    expected = dense.jaccard(features, k1, k2)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(dense_of(jaccard_distance(features, k1, k2)), expected, atol=1e-5)


@pytest.mark.parametrize("k1", [20, 30])
def test_equals_the_authors_distances(k1: int) -> None:
    authors = np.load(AUTHORS)
    found = dense_of(jaccard_distance(authors["features"], k1, 6))
    np.testing.assert_allclose(found[np.triu_indices(len(found), 1)], authors[f"jaccard_{k1}"], atol=1e-5)


def test_threads_do_not_change_a_bit() -> None:
    features, _ = dense.clustered(700, 32, 40, 0.5, 0)
    one, three = (jaccard_distance(features, 20, 6, threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.indices, three.indices)
    np.testing.assert_array_equal(one.data, three.data)


def test_a_pass_with_a_limit_keeps_what_is_below() -> None:
    features, _ = dense.clustered(300, 16, 20, 0.6, 1)
    encoding = encode(features, nearest(features, 15), 15, 4)
    everything, some = encoding.within(1.0), encoding.within(0.4)
    near = everything.data <= 0.4
    assert 0 < near.sum() < len(near)
    np.testing.assert_array_equal(some.data, everything.data[near])
    np.testing.assert_array_equal(some.indices, everything.indices[near])
    assert encoding.histogram().sum() == everything.nnz


@pytest.mark.parametrize("block", [2**26, 2**17])
@pytest.mark.parametrize(
    ("name", "features", "k1", "k2"), random_cases(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_torch_operations_equal_compiled_ones(
    name: str, features: np.ndarray, k1: int, k2: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "BLOCK", block)
    found, tensor = nearest(features, k1), torch.from_numpy(features)
    np.testing.assert_array_equal(nearest_on_device(tensor, k1).numpy(), found.rank)
    compiled = encode(features, found, k1, k2)
    on_tensors = encode_on_device(tensor, torch.from_numpy(found.rank).long(), k1, k2)
    np.testing.assert_allclose(dense_of(on_tensors.within(1.0)), dense_of(compiled.within(1.0)), atol=2e-6)
    assert on_tensors.histogram().sum() == compiled.histogram().sum()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("library")
def test_torch_operations_on_a_gpu() -> None:
    features, _ = dense.clustered(2000, 64, 120, 0.6, 1)
    tensor = torch.from_numpy(features).cuda()
    rank = nearest_on_device(tensor, 30)
    np.testing.assert_array_equal(rank.cpu().numpy(), nearest(features, 30).rank)
    found, expected = encode_on_device(tensor, rank, 30, 6).within(1.0), jaccard_distance(features, 30, 6)
    np.testing.assert_allclose(dense_of(found), dense_of(expected), atol=2e-6)


@pytest.fixture(params=["faiss", "torch"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search by faiss, and by torch as where faiss is not installed."""
    if request.param == "torch":
        monkeypatch.setattr(exact_search, "find_spec", lambda name: None)
        monkeypatch.setattr(exact_search, "BLOCK", 5000)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("k", [1, 7, 500])
def test_exact_neighbours(k: int) -> None:
    features, _ = dense.clustered(400, 32, 30, 0.5, 2)
    found = nearest(features, k)
    assert found.recall == 1
    np.testing.assert_array_equal(found.rank, dense.rank(features, k))


@pytest.mark.parametrize("method", ["hnsw", "ivf"])
def test_approximate_neighbours_reach_the_recall_that_is_asked_for(method: str) -> None:
    features, _ = dense.clustered(6000, 48, 350, 0.8, 4)
    found = nearest(features, 20, method, min_recall=0.98)
    exact = nearest(features, 20, "exact").rank
    share = np.mean([np.isin(exact[i], found.rank[i]).mean() for i in range(len(exact))])
    assert found.recall >= 0.98
    assert share == pytest.approx(found.recall, abs=0.01)
    np.testing.assert_array_equal(found.rank[:, 0], np.arange(len(features)))


def test_duplicates_beyond_the_candidates_leave_the_row_itself_first() -> None:
    features = np.zeros((300, 4), np.float32)
    features[:, 0] = 1
    found = nearest(features, 5).rank
    np.testing.assert_array_equal(found[:, 0], np.arange(300))
    assert all(len(set(row)) == 5 for row in found.tolist())
    np.testing.assert_array_equal(nearest_on_device(torch.from_numpy(features), 5)[:, 0], np.arange(300))


@pytest.mark.parametrize(
    ("name", "features", "k1", "k2"), random_cases(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_without_faiss_the_ranks_are_the_same(
    name: str, features: np.ndarray, k1: int, k2: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = nearest(features, k1).rank
    monkeypatch.setattr(exact_search, "find_spec", lambda name: None)
    features.flags.writeable = False
    np.testing.assert_array_equal(nearest(features, k1).rank, expected)


def test_threads_of_torch_are_left_as_they_were() -> None:
    features, before = dense.unit(np.random.default_rng(0).standard_normal((50, 8))), torch.get_num_threads()
    nearest(features, 5, threads=before + 1)
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == (before, before)


def test_without_faiss_there_is_only_the_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = dense.clustered(1500, 16, 90, 0.5, 7)
    monkeypatch.setattr(exact_search, "find_spec", lambda name: None)
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 1000)
    assert nearest(features, 5, "auto").recall == 1
    with pytest.raises(UserError, match="ivf needs faiss: pip install faiss-cpu"):
        nearest(features, 5, "ivf")


@pytest.mark.usefixtures("library")
def test_neighbours_by_camera() -> None:
    features, _ = dense.clustered(200, 16, 10, 0.6, 5)
    cameras = np.random.default_rng(0).choice([2, 3, 7], 200, p=[0.02, 0.4, 0.58])
    intra, inter = neighbours.nearest_by_camera(features, cameras, 6, 9)
    everyone = dense.rank(features, 200)
    for i in range(200):
        same = [j for j in everyone[i] if cameras[j] == cameras[i]][:6]
        assert intra.rank[i].tolist() == same + [-1] * (6 - len(same))
        assert inter.rank[i].tolist() == [j for j in everyone[i] if cameras[j] != cameras[i]][:9]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.array([[1, 0], [np.nan, 0], [0, np.inf]], np.float32), "row 1 is not finite (2 of 3 rows)"),
        (np.array([[1, 0], [3, 4]], np.float32), "row 1 has length 5"),
        (np.eye(3), "expected float32"),
        (np.empty((0, 4), np.float32), "no image"),
    ],
)
def test_bad_features_are_named(features: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")):
        jaccard_distance(features, 4, 2)


def test_k2_above_k1_is_refused() -> None:
    with pytest.raises(UserError, match="k2=7"):
        jaccard_distance(np.eye(9, dtype=np.float32), 6, 7)
