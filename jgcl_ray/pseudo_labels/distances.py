"""The k-reciprocal Jaccard distance: exact, and sparse, for all but a few distances are 1.

Source: "Re-ranking Person Re-identification with k-reciprocal Encoding" (Zhong et al., CVPR 2017), eq. 2-10, with
a softmax for its Gaussian kernel, as the unsupervised methods use it.

    R(i)    = {j in rank(i) : i in rank(j)},                     R'(i) the same in the first round(k1/2) + 1 columns
    E(i)    = R(i) + R'(c) for each c in R(i) with |R'(c) & R(i)| > 2/3 |R'(c)|
    V(i, j) = softmax over j in E(i) of -|f_i - f_j|^2, then its mean over the first k2 rows of rank(i)
    d(i, k) = 1 - m / (2 - m),  m = sum_j min(V(i, j), V(k, j))

Letters: N rows, D embedding width, k = min(k1, N) columns of rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from scipy.sparse import csc_array, csr_array

from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, join_rows, over_rows, row_ends
from jgcl_ray.pseudo_labels.neighbours import Neighbours, check_features, nearest

# A distance below this is none: what float32 leaves of the distance between rows that are alike.
ZERO = 1e-6
# Bins of `histogram`; a power of two, so that their edges are exact in float32.
BINS = 4096


def jaccard_distance(
    features: np.ndarray, k1: int, k2: int, neighbours: str = "auto", threads: int | None = None
) -> csr_array:
    """Jaccard distances of all pairs that share a reciprocal neighbour.

    features: (N, D) float32, rows of unit length. Returns a symmetric (N, N) float32 csr_array with sorted indices:
    an absent pair has distance 1, a stored 0 is a distance of 0, the diagonal is not stored.
    """
    features = check_features(features)
    return encode(features, nearest(features, k1, neighbours, threads), k1, k2, threads).within(1.0)


def encode(
    features: np.ndarray,
    found: Neighbours,
    k1: int,
    k2: int,
    threads: int | None = None,
    scales: np.ndarray | None = None,
) -> ReciprocalEncoding:
    """V of all rows from their k nearest. scales (N,) float32: by which a row's squared distances are multiplied."""
    if not 1 <= k2 <= k1:
        raise UserError(f"pseudo_labels.k2={k2}: expected 1 <= k2 <= k1, which is {k1}")
    rank, threads = found.rank, threads or available_threads()
    half = min(half_of(k1), rank.shape[1])
    sets = over_rows(_expanded_rows, len(rank), threads, rank, reciprocal_places(rank, threads), half)
    return encode_sets(features, sets, rank[:, :k2], found.recall, threads, scales)


def half_of(k1: int) -> int:
    """Columns of rank in which R' looks."""
    return int(np.around(k1 / 2)) + 1  # numpy rounds halves to even: 15 for k1 = 30, 12 for k1 = 25


def reciprocal_places(rank: np.ndarray, threads: int) -> np.ndarray:
    """Column of i in the list of its neighbour rank(i, c), as (N, k) int32; k where that does not list i."""
    places = np.empty(rank.shape, np.int32)
    over_rows(_reciprocal_rows, len(rank), threads, rank, places)
    return places


def encode_sets(
    features: np.ndarray,
    sets: list[tuple[np.ndarray, ...]],
    expansion: np.ndarray,
    recall: float,
    threads: int,
    scales: np.ndarray | None = None,
) -> ReciprocalEncoding:
    """V of all rows from their sets.

    sets: E(i) in blocks of rows, (size of each, their members one after another); emptied. expansion (N, k2) int32:
    the rows over which V(i) is averaged, -1 for none. scales (N,) float32: as in `encode`.
    """
    num_rows = len(features)
    scales = np.ones(num_rows, np.float32) if scales is None else scales
    members, indptr = join_rows(sets)
    weights = np.empty(len(members), np.float32)
    over_rows(_softmax_rows, num_rows, threads, features, scales, indptr, members, weights)
    members, weights, indptr = join_rows(
        over_rows(_averaged_rows, num_rows, threads, indptr, members, weights, expansion)
    )
    rows = csr_array((weights, members, indptr), shape=(num_rows, num_rows))
    return ReciprocalEncoding(rows, rows.tocsc(), recall, threads)


@dataclass(frozen=True)
class ReciprocalEncoding:
    """V, from which distances are computed in passes over the rows as often as they are asked for.

    A pass costs less than keeping the distances: at N = 50,000 some thousands to a row are below 1.
    """

    rows: csr_array  # (N, N) float32: V, a few dozen entries to a row
    columns: csc_array  # the same
    recall: float  # of the neighbour search that led here
    threads: int

    @property
    def num_rows(self) -> int:
        return self.rows.shape[0]

    def within(self, limit: float) -> csr_array:
        """The distances up to `limit`, as `jaccard_distance` returns them; all of them for 1."""
        arrays, sizes = self._arrays(), np.empty(self.num_rows, np.int64)
        over_rows(_count_within, self.num_rows, self.threads, *arrays, limit, sizes)
        indptr = row_ends(sizes)
        indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
        over_rows(_fill_within, self.num_rows, self.threads, *arrays, limit, indptr, indices, data)
        return csr_array((data, indices, indptr), shape=self.rows.shape)

    def histogram(self) -> np.ndarray:
        """Counts of stored distances, each pair twice, (BINS + 2,) int64: below ZERO, in bins of 1 / BINS, at 1."""
        return np.sum(
            over_rows(_histogram_rows, self.num_rows, self.threads, *self._arrays(), np.float32(ZERO)), axis=0
        )

    def _arrays(self) -> Sequence[np.ndarray]:
        rows, columns = self.rows, self.columns
        return rows.indptr, rows.indices, rows.data, columns.indptr, columns.indices, columns.data


@numba.njit(nogil=True, cache=True)
def _reciprocal_rows(start, stop, rank, places):  # type: ignore[no-untyped-def]
    k = rank.shape[1]
    for i in range(start, stop):
        for c in range(k):
            places[i, c] = k
            j = rank[i, c]
            if j >= 0:
                for b in range(k):
                    if rank[j, b] == i:
                        places[i, c] = b
                        break


@numba.njit(nogil=True, cache=True)
def _expanded_rows(start, stop, rank, places, half):  # type: ignore[no-untyped-def]
    num_rows, k = rank.shape
    seen, joined = np.full(num_rows, -1, np.int32), np.full(num_rows, -1, np.int32)
    found = np.empty(k + k * half, np.int32)
    sizes = np.empty(stop - start, np.int64)
    members = np.empty((stop - start) * 2 * k, np.int32)
    used = 0
    for i in range(start, stop):
        size = 0
        for c in range(k):
            if places[i, c] < k:
                seen[rank[i, c]] = joined[rank[i, c]] = i
                found[size] = rank[i, c]
                size += 1
        for r in range(size):
            j = found[r]
            total = shared = 0
            for b in range(half):
                if places[j, b] < half:
                    total += 1
                    shared += seen[rank[j, b]] == i
            if 3 * shared > 2 * total:
                for b in range(half):
                    if places[j, b] < half and joined[rank[j, b]] != i:
                        joined[rank[j, b]] = i
                        found[size] = rank[j, b]
                        size += 1
        members = _with_room(members, used, size)
        members[used : used + size] = np.sort(found[:size])
        sizes[i - start] = size
        used += size
    return sizes, members[:used].copy()


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(a.shape[0]):
        total += a[d] * b[d]
    return total


@numba.njit(nogil=True, cache=True)
def _softmax_rows(start, stop, features, scales, indptr, members, weights):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        total = 0.0
        for p in range(indptr[i], indptr[i + 1]):
            weights[p] = np.exp(scales[i] * (2.0 * _dot(features[i], features[members[p]]) - 2.0))
            total += weights[p]
        for p in range(indptr[i], indptr[i + 1]):
            weights[p] /= total


@numba.njit(nogil=True, cache=True)
def _averaged_rows(start, stop, indptr, members, weights, expansion):  # type: ignore[no-untyped-def]
    total = np.zeros(expansion.shape[0], np.float64)
    found = np.empty(expansion.shape[0], np.int32)
    sizes = np.empty(stop - start, np.int64)
    new_members = np.empty(4 * (indptr[stop] - indptr[start]) + 1, np.int32)
    new_weights = np.empty(new_members.size, np.float32)
    used = 0
    for i in range(start, stop):
        size = count = 0
        for j in expansion[i]:
            if j >= 0:
                count += 1
                for p in range(indptr[j], indptr[j + 1]):
                    if total[members[p]] == 0:
                        found[size] = members[p]
                        size += 1
                    total[members[p]] += weights[p]
        new_members, new_weights = _with_room(new_members, used, size), _with_room(new_weights, used, size)
        ordered = np.sort(found[:size])
        for s in range(size):
            new_members[used + s] = ordered[s]
            new_weights[used + s] = total[ordered[s]] / count
            total[ordered[s]] = 0
        sizes[i - start] = size
        used += size
    return sizes, new_members[:used].copy(), new_weights[:used].copy()


@numba.njit(nogil=True, cache=True)
def _scratch(num_rows):  # type: ignore[no-untyped-def]
    flags = np.zeros((num_rows // 128 + 1) * 8, np.uint8)
    overlap = np.zeros(flags.size * 16, np.float32)
    return overlap, flags, np.empty(overlap.size + 1, np.int32), np.empty(overlap.size, np.float32)


@numba.njit(nogil=True, cache=True)
def _row_distances(i, indptr, members, weights, column_indptr, column_rows, column_weights, scratch):  # type: ignore[no-untyped-def]
    overlap, flags, found, distances = scratch
    for p in range(indptr[i], indptr[i + 1]):
        weight, column = weights[p], members[p]
        for q in range(column_indptr[column], column_indptr[column + 1]):
            k = column_rows[q]
            flags[k >> 4] = 1
            overlap[k] += min(weight, column_weights[q])
    overlap[i] = 0
    # Sorted rows without sorting: runs of 16 rows are flagged, and the flags passed over eight at a time.
    eights = flags.view(np.uint64)
    size = 0
    for eight in range(eights.size):
        if eights[eight] != 0:
            for flag in range(8 * eight, 8 * eight + 8):
                if flags[flag]:
                    for k in range(16 * flag, 16 * flag + 16):
                        found[size] = k  # overwritten by the next one unless counted, which is cheaper than a branch
                        size += overlap[k] > 0
            eights[eight] = 0
    for s in range(size):
        m = overlap[found[s]]
        distances[s] = max(np.float32(0), np.float32(1) - m / (np.float32(2) - m))
        overlap[found[s]] = 0
    return size


@numba.njit(nogil=True, cache=True)
def _count_within(start, stop, indptr, members, weights, columns, column_rows, column_weights, limit, sizes):  # type: ignore[no-untyped-def]
    scratch = _scratch(indptr.size - 1)
    for i in range(start, stop):
        size = _row_distances(i, indptr, members, weights, columns, column_rows, column_weights, scratch)
        sizes[i] = np.sum(scratch[3][:size] <= limit)


@numba.njit(nogil=True, cache=True)
def _fill_within(  # type: ignore[no-untyped-def]
    start, stop, indptr, members, weights, columns, column_rows, column_weights, limit, ends, indices, data
):
    scratch = _scratch(indptr.size - 1)
    found, distances = scratch[2], scratch[3]
    for i in range(start, stop):
        at = ends[i]
        for s in range(_row_distances(i, indptr, members, weights, columns, column_rows, column_weights, scratch)):
            if distances[s] <= limit:
                indices[at], data[at] = found[s], distances[s]
                at += 1


@numba.njit(nogil=True, cache=True)
def _histogram_rows(start, stop, indptr, members, weights, columns, column_rows, column_weights, zero):  # type: ignore[no-untyped-def]
    scratch = _scratch(indptr.size - 1)
    distances = scratch[3]
    counts = np.zeros(BINS + 2, np.int64)
    for i in range(start, stop):
        for s in range(_row_distances(i, indptr, members, weights, columns, column_rows, column_weights, scratch)):
            counts[0 if distances[s] < zero else 1 + int(distances[s] * BINS)] += 1
    return counts


@numba.njit(nogil=True, cache=True)
def _with_room(array, used, more):  # type: ignore[no-untyped-def]
    if used + more <= array.size:
        return array
    larger = np.empty(max(2 * array.size, used + more), array.dtype)
    larger[:used] = array[:used]
    return larger
