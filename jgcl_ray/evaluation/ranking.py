"""Single-query ranking, in the protocol of Market-1501 or across cameras: mAP, CMC and mINP.

No query's gallery is ever sorted: a precision needs the rank of each match only, and that is a count of what lies
nearer. Distances are made for some queries at a time, so that nothing of size Q x M is kept.

Letters: Q queries, M gallery images, D embedding width, K matches of all queries together, C cameras of the gallery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import numba
import numpy as np

from jgcl_ray.data.datasets.reid_dataset import RankingProtocol
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, over_rows

JUNK = -1  # identity of gallery images that are neither right nor wrong

PROTOCOLS: tuple[RankingProtocol, ...] = get_args(RankingProtocol)

_CHUNK_BYTES = 256 * 2**20  # of distances held at a time

# Queries (a range of q) -> (q, M) float32, whatever grows with the distance; the array is the caller's to use.
Distances = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class Labels:
    """Who is on the images of queries and gallery, which camera took them, and which of them a ranking counts."""

    query_identities: np.ndarray  # (Q,) int64
    gallery_identities: np.ndarray  # (M,) int64
    query_cameras: np.ndarray  # (Q,) int64
    gallery_cameras: np.ndarray  # (M,) int64
    protocol: RankingProtocol = "market"

    @classmethod
    def of(cls, *labels: np.ndarray, protocol: RankingProtocol = "market") -> Labels:
        """Of arrays of any integers, in the order of the fields. ValueError for an unknown protocol."""
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
        query_people, gallery_people, *cameras = (np.ascontiguousarray(label, np.int64) for label in labels)
        return cls(query_people, gallery_people, cameras[0], cameras[1], protocol)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The first four fields, as `rank` takes them."""
        return self.query_identities, self.gallery_identities, self.query_cameras, self.gallery_cameras

    def left_out(self, query: int) -> np.ndarray:
        """(M,) bool: gallery images that the ranking of a query does not count."""
        out = self.gallery_cameras == self.query_cameras[query]
        if self.protocol == "market":
            out &= self.gallery_identities == self.query_identities[query]
        return out | (self.gallery_identities == JUNK)

    def matches(self) -> np.ndarray:
        """(Q,) int64: right gallery images of each query that its ranking counts; by either protocol alike."""
        of_person = Counter(self.gallery_identities.tolist())
        of_pair = Counter(zip(self.gallery_identities.tolist(), self.gallery_cameras.tolist(), strict=True))
        pairs = zip(self.query_identities.tolist(), self.query_cameras.tolist(), strict=True)
        counts = [0 if i == JUNK else of_person[i] - of_pair[i, camera] for i, camera in pairs]
        return np.array(counts, np.int64)


@dataclass(frozen=True, eq=False)
class Matches:
    """The right gallery images of all queries, query by query, each query's nearest first."""

    starts: np.ndarray  # (Q + 1,) int64: those of query q are the entries starts[q] to starts[q + 1]
    rows: np.ndarray  # (K,) int64, of the gallery
    wrong_before: np.ndarray  # (K,) int64, wrong images that rank before each

    @property
    def queries(self) -> np.ndarray:
        """(K,) int64: whose each is."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def average_precisions(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """(Q,) float64: mean over a query's matches of the precision at each; NaN for queries without one.

        chosen: (K,) bool, matches besides which the others are left out of the rankings, as if they were junk.
        """
        queries, wrong, total = self.queries, self.wrong_before, len(self.starts) - 1
        if chosen is not None:
            queries, wrong = queries[chosen], wrong[chosen]
        counts = np.bincount(queries, minlength=total)
        place = np.arange(len(queries)) - np.repeat(counts.cumsum() - counts, counts) + 1  # among the query's matches
        sums = np.bincount(queries, place / (wrong + place), total)
        return np.divide(sums, counts, out=np.full(total, np.nan), where=counts > 0)

    def first(self) -> np.ndarray:
        """(Q,) int64: rank of each query's first match, from 1; 0 without."""
        found = np.diff(self.starts) > 0
        ranks = np.zeros(len(found), np.int64)
        ranks[found] = self.wrong_before[self.starts[:-1][found]] + 1
        return ranks

    def inverse_negative_penalties(self) -> np.ndarray:
        """(Q,) float64: number of matches by the rank of the last; NaN without."""
        counts = np.diff(self.starts)
        found, penalties = counts > 0, np.full(len(counts), np.nan)
        penalties[found] = counts[found] / (self.wrong_before[self.starts[1:][found] - 1] + counts[found])
        return penalties


@dataclass(frozen=True)
class RankingResult:
    """Means over the queries that have a match, and what they are means of."""

    mAP: float
    cmc: np.ndarray  # (topk,) float64: share of queries with a match among the first 1, 2, ... topk
    mINP: float  # mean inverse negative penalty (Ye et al., Deep Learning for Person Re-identification, eq. 10)
    queries: int  # with a match; the others are left out
    average_precisions: np.ndarray  # (Q,) float64, NaN for queries without a match
    first_matches: np.ndarray  # (Q,) int64, rank of the first match from 1; 0 without
    matches: Matches

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
    *,
    protocol: RankingProtocol = "market",
) -> RankingResult:
    """Rank the gallery (M, D) by Euclidean distance to each query (Q, D) float32.

    For each query the gallery images of its own identity and camera (`market`: Zheng et al., ICCV 2015) or all those
    of its camera (`cross_camera`) are left out, and so are those of identity -1; queries without a match are skipped.
    Equal distances rank in the gallery's order. The result holds the scores of each query, too.

    Raises UserError if the gallery is empty or no query has a match, ValueError for an unknown protocol.
    """
    labels = Labels.of(query_identities, gallery_identities, query_cameras, gallery_cameras, protocol=protocol)
    return rank_by(euclidean(query_features, gallery_features), labels, topk)


def rank_by(distances: Distances, labels: Labels, topk: int = 50) -> RankingResult:
    """`rank` by any distances, such as re-ranked ones, in the protocol of the labels."""
    check_matches(labels)
    finder = _MatchFinder(labels)
    for rows in query_chunks(labels):
        finder.find(distances(rows), rows)
    matches = finder.matches
    average_precisions, first = matches.average_precisions(), matches.first()
    found = first > 0
    return RankingResult(
        mAP=float(average_precisions[found].mean()),
        cmc=(first[found, None] <= np.arange(1, topk + 1)).mean(axis=0),
        mINP=float(matches.inverse_negative_penalties()[found].mean()),
        queries=int(found.sum()),
        average_precisions=average_precisions,
        first_matches=first,
        matches=matches,
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


@dataclass(frozen=True, eq=False)
class CameraScores:
    """Each query against the gallery images of each camera but its own, and nothing else."""

    cameras: np.ndarray  # (C,) int64, of the gallery, ascending
    images: np.ndarray  # (C,) int64, of each
    average_precisions: np.ndarray  # (Q, C) float64, NaN where that camera has no match
    first_matches: np.ndarray  # (Q, C) int64, from 1; 0 without

    def pairs(self, query_cameras: np.ndarray) -> list[CameraPair]:
        """Means for each ordered pair of cameras between which a query (Q,) has a match, in their order."""
        pairs = []
        for query_camera in np.unique(query_cameras):
            for column, camera in enumerate(self.cameras):
                found = (query_cameras == query_camera) & (self.first_matches[:, column] > 0)
                if found.any():
                    mean = float(self.average_precisions[found, column].mean())
                    rank1 = float((self.first_matches[found, column] == 1).mean())
                    number, images = int(found.sum()), int(self.images[column])
                    pairs.append(CameraPair(int(query_camera), int(camera), mean, rank1, number, images))
        return pairs


def score_cameras(distances: Distances, labels: Labels) -> CameraScores:
    """Camera by camera; one pass over the distances serves all."""
    cameras, images = np.unique(labels.gallery_cameras, return_counts=True)
    columns = [np.flatnonzero(labels.gallery_cameras == camera) for camera in cameras]
    finders = [_MatchFinder(_of_gallery(labels, of_camera)) for of_camera in columns]
    for rows in query_chunks(labels):
        block = distances(rows)
        for of_camera, finder in zip(columns, finders, strict=True):
            finder.find(block[:, of_camera], rows)
    return CameraScores(
        cameras=cameras,
        images=images,
        average_precisions=np.stack([finder.matches.average_precisions() for finder in finders], axis=1),
        first_matches=np.stack([finder.matches.first() for finder in finders], axis=1),
    )


def rank_camera_pairs(distances: Distances, labels: Labels) -> list[CameraPair]:
    """The protocol for each ordered pair of different cameras between which a query has a match, in their order."""
    return score_cameras(distances, labels).pairs(labels.query_cameras)


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
    if labels.matches().any():
        return
    cause = "its identity must be in the gallery under another camera"
    cameras = np.union1d(labels.query_cameras, labels.gallery_cameras)
    if len(cameras) == 1:
        cause = (
            f"all images are from one camera ({cameras[0]}), where matches do not count; add those of other cameras"
        )
    elif not np.isin(labels.query_identities, labels.gallery_identities).any():
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
        labels.protocol,
    )


class _MatchFinder:
    """`matches` as they are found, some queries at a time."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        starts = np.concatenate([[0], labels.matches().cumsum()])
        self.matches = Matches(starts, np.zeros(starts[-1], np.int64), np.zeros(starts[-1], np.int64))

    def find(self, block: np.ndarray, rows: slice) -> None:
        """Of a range of queries, whose distances to the gallery are (q, M)."""
        labels, matches = self.labels, self.matches
        over_rows(
            _find_matches,
            len(block),
            available_threads(),
            np.ascontiguousarray(block, np.float32),
            labels.query_identities[rows],
            labels.gallery_identities,
            labels.query_cameras[rows],
            labels.gallery_cameras,
            labels.protocol == "cross_camera",
            matches.starts[rows.start : rows.stop + 1],
            matches.rows,
            matches.wrong_before,
        )


@numba.njit(nogil=True, cache=True)
def _find_matches(
    start: int,
    stop: int,
    distances: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
    without_own_camera: bool,
    starts: np.ndarray,
    rows: np.ndarray,
    wrong_before: np.ndarray,
) -> None:
    """Fill in `rows` and `wrong_before` (K,) for a range of queries; distances (Q, M)."""
    for query in range(start, stop):
        first, last = starts[query], starts[query + 1]
        if first == last:
            continue
        identity, camera, distance = query_identities[query], query_cameras[query], distances[query]
        matches = np.flatnonzero((gallery_identities == identity) & (gallery_cameras != camera))
        # A stable sort keeps the gallery's order among equals.
        matches = matches[np.argsort(distance[matches], kind="mergesort")]
        nearest_first = distance[matches]
        # ahead[k]: wrong images that rank before match k but not before match k - 1.
        ahead = np.zeros(len(matches) + 1, np.int64)
        for image in range(len(distance)):
            wrong = gallery_identities[image]
            if wrong in (identity, JUNK) or (without_own_camera and gallery_cameras[image] == camera):
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
        rows[first:last] = matches
        wrong_before[first:last] = ahead[:-1].cumsum()
