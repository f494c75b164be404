"""Tracklets as labels for free: images of one are one person, two of one camera at one time are two people.

Tracklets are clustered in place of images: an image takes the label of its tracklet (must-link), and tracklets of
one camera whose time spans share a moment never share a label (cannot-link). Where the tracker changed over from one
person to another, the tracklet is cut in two. No pairs are listed: time spans are compared where they are sorted.

Letters: N rows (images), U units (tracklets, parts of cut ones, images outside tracklets), D embedding width.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass

import numba
import numpy as np
from scipy.sparse import csr_array

from jgcl_ray.batches import Tracks
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, over_rows
from jgcl_ray.pseudo_labels.exact_search import nearest_rows

# Images that each part of a cut tracklet has at least: a single odd crop is no other person.
LEAST_IN_PART = 2
# The share of the tracklets that may be cut: only those whose parts are least alike are searched for.
DOUBTED = 0.25
# Other tracklets that are nearer to either part than the parts are to each other, before a tracklet is cut.
NEARER = 2


@dataclass(frozen=True, eq=False)
class Units:
    """What is clustered, and what is known of it."""

    of_row: np.ndarray  # (N,) int64
    features: np.ndarray  # (U, D) float32: normalised mean of the rows' features
    sizes: np.ndarray  # (U,) int64: rows of each
    cameras: np.ndarray  # (U,) int64, -1 unknown
    spans: np.ndarray  # (U, 2) int64: first and last moment, in the order of all moments that occur; -1 unknown
    tracklets: int  # as they came
    cut: int  # of them, cut in two

    def linkable(self, graph: csr_array) -> csr_array:
        """A graph of distances (U, U) without the pairs that cannot be one person."""
        rows = np.repeat(np.arange(graph.shape[0], dtype=graph.indices.dtype), np.diff(graph.indptr))
        kept = ~self.apart(rows, graph.indices)
        if kept.all():
            return graph
        ends = np.concatenate([[0], kept.cumsum()])[graph.indptr].astype(graph.indptr.dtype)
        return csr_array((graph.data[kept], graph.indices[kept], ends), shape=graph.shape)

    def apart(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether units `one` (n,) and `other` (n,) cannot be linked: one camera, and spans that share a moment."""
        same = (self.cameras[one] == self.cameras[other]) & self._timed[one] & self._timed[other]
        first, last = self.spans.T
        return same & (first[one] <= last[other]) & (first[other] <= last[one]) & (one != other)

    def pairs_apart(self, labels: np.ndarray) -> np.ndarray:
        """How many pairs that cannot be linked each cluster holds, (C,) int64. labels (U,) int64, -1 for outliers."""
        units = np.flatnonzero((labels >= 0) & self._timed)
        cells = labels[units] * (int(self.cameras.max(initial=0)) + 1) + self.cameras[units]
        cells = np.unique(cells, return_inverse=True)[1] * (int(self.spans.max(initial=0)) + 1)
        starts, ends = (cells + self.spans[units, column] for column in (0, 1))
        order = np.argsort(starts, kind="stable")
        # Of the units in the same cell that start before, those count that have not ended before.
        ended = np.searchsorted(np.sort(ends), starts[order], side="left")
        pairs = np.arange(len(units)) - ended
        return np.bincount(labels[units[order]], pairs, minlength=int(labels.max(initial=-1)) + 1).astype(np.int64)

    @property
    def _timed(self) -> np.ndarray:
        return (self.cameras >= 0) & (self.spans >= 0).all(1)


def units_of(features: np.ndarray, tracks: Tracks, cameras: np.ndarray | None, threads: int | None = None) -> Units:
    """Tracklets out of rows, cut where their halves disagree.

    features (N, D) float32, rows of unit length; cameras (N,), None where they are not known: then nothing is apart.
    A tracklet is divided where its two parts, of LEAST_IN_PART rows or more, differ most (the rows in the order of
    time). It is cut there if NEARER other tracklets or more are nearer to the first part than the second one is, and
    as many to the second part than the first one is; only the DOUBTED share of tracklets whose parts are least alike
    can be. UserError where a tracklet is in two cameras, or ends before it begins.
    """
    threads = threads or available_threads()
    num_rows, inside = len(features), tracks.tracklets >= 0
    times = np.full(num_rows, np.nan) if tracks.times is None else tracks.times
    names = np.where(inside, tracks.tracklets, int(tracks.tracklets.max(initial=-1)) + 1 + np.arange(num_rows))
    names, unit = np.unique(names, return_inverse=True)
    order = np.lexsort((times, unit))  # rows of the same time, or of none, stay in the order of the rows
    ends = np.concatenate([[0], np.bincount(unit).cumsum()])
    if cameras is not None:
        _check_cameras(tracks.tracklets, cameras)
    spans = tracks.spans if tracks.spans is not None else np.full((num_rows, 2), np.nan)
    spans = np.where(inside[:, None], spans, times[:, None])[order[ends[:-1]]]
    if (spans[:, 0] > spans[:, 1]).any():
        wrong = int(np.flatnonzero(spans[:, 0] > spans[:, 1])[0])
        raise UserError(
            f"tracklet {names[wrong]} ends at {spans[wrong, 1]:g} before it begins at {spans[wrong, 0]:g}"
        )

    means, cuts = _summaries(features, order, ends, threads)
    places = _switches(features, means, order, ends, cuts)
    if len(places):
        whole = np.searchsorted(ends, places, side="right") - 1
        joints = np.stack([times[order[places - 1]], times[order[places]]], axis=1)
        spans = np.insert(spans, whole + 1, spans[whole], axis=0)
        first = whole + np.arange(len(whole))
        spans[first, 1], spans[first + 1, 0] = joints.T
        ends = np.insert(ends, whole + 1, places)
        means = _summaries(features, order, ends, threads)[0]
    sizes = np.diff(ends)
    of_row = np.empty(num_rows, np.int64)
    of_row[order] = np.repeat(np.arange(len(sizes)), sizes)
    of_camera = np.full(len(sizes), -1) if cameras is None else cameras[order[ends[:-1]]].astype(np.int64)
    count = len(np.unique(tracks.tracklets[inside]))
    return Units(of_row, means, sizes, of_camera, _in_order(spans), count, len(places))


def split(labels: np.ndarray, graph: csr_array, units: Units, least: int) -> tuple[np.ndarray, int]:
    """Clusters without a pair that cannot be linked, and how many such pairs were in them before.

    Each cluster that holds one is built again from its units: of the pairs in `graph`, nearest first (of equals that
    of the lower units), each joins the two groups its units are in, unless a unit of the one cannot be linked with a
    unit of the other. Groups of fewer than `least` rows become outliers. labels (U,) int64, -1 for outliers; graph
    (U, U) symmetric, distances up to eps. Clusters are numbered as they came, parts of one by their first unit.
    """
    pairs = units.pairs_apart(labels)
    if not pairs.any():
        return labels, 0
    members = np.flatnonzero(np.append(pairs > 0, False)[labels])
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    wanted = (labels[rows] == labels[graph.indices]) & (rows < graph.indices)
    wanted[wanted] = pairs[labels[rows[wanted]]] > 0
    rows, columns = rows[wanted], graph.indices[wanted].astype(np.int64)
    nearest_first = np.lexsort((columns, rows, graph.data[wanted]))
    groups = _joined(members, rows[nearest_first].tolist(), columns[nearest_first].tolist(), units)
    part = np.zeros(len(labels), np.int64)
    part[members] = groups
    keys = np.stack([labels, part])
    cells, place = np.unique(keys, axis=1, return_inverse=True)
    place = place.reshape(-1)
    kept = (cells[0] >= 0) & (
        np.bincount(place, units.sizes) >= np.where(np.append(pairs, 0)[cells[0]] > 0, least, 0)
    )
    return np.where(kept, kept.cumsum() - 1, -1)[place], int(pairs.sum())


def _joined(members: np.ndarray, rows: list[int], columns: list[int], units: Units) -> np.ndarray:
    """The lowest unit of each member's group, (len(members),) int64."""
    parent = {unit: unit for unit in members.tolist()}
    # Camera -> first and last moments of a group's units, ascending: they share no moment, so both lists ascend.
    lives: dict[int, dict[int, tuple[list[int], list[int]]]] = defaultdict(dict)
    for unit in members[units._timed[members]].tolist():
        first, last = units.spans[unit].tolist()
        lives[unit][int(units.cameras[unit])] = [first], [last]

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = unit = parent[parent[unit]]
        return unit

    for row, column in zip(rows, columns, strict=True):
        low, high = sorted((root(row), root(column)))
        if low == high or _meet(lives[low], lives[high]):
            continue
        parent[high] = low
        lives[low] = _merged(lives[low], lives.pop(high))
    return np.array([root(unit) for unit in members.tolist()], np.int64)


Lives = dict[int, tuple[list[int], list[int]]]


def _meet(one: Lives, other: Lives) -> bool:
    """Whether units of two groups are in one camera at one moment."""
    for camera in one.keys() & other.keys():
        (firsts, lasts), (longer_firsts, longer_lasts) = sorted(
            (one[camera], other[camera]), key=lambda times: len(times[0])
        )
        for first, last in zip(firsts, lasts, strict=True):
            place = bisect_left(longer_lasts, first)
            if place < len(longer_firsts) and longer_firsts[place] <= last:
                return True
    return False


def _merged(one: Lives, other: Lives) -> Lives:
    for camera, times in other.items():
        if camera not in one:
            one[camera] = times
            continue
        (firsts, lasts), (longer_firsts, longer_lasts) = sorted((one[camera], times), key=lambda some: len(some[0]))
        for first, last in zip(firsts, lasts, strict=True):
            place = bisect_left(longer_firsts, first)
            longer_firsts.insert(place, first)
            longer_lasts.insert(place, last)
        one[camera] = longer_firsts, longer_lasts
    return one


def _check_cameras(tracklets: np.ndarray, cameras: np.ndarray) -> None:
    inside = np.flatnonzero(tracklets >= 0)
    pairs = np.unique(np.stack([tracklets[inside], cameras[inside]]), axis=1)
    twice = pairs[0, 1:][pairs[0, 1:] == pairs[0, :-1]]
    if len(twice):
        raise UserError(f"tracklet {twice[0]} is in two cameras; a tracklet is of one camera")


def _in_order(spans: np.ndarray) -> np.ndarray:
    """Spans (U, 2) by the rank of their moments, int64; -1 where one is not known."""
    known = ~np.isnan(spans)
    ranks = np.full(spans.shape, -1, np.int64)
    ranks[known] = np.unique(spans[known], return_inverse=True)[1].reshape(-1)
    return ranks


def _summaries(
    features: np.ndarray, order: np.ndarray, ends: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised means (U, D) float32, and where the two parts of each unit differ most, (U,) int64; -1: nowhere."""
    units = len(ends) - 1
    means, cuts = np.empty((units, features.shape[1]), np.float32), np.empty(units, np.int64)
    over_rows(_summarise, units, threads, features, order, ends, means, cuts)
    return means, cuts


def _switches(
    features: np.ndarray, means: np.ndarray, order: np.ndarray, ends: np.ndarray, cuts: np.ndarray
) -> np.ndarray:
    """Where in `order` tracklets are cut, (n,) int64 ascending."""
    units = np.flatnonzero(cuts >= 0)
    if not len(units):
        return units
    bounds = ends[units], cuts[units], ends[units + 1]
    likeness = np.empty(len(units), np.float32)
    parts = np.empty((2, 0, features.shape[1]), np.float32)
    for block in _blocks(len(units)):
        parts = _parts(features, order, *(bound[block] for bound in bounds))
        likeness[block] = np.einsum("nd,nd->n", *parts)
    doubted = np.sort(np.argsort(likeness, kind="stable")[: int(DOUBTED * len(units))])
    switched = np.zeros(len(doubted), bool)
    wanted = min(NEARER + 1, len(means))  # the unit itself may be among them
    for block in _blocks(len(doubted)):
        some = doubted[block]
        parts = _parts(features, order, *(bound[some] for bound in bounds))
        disagree = np.ones(len(some), bool)
        for part in parts:
            rows = nearest_rows(part, means, wanted)[1]
            near = np.einsum("nd,nkd->nk", part, means[rows]) > likeness[some, None]
            disagree &= (near & (rows != units[some, None])).sum(1) >= NEARER
        switched[block] = disagree
    return cuts[units[doubted[switched]]]


def _parts(
    features: np.ndarray, order: np.ndarray, starts: np.ndarray, cuts: np.ndarray, stops: np.ndarray
) -> np.ndarray:
    """Normalised means of both parts of tracklets, (2, n, D) float32."""
    ends = np.stack([starts, cuts, stops], axis=1)
    parts = np.empty((2, len(starts), features.shape[1]), np.float32)
    for column in (0, 1):
        for row, (start, stop) in enumerate(ends[:, column : column + 2]):
            parts[column, row] = features[order[start:stop]].sum(0)
    return parts / np.maximum(np.linalg.norm(parts, axis=2, keepdims=True), np.finfo(np.float32).tiny)


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + 4096, count)) for start in range(0, count, 4096)]


@numba.njit(nogil=True, cache=True)
def _summarise(start, stop, features, order, ends, means, cuts):  # type: ignore[no-untyped-def]
    width = features.shape[1]
    total, before = np.empty(width, np.float64), np.empty(width, np.float64)
    for unit in range(start, stop):
        total[:] = 0
        before[:] = 0
        first, last = ends[unit], ends[unit + 1]
        for p in range(first, last):
            for d in range(width):
                total[d] += features[order[p], d]
        norm = np.sqrt(np.sum(total * total))
        if norm > 1e-6:
            for d in range(width):
                means[unit, d] = total[d] / norm
        else:  # rows that cancel each other out
            means[unit] = features[order[first]]
        cuts[unit] = -1
        most = -1.0
        for p in range(first + 1, last - LEAST_IN_PART + 1):
            one = other = 0.0
            for d in range(width):
                before[d] += features[order[p - 1], d]
                one += before[d] ** 2
                other += (total[d] - before[d]) ** 2
            # Rows of unit length are least spread within two parts where this is largest.
            gain = one / (p - first) + other / (last - p)
            if p - first >= LEAST_IN_PART and gain > most:
                most = gain
                cuts[unit] = p
