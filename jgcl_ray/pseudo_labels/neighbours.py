"""Nearest rows by Euclidean distance: exact, or approximate with a measured recall.

Letters: N rows, D embedding width, k neighbours, the row itself included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, over_rows
from jgcl_ray.pseudo_labels.exact_search import installed_faiss, nearest_rows

# `auto` searches exactly up to here: 200,000 x 512 takes minutes on two cores, 10^6 rows hours.
EXACT_ROWS = 250_000
# Candidates beyond k, so that rounding in the search cannot push out a row that belongs among the k. Where more rows
# than that are alike, which of them are found is up to the library.
SPARE = 8
METHODS = ("auto", "exact", "hnsw", "ivf")


@dataclass(frozen=True)
class Neighbours:
    """The k nearest rows of every row."""

    rank: np.ndarray  # (N, k) int32, nearest first, ties in the order of the rows; -1 where there are fewer than k
    recall: float  # share of the exact k nearest that were found, measured on a sample; 1 for an exact search


def check_features(features: np.ndarray) -> np.ndarray:
    """A read-only C-contiguous view of float32 (N, D) rows of unit length; UserError names what is wrong."""
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype != np.float32:
        raise UserError(f"features: {features.dtype} of shape {features.shape}; expected float32 of shape (N, D)")
    if features.size == 0:
        raise UserError(f"features: none, shape {features.shape}; there is no image to cluster")
    squares = np.einsum("nd,nd->n", features, features)
    bad = np.flatnonzero(~np.isfinite(squares))
    if len(bad):
        raise UserError(
            f"features: row {bad[0]} is not finite ({len(bad)} of {len(features)} rows): the encoder diverged; go "
            "back to an earlier checkpoint, lower the learning rate or train in float32"
        )
    off = np.flatnonzero(np.abs(squares - 1) > 1e-3)
    if len(off):
        raise UserError(
            f"features: row {off[0]} has length {np.sqrt(squares[off[0]]):.4g} ({len(off)} of {len(features)} rows "
            "are not of unit length); L2-normalise them"
        )
    view = np.ascontiguousarray(features).view()
    view.flags.writeable = False  # kernels are compiled once, for arrays as Ray's object store hands them out
    return view


def nearest(
    features: np.ndarray, k: int, method: str = "auto", threads: int | None = None, min_recall: float = 0.98
) -> Neighbours:
    """The k (at most N) nearest rows of every row.

    features (N, D) float32, rows of unit length. The order is that of float64 distances, then of the rows, whichever
    library found the candidates. `hnsw` and `ivf` search harder until a sample of rows has a recall of `min_recall`.
    """
    features, threads = check_features(features), threads or available_threads()
    num_rows = len(features)
    k = min(k, num_rows)
    wanted = min(k + SPARE, num_rows)
    candidates = np.empty((num_rows, wanted), np.int32)
    with _threads(threads):
        search, recall = _searcher(features, features, k, wanted, _resolve(method, num_rows), min_recall)
        for block in _blocks(num_rows):
            candidates[block] = search(features[block], wanted)[1]
    return Neighbours(_ordered(features, candidates, k, True, threads), recall)


def nearest_by_camera(
    features: np.ndarray,
    cameras: np.ndarray,
    k_intra: int,
    k_inter: int,
    method: str = "auto",
    threads: int | None = None,
    min_recall: float = 0.98,
) -> tuple[Neighbours, Neighbours]:
    """The k_intra nearest rows of the same camera, the row itself first, and the k_inter nearest of all others.

    features (N, D) float32, rows of unit length; cameras (N,) integers. -1 where there are fewer.
    """
    features, threads = check_features(features), threads or available_threads()
    num_rows, method = len(features), _resolve(method, len(features))
    wanted = max(k_intra, k_inter) + SPARE
    intra, inter = np.full((num_rows, wanted), -1, np.int32), np.full((num_rows, wanted), -1, np.int32)
    gaps = np.full((num_rows, wanted), np.inf, np.float32)
    recalls = []
    with _threads(threads):
        for camera in np.unique(cameras):  # one search of its rows serves both lists
            rows = np.flatnonzero(cameras == camera)
            size = min(wanted, len(rows))
            search, recall = _searcher(features[rows], features, min(k_inter, size), size, method, min_recall)
            recalls.append(recall)
            for block in _blocks(num_rows):
                distance, found = search(features[block], size)
                found = np.where(found >= 0, rows[found], -1)
                own = cameras[block] == camera
                intra[block][own, :size] = found[own]
                distance = np.hstack([gaps[block], np.where(found < 0, np.inf, distance)])
                kept = np.argpartition(distance, wanted - 1, axis=1)[:, :wanted]
                joined = np.take_along_axis(np.hstack([inter[block], found]), kept, axis=1)
                inter[block] = np.where(own[:, None], inter[block], joined)
                gaps[block] = np.where(own[:, None], gaps[block], np.take_along_axis(distance, kept, axis=1))
    recall = min(recalls, default=1.0)
    return (
        Neighbours(_ordered(features, intra, min(k_intra, num_rows), True, threads), recall),
        Neighbours(_ordered(features, inter, min(k_inter, num_rows), False, threads), recall),
    )


def _resolve(method: str, num_rows: int) -> str:
    if method not in METHODS:
        raise UserError(f"pseudo_labels.neighbours={method!r}: known: {', '.join(METHODS)}")
    if method in ("hnsw", "ivf") and installed_faiss() is None:
        raise UserError(f"pseudo_labels.neighbours={method} needs faiss: pip install faiss-cpu, or use exact")
    if method == "auto":
        return "exact" if num_rows <= EXACT_ROWS or installed_faiss() is None else "ivf"
    return method


def _blocks(num_rows: int) -> list[slice]:
    """faiss answers with distances and int64: three times the size of what is kept, if asked for all rows at once."""
    return [slice(start, min(start + 65536, num_rows)) for start in range(0, num_rows, 65536)]


def _ordered(features: np.ndarray, candidates: np.ndarray, k: int, itself: bool, threads: int) -> np.ndarray:
    rank = np.empty((len(features), k), np.int32)
    over_rows(_order_rows, len(features), threads, features, candidates, itself, rank)
    return rank


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Threads of faiss and torch while it lasts. Both ask one OpenMP: what one is given stays with the other."""
    faiss, before = installed_faiss(), torch.get_num_threads()
    torch.set_num_threads(number)
    if faiss is not None:
        faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if faiss is not None:
            faiss.omp_set_num_threads(before)


Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]  # queries, k -> squared distances, rows


def _searcher(
    base: np.ndarray, queries: np.ndarray, k: int, wanted: int, method: str, min_recall: float
) -> tuple[Search, float]:
    """A search among the rows of `base`, and its recall of the k nearest with `wanted` candidates."""
    faiss = installed_faiss()

    def exact(some: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return nearest_rows(some, base, k)

    if method == "exact" or len(base) <= 1000:
        return exact, 1.0
    assert faiss is not None  # _resolve saw to it
    index, effort, level, limit = (_ivf if method == "ivf" else _hnsw)(faiss, base, wanted)
    sample = queries[np.random.default_rng(0).choice(len(queries), min(len(queries), 1000), replace=False)]
    truth = exact(sample, k)[1]
    while True:
        faiss.ParameterSpace().set_index_parameter(index, effort, level)
        found = index.search(sample, wanted)[1]
        recall = float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))
        if recall >= min_recall or level == limit:
            return index.search, recall
        level = min(2 * level, limit)


def _ivf(faiss: Any, base: np.ndarray, wanted: int) -> tuple[Any, str, int, int]:
    lists = max(min(int(4 * len(base) ** 0.5), len(base) // 40), 1)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(base.shape[1]), base.shape[1], lists)
    index.cp.niter, index.cp.max_points_per_centroid = 10, 64
    index.train(base)
    index.add(base)
    return index, "nprobe", min(4, lists), lists


def _hnsw(faiss: Any, base: np.ndarray, wanted: int) -> tuple[Any, str, int, int]:
    index = faiss.IndexHNSWFlat(base.shape[1], 32)
    index.hnsw.efConstruction = 80
    index.add(base)
    return index, "efSearch", 2 * wanted, len(base)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _squared_distance(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for d in range(a.shape[0]):
        gap = np.float64(a[d]) - np.float64(b[d])
        total += gap * gap
    return total


@numba.njit(nogil=True, cache=True)
def _order_rows(start, stop, features, candidates, itself, rank):  # type: ignore[no-untyped-def]
    k = rank.shape[1]
    distances = np.empty(candidates.shape[1] + 1, np.float64)
    rows = np.empty(candidates.shape[1] + 1, np.int32)
    for i in range(start, stop):
        distances[0], rows[0], size = -1.0, i, 1  # before its duplicates; it also ends the search for a place below
        for j in candidates[i]:
            if j < 0 or j == i:
                continue
            distance = _squared_distance(features[i], features[j])
            at = size
            while distance < distances[at - 1] or (distance == distances[at - 1] and j < rows[at - 1]):
                distances[at], rows[at] = distances[at - 1], rows[at - 1]
                at -= 1
            distances[at], rows[at] = distance, j
            size += 1
        for c in range(k):
            at = c if itself else c + 1
            rank[i, c] = rows[at] if at < size else -1
