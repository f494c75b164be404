"""Single-query ranking in the Market-1501 protocol: mAP, CMC and mINP.

No query's gallery is ever sorted: a precision needs the rank of each match only, and that is a count of what lies
nearer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from jgcl_ray.errors import UserError

JUNK = -1  # identity of gallery images that are neither right nor wrong

_CHUNK_BYTES = 256 * 2**20  # of distances held at a time


@dataclass(frozen=True)
class RankingResult:
    """Means over the queries that have a match."""

    mAP: float
    cmc: np.ndarray  # (topk,) float64: share of queries with a match among the first 1, 2, ... topk
    mINP: float  # mean inverse negative penalty (Ye et al., Deep Learning for Person Re-identification, eq. 10)
    queries: int  # with a match; the others are left out


def rank(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    topk: int = 50,
) -> RankingResult:
    """Rank the gallery (M, D) by Euclidean distance to each query (Q, D) float32.

    For each query the gallery images of its own identity and camera and those of identity -1 are left out; queries
    without a match are skipped. Equal distances rank in the gallery's order. METHOD: Zheng et al., ICCV 2015.

    Raises UserError if the gallery is empty or no query has a match.
    """
    query_features = np.ascontiguousarray(query_features, np.float32)
    gallery_features = np.ascontiguousarray(gallery_features, np.float32)
    if not len(gallery_features):
        raise UserError("the gallery is empty: nothing to rank")
    half_norms = 0.5 * np.einsum("md,md->m", gallery_features, gallery_features)
    identities = (np.asarray(query_identities, np.int64), np.asarray(gallery_identities, np.int64))
    cameras = (np.asarray(query_cameras, np.int64), np.asarray(gallery_cameras, np.int64))
    # (average precision, rank of the first match, inverse negative penalty) of each query; rank 0 without a match.
    scores = np.zeros((len(query_features), 3))
    step = max(1, _CHUNK_BYTES // (4 * len(gallery_features)))
    for start in range(0, len(query_features), step):
        rows = slice(start, start + step)
        # Half the squared distance less the query's own share: the same order.
        distances = half_norms - query_features[rows] @ gallery_features.T
        _score(distances, identities[0][rows], identities[1], cameras[0][rows], cameras[1], scores[rows])
    scores = scores[scores[:, 1] > 0]
    if not len(scores):
        raise UserError(
            "no query has a match: its identity must be in the gallery under another camera "
            f"({len(query_features)} queries, {len(gallery_features)} gallery images)"
        )
    cmc = (scores[:, 1:2] <= np.arange(1, topk + 1)).mean(axis=0)
    return RankingResult(float(scores[:, 0].mean()), cmc, float(scores[:, 2].mean()), len(scores))


@numba.njit(parallel=True, cache=True)
def _score(
    distances: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Fill `scores` (Q, 3) from distances (Q, M)."""
    for query in numba.prange(len(distances)):
        identity, camera, distance = query_identities[query], query_cameras[query], distances[query]
        matches = np.flatnonzero((gallery_identities == identity) & (gallery_cameras != camera))
        if identity == JUNK or not len(matches):
            continue
        # A stable sort keeps the gallery's order among equals.
        matches = matches[np.argsort(distance[matches], kind="mergesort")]
        nearest_first = distance[matches]
        # ahead[k]: wrong images that rank before match k but not before match k - 1.
        ahead = np.zeros(len(matches) + 1, np.int64)
        for image in range(len(distance)):
            wrong = gallery_identities[image]
            if wrong in (identity, JUNK):
                continue
            low, high = 0, len(matches)
            while low < high:
                middle = (low + high) // 2
                before = nearest_first[middle] < distance[image]
                if before or (nearest_first[middle] == distance[image] and matches[middle] < image):
                    low = middle + 1
                else:
                    high = middle
            ahead[low] += 1
        seen = 0
        precisions = 0.0
        for k in range(len(matches)):
            seen += ahead[k]
            precisions += (k + 1) / (seen + k + 1)
        scores[query, 0] = precisions / len(matches)
        scores[query, 1] = ahead[0] + 1
        scores[query, 2] = len(matches) / (seen + len(matches))
