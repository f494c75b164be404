"""Single-query ranking in the Market-1501 protocol: mAP, CMC and mINP.

No query's gallery is ever sorted: a precision needs the rank of each match only, and that is a count of what lies
nearer. Distances are made for some queries at a time, so that nothing of size Q x M is kept.

Letters: Q queries, M gallery images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numba
import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, over_rows

JUNK = -1  # identity of gallery images that are neither right nor wrong

_CHUNK_BYTES = 256 * 2**20  # of distances held at a time

# Queries (a range of q) -> (q, M) float32, whatever grows with the distance; the array is the caller's to use.
Distances = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class Labels:
    """Who is on the images of queries and gallery, and which camera took them."""

    query_identities: np.ndarray  # (Q,) int64
    gallery_identities: np.ndarray  # (M,) int64
    query_cameras: np.ndarray  # (Q,) int64
    gallery_cameras: np.ndarray  # (M,) int64

    @classmethod
    def of(cls, *labels: np.ndarray) -> Labels:
        """Of arrays of any integers, in the order of the fields."""
        return cls(*(np.ascontiguousarray(label, np.int64) for label in labels))


@dataclass(frozen=True)
class RankingResult:
    """Means over the queries that have a match, and what they are means of."""

    mAP: float
    cmc: np.ndarray  # (topk,) float64: share of queries with a match among the first 1, 2, ... topk
    mINP: float  # mean inverse negative penalty (Ye et al., Deep Learning for Person Re-identification, eq. 10)
    queries: int  # with a match; the others are left out
    average_precisions: np.ndarray  # (Q,) float64, NaN for queries without a match
    first_matches: np.ndarray  # (Q,) int64, rank of the first match from 1; 0 without

    def summary(self) -> dict[str, float]:
        """The figures of the field, by their names; for a topk of 10 or more."""
        return {"mAP": self.mAP, **{f"rank-{k}": float(self.cmc[k - 1]) for k in (1, 5, 10)}, "mINP": self.mINP}


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
    labels = Labels.of(query_identities, gallery_identities, query_cameras, gallery_cameras)
    return rank_by(euclidean(query_features, gallery_features), labels, topk)


def rank_by(distances: Distances, labels: Labels, topk: int = 50) -> RankingResult:
    """`rank` by any distances, such as re-ranked ones."""
    check_matches(labels)
    scores = np.zeros((len(labels.query_identities), 3))
    for rows in query_chunks(labels):
        _score_rows(distances(rows), labels, rows, scores)
    with_match = scores[:, 1] > 0
    found = scores[with_match]
    return RankingResult(
        mAP=float(found[:, 0].mean()),
        cmc=(found[:, 1:2] <= np.arange(1, topk + 1)).mean(axis=0),
        mINP=float(found[:, 2].mean()),
        queries=len(found),
        average_precisions=np.where(with_match, scores[:, 0], np.nan),
        first_matches=scores[:, 1].astype(np.int64),
    )


@dataclass(frozen=True)
class CameraPair:
    """Queries of one camera against the gallery images of another one alone."""

    query_camera: int
    gallery_camera: int
    mAP: float
    rank1: float
    queries: int  # with a match under that camera
    gallery: int  # images of that camera


def rank_camera_pairs(distances: Distances, labels: Labels) -> list[CameraPair]:
    """The protocol for each ordered pair of different cameras between which a query has a match, in their order.

    One pass over the distances serves all pairs.
    """
    cameras = np.unique(labels.gallery_cameras)
    columns = [np.flatnonzero(labels.gallery_cameras == camera) for camera in cameras]
    scores = np.zeros((len(cameras), len(labels.query_identities), 3))
    for rows in query_chunks(labels):
        block = distances(rows)
        for of_camera, score in zip(columns, scores, strict=True):
            _score_rows(block[:, of_camera], _of_gallery(labels, of_camera), rows, score)
    pairs = []
    for query_camera in np.unique(labels.query_cameras):
        for camera, of_camera, score in zip(cameras, columns, scores, strict=True):
            found = score[(labels.query_cameras == query_camera) & (score[:, 1] > 0)]
            if len(found):
                mean, rank1 = float(found[:, 0].mean()), float((found[:, 1] == 1).mean())
                pairs.append(CameraPair(int(query_camera), int(camera), mean, rank1, len(found), len(of_camera)))
    return pairs


def euclidean(query_features: np.ndarray, gallery_features: np.ndarray) -> Distances:
    """Half the squared Euclidean distances, less each query's own share of them: the same order."""
    query_features = np.ascontiguousarray(query_features, np.float32)
    gallery_features = np.ascontiguousarray(gallery_features, np.float32)
    half_norms = 0.5 * np.einsum("md,md->m", gallery_features, gallery_features)

    def distances(rows: slice) -> np.ndarray:
        block = query_features[rows] @ gallery_features.T
        return np.subtract(half_norms, block, out=block)

    return distances


def check_matches(labels: Labels) -> None:
    """UserError, with the reason, where the gallery is empty or no query has a match."""
    if not len(labels.gallery_identities):
        raise UserError("the gallery is empty: nothing to rank")
    seen_by: dict[int, set[int]] = {}
    for identity, camera in zip(labels.gallery_identities.tolist(), labels.gallery_cameras.tolist(), strict=True):
        seen_by.setdefault(identity, set()).add(camera)
    queries = zip(labels.query_identities.tolist(), labels.query_cameras.tolist(), strict=True)
    if any(identity != JUNK and seen_by.get(identity, set()) - {camera} for identity, camera in queries):
        return
    cause = "its identity must be in the gallery under another camera"
    cameras = np.union1d(labels.query_cameras, labels.gallery_cameras)
    if len(cameras) == 1:
        cause = (
            f"all images are from one camera ({cameras[0]}), where matches do not count; add those of other cameras"
        )
    elif not seen_by.keys() & set(labels.query_identities.tolist()):
        cause = "no identity of the queries is in the gallery; do the two belong together?"
    counts = f"({len(labels.query_identities)} queries, {len(labels.gallery_identities)} gallery images)"
    raise UserError(f"no query has a match: {cause} {counts}")


def query_chunks(labels: Labels) -> Iterator[slice]:
    """Ranges of queries whose distances to the gallery fit in memory."""
    step = max(1, _CHUNK_BYTES // (4 * max(1, len(labels.gallery_identities))))
    total = len(labels.query_identities)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def _of_gallery(labels: Labels, columns: np.ndarray) -> Labels:
    return Labels(
        labels.query_identities,
        labels.gallery_identities[columns],
        labels.query_cameras,
        labels.gallery_cameras[columns],
    )


def _score_rows(block: np.ndarray, labels: Labels, rows: slice, scores: np.ndarray) -> None:
    over_rows(
        _score,
        len(block),
        available_threads(),
        np.ascontiguousarray(block, np.float32),
        labels.query_identities[rows],
        labels.gallery_identities,
        labels.query_cameras[rows],
        labels.gallery_cameras,
        scores[rows],
    )


@numba.njit(nogil=True, cache=True)
def _score(
    start: int,
    stop: int,
    distances: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    scores: np.ndarray,
) -> None:
    """(average precision, rank of the first match, inverse negative penalty) of a range of queries: `scores` (Q, 3).

    distances (Q, M). A query without a match leaves its row, of zeros, as it is.
    """
    for query in range(start, stop):
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
