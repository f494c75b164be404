"""k-reciprocal re-ranking: gallery images that share their neighbourhood with the query come nearer.

Source: "Re-ranking Person Re-identification with k-reciprocal Encoding" (Zhong et al., CVPR 2017), eq. 2-12, over
queries and gallery together (N = Q + M rows). Where the paper leaves room, as its authors' numbers were made:

    d(i, j) = |f_i - f_j|^2 / max_k |f_i - f_k|^2      each row by its own largest, so d is not symmetric
    V(i, j) = softmax of -d(i, j) over E(i), the expanded reciprocal neighbours (pseudo_labels.distances; more than,
              not from, 2/3) among the k1 nearest rows besides i; then its mean over the k2 nearest, i included
    J(i, j) = 1 - m / (2 - m),  m = sum_l min(V(i, l), V(j, l))
    the distance of gallery image j from query i: (1 - lambda) J(i, j) + lambda d(i, j)

V is sparse, and J is 1 where nothing is shared: distances are made for some queries at a time, N x N never.
Letters: Q queries, M gallery images, N = Q + M, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, over_rows
from jgcl_ray.pseudo_labels.distances import ZERO, ReciprocalEncoding, encode
from jgcl_ray.pseudo_labels.neighbours import check_features, nearest

K1, K2, LAMBDA = 20, 6, 0.3  # of the paper

_BLOCK_NUMBERS = 2**25  # of distances held at a time while the largest are looked for


@dataclass(frozen=True)
class Reranked:
    """Re-ranked distances, as `ranking.rank_by` asks for them."""

    features: np.ndarray  # (N, D) float32, rows of unit length, the queries first
    scales: np.ndarray  # (N,) float32: 1 / the largest squared distance of each row
    encoding: ReciprocalEncoding  # V
    queries: int  # Q
    original: float  # lambda

    def __call__(self, rows: slice) -> np.ndarray:
        """(q, M) float32 distances of a range of queries to the gallery."""
        start, stop, _ = rows.indices(self.queries)
        block = self.features[start:stop] @ self.features[self.queries :].T
        squared = np.maximum(np.subtract(2, np.multiply(block, 2, out=block), out=block), 0, out=block)
        squared *= (self.original * self.scales[start:stop])[:, None]
        rows_of, columns = self.encoding.rows, self.encoding.columns
        arrays = (rows_of.indptr, rows_of.indices, rows_of.data, columns.indptr, columns.indices, columns.data)
        share = np.float32(1 - self.original)
        over_rows(_add_jaccard, stop - start, self.encoding.threads, start, self.queries, *arrays, share, squared)
        return squared


def rerank(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    k1: int = K1,
    k2: int = K2,
    original: float = LAMBDA,
    neighbours: str = "auto",
    threads: int | None = None,
) -> Reranked:
    """Prepare the re-ranked distances of queries (Q, D) to the gallery (M, D), float32 rows of unit length.

    original: lambda, the share of the distance before. neighbours: how they are searched for (pseudo_labels).
    UserError for features that are not finite or of another type or length, and for impossible k1, k2, lambda.
    """
    if not 1 <= k2 <= k1:
        raise UserError(f"re-ranking with k1={k1}, k2={k2}: expected 1 <= k2 <= k1")
    if not 0 <= original <= 1:
        raise UserError(f"re-ranking with lambda={original}: expected a share from 0 to 1")
    threads = threads or available_threads()
    features = check_features(np.concatenate([query_features, gallery_features]))
    scales = 1 / np.maximum(_farthest(features), np.float32(ZERO))
    found = nearest(features, k1 + 1, neighbours, threads)
    encoding = encode(features, found, k1, k2, threads, scales)
    return Reranked(features, scales, encoding, len(query_features), original)


def _farthest(features: np.ndarray) -> np.ndarray:
    """(N,) float32: each row's largest squared distance."""
    step = max(1, _BLOCK_NUMBERS // len(features))
    starts = range(0, len(features), step)
    nearest_to_opposite = [(features[start : start + step] @ features.T).min(axis=1) for start in starts]
    return np.maximum(2 - 2 * np.concatenate(nearest_to_opposite), 0)


@numba.njit(nogil=True, cache=True)
def _add_jaccard(  # type: ignore[no-untyped-def]
    start, stop, first, queries, indptr, members, weights, columns, column_rows, column_weights, share, distances
):
    overlap = np.zeros(distances.shape[1], np.float32)
    for i in range(start, stop):
        overlap[:] = 0
        for p in range(indptr[first + i], indptr[first + i + 1]):
            for q in range(columns[members[p]], columns[members[p] + 1]):
                if column_rows[q] >= queries:
                    overlap[column_rows[q] - queries] += min(weights[p], column_weights[q])
        for j in range(overlap.size):
            distances[i, j] += share * max(np.float32(0), np.float32(1) - overlap[j] / (np.float32(2) - overlap[j]))
