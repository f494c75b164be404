"""Tracklets in place of images, against N x N matrices and loops; no two people of one moment in one cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

import dense
import numpy as np
import pytest

from jgcl_ray.batches import PseudoLabels, Tracks
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels.clustering import advice, pseudo_labels
from jgcl_ray.pseudo_labels.tracklets import Units, units_of


@dataclass(frozen=True)
class Footage:
    """Rows of tracklets in cameras, in any order; T tracklets."""

    features: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    tracks: Tracks


def footage(seed: int, tracklets: int = 60, noise: float = 0.8, singles: int = 6) -> Footage:
    """Tracklets of 3 to 8 rows, moments out of few so that many begin or end together; some rows outside of any."""
    random = np.random.default_rng(seed)
    sizes = np.concatenate([random.integers(3, 9, tracklets), np.ones(singles, np.int64)])
    people, cameras = random.integers(0, tracklets // 5, len(sizes)), random.integers(1, 4, len(sizes))
    starts = random.integers(0, 60, len(sizes)).astype(float)
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    times = np.concatenate([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)])
    spans = np.stack([starts, starts + sizes - 1], axis=1)[of_row]
    spans[of_row >= tracklets] = np.nan
    centres = random.standard_normal((tracklets // 5, 24))
    scene = 0.5 * random.standard_normal((4, 24))
    features = centres[people[of_row]] + scene[cameras[of_row]] + noise * random.standard_normal((len(of_row), 24))
    order = random.permutation(len(of_row))
    numbers = np.where(of_row < tracklets, 3 * of_row + 5, -1)
    return Footage(
        dense.unit(features)[order],
        people[of_row][order],
        cameras[of_row][order],
        Tracks(numbers[order], times[order], spans[order]),
    )


def moments(units: Units) -> list[set[tuple[int, int]]]:
    """Camera and moment of every moment at which each unit was there."""
    return [
        {(int(camera), moment) for moment in range(first, last + 1)} if camera >= 0 and first >= 0 <= last else set()
        for camera, (first, last) in zip(units.cameras, units.spans.tolist(), strict=True)
    ]


def apart_matrix(units: Units) -> np.ndarray:
    there = moments(units)
    return np.array([[i != j and bool(a & b) for j, b in enumerate(there)] for i, a in enumerate(there)])


def split_densely(labels: np.ndarray, distances: np.ndarray, apart: np.ndarray, sizes: np.ndarray, least: int):
    """Every cluster with a pair apart, built again by agglomeration over all pairs; (groups of units, pairs)."""
    groups, pairs = [], 0
    for label in range(labels.max(initial=-1) + 1):
        members = np.flatnonzero(labels == label).tolist()
        inside = int(apart[np.ix_(members, members)].sum()) // 2
        pairs += inside
        if not inside:
            groups.append(frozenset(members))
            continue
        parts = [{unit} for unit in members]
        near = [(distances[i, j], i, j) for i in members for j in members if i < j and distances[i, j] < 1]
        for _, i, j in sorted(near):
            [one], [other] = ([part for part in parts if unit in part] for unit in (i, j))
            if one is not other and not apart[np.ix_(sorted(one), sorted(other))].any():
                parts.remove(other)
                one |= other
        groups += [frozenset(part) for part in parts if sizes[sorted(part)].sum() >= least]
    return groups, pairs


def groups_of(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(labels.max(initial=-1) + 1)}


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_those_of_the_dense_way(seed: int) -> None:
    random = np.random.default_rng(seed)
    given = footage(seed, noise=float(random.uniform(0.4, 1.6)))
    k1, eps, least = int(random.integers(4, 20)), float(random.uniform(0.4, 0.9)), int(random.integers(2, 9))
    config = PseudoLabelsConfig(k1=k1, k2=3, eps=eps, min_samples=least)
    units = units_of(given.features, given.tracks, given.cameras, 1)
    apart = apart_matrix(units)
    distances = dense.jaccard(units.features, k1, 3).astype(np.float32)
    distances[apart | (distances > eps)] = 1
    model = dense.DBSCAN(eps=eps, min_samples=least, metric="precomputed")
    np.fill_diagonal(distances, 0)
    labels = model.fit(distances, sample_weight=units.sizes).labels_
    groups, pairs = split_densely(labels, distances, apart, units.sizes, least)
    found = pseudo_labels(given.features, config, given.cameras, 1, tracks=given.tracks)
    expected = {frozenset(np.flatnonzero(np.isin(units.of_row, sorted(group))).tolist()) for group in groups}
    assert groups_of(found.labels) == expected
    assert found.cannot_links_split == pairs
    assert (found.num_clusters, found.num_outliers) == (found.labels.max() + 1, (found.labels < 0).sum())
    assert (found.tracklets, found.cut_tracklets) == (60, units.cut)


def test_some_of_the_above_had_something_to_split() -> None:
    pairs = [_labelled(footage(seed), eps=0.7).cannot_links_split for seed in range(12)]
    assert sum(count > 0 for count in pairs) >= 6


@pytest.mark.parametrize(
    "change", [{"eps": 0.95}, {"rho": 0.05}, {"rho": 0.9}, {"method": "hdbscan", "min_samples": 2}]
)
@pytest.mark.parametrize("seed", range(4))
def test_never_two_people_of_one_moment_in_one_cluster(seed: int, change: dict) -> None:
    given = footage(seed, noise=2.0)
    found = _labelled(given, **change)
    units = units_of(given.features, given.tracks, given.cameras, 1)
    of_unit = np.full(len(units.sizes), -1)
    of_unit[units.of_row] = found.labels
    np.testing.assert_array_equal(of_unit[units.of_row], found.labels)  # one label for all rows of a unit
    same = (of_unit[:, None] == of_unit) & (of_unit >= 0)
    assert not (same & apart_matrix(units)).any()


def test_pairs_apart_are_counted_as_by_hand() -> None:
    given = footage(3)
    units = units_of(given.features, given.tracks, given.cameras, 1)
    labels = np.random.default_rng(0).integers(-1, 5, len(units.sizes))
    apart = apart_matrix(units)
    expected = [apart[np.ix_(labels == label, labels == label)].sum() // 2 for label in range(5)]
    np.testing.assert_array_equal(units.pairs_apart(labels), expected)
    one, other = np.nonzero(np.ones_like(apart))
    np.testing.assert_array_equal(units.apart(one, other).reshape(apart.shape), apart)


def test_a_switch_of_the_tracker_is_cut_where_it_happened() -> None:
    given = footage(1, noise=0, singles=0)
    random = np.random.default_rng(0)
    of_a_walk = 0.5 * random.standard_normal((400, 24))[given.tracks.tracklets]  # rows of one are more alike
    noise = 0.2 * random.standard_normal(given.features.shape)
    given = replace(given, features=dense.unit(3 * given.features + of_a_walk + noise))
    tracklets, identities = given.tracks.tracklets.copy(), given.identities
    rows = [np.flatnonzero(tracklets == number) for number in np.unique(tracklets)]
    rows = [some[np.argsort(given.tracks.times[some])] for some in rows if len(some) >= 5]
    first, second = next(
        (one, other)
        for one in rows
        for other in rows
        if given.cameras[one[0]] == given.cameras[other[0]] and identities[one[0]] != identities[other[0]]
    )
    tracklets[second[2:]], tracklets[first[3:]] = tracklets[first[0]], tracklets[second[0]]
    times = np.arange(len(tracklets), dtype=float)  # of which the second parts are the later ones
    times[np.concatenate([second[2:], first[3:]])] += len(tracklets)
    tracks = Tracks(tracklets, times)
    units = units_of(given.features, tracks, given.cameras, 1)
    parts = {frozenset(np.flatnonzero(units.of_row == unit).tolist()) for unit in range(len(units.sizes))}
    assert units.cut == 2
    assert parts >= {frozenset(part.tolist()) for part in (first[:3], first[3:], second[:2], second[2:])}
    assert units_of(given.features, given.tracks, given.cameras, 1).cut == 0


def test_a_unit_is_the_mean_of_its_rows_and_parts_share_the_span() -> None:
    given = footage(2, noise=0.8)
    units = units_of(given.features, given.tracks, given.cameras, 1)
    for unit in range(len(units.sizes)):
        rows = np.flatnonzero(units.of_row == unit)
        assert len(rows) == units.sizes[unit] and len(np.unique(given.tracks.tracklets[rows])) == 1
        np.testing.assert_allclose(units.features[unit], dense.unit(given.features[rows].sum(0)[None])[0], atol=1e-6)
        first, last = units.spans[unit]
        ranks = np.unique(given.tracks.times)
        assert (first <= last) and ranks[0] <= given.tracks.times[rows].min()


def test_without_times_or_cameras_nothing_is_apart_and_images_stay_together() -> None:
    given = footage(4)
    for tracks, cameras in ((Tracks(given.tracks.tracklets), given.cameras), (given.tracks, None)):
        units = units_of(given.features, tracks, cameras, 1)
        assert not units.pairs_apart(np.zeros(len(units.sizes), np.int64)).any()
        found = pseudo_labels(given.features, PseudoLabelsConfig(k1=8, k2=3, eps=0.6), cameras, 1, tracks=tracks)
        for unit in range(len(units.sizes)):
            assert len(np.unique(found.labels[units.of_row == unit])) == 1


def test_off_is_as_if_nobody_had_tracked() -> None:
    given = footage(5)
    config = PseudoLabelsConfig(k1=8, k2=3, eps=0.6, tracklets="off")
    np.testing.assert_array_equal(
        pseudo_labels(given.features, config, given.cameras, 1, tracks=given.tracks).labels,
        pseudo_labels(given.features, config, given.cameras, 1).labels,
    )


def test_tracklets_have_a_neighbourhood_of_their_own() -> None:
    given = footage(3)
    own = _labelled(given, k1=25, k2=6, eps=0.5, tracklet_k1=8, tracklet_k2=3)
    as_all = _labelled(given, k1=8, k2=3, eps=0.5)
    np.testing.assert_array_equal(own.labels, as_all.labels)
    assert not np.array_equal(own.labels, _labelled(given, k1=25, k2=6, eps=0.5).labels)
    without = _labelled(given, k1=25, k2=6, eps=0.5, tracklet_k1=8, tracklet_k2=3, tracklets="off")
    np.testing.assert_array_equal(without.labels, _labelled(given, k1=25, k2=6, eps=0.5, tracklets="off").labels)
    with pytest.raises(ValueError, match="k2 = 6 of tracklets is more than their k1 = 5; lower tracklet_k2"):
        PseudoLabelsConfig(k1=25, k2=6, tracklet_k1=5)


def test_tracklets_are_named_in_advice_and_in_errors() -> None:
    given = footage(6)
    found = _labelled(given, k1=70, k2=3, eps=0.5)
    assert "60 tracklets, all neighbours" in (advice(found, PseudoLabelsConfig(k1=70)) or "")
    row = int(np.flatnonzero(given.tracks.tracklets == 5)[0])
    cameras = given.cameras.copy()
    cameras[row] = 9
    with pytest.raises(UserError, match="tracklet 5 is in two cameras"):
        units_of(given.features, given.tracks, cameras)
    spans = np.where(given.tracks.tracklets[:, None] == 5, given.tracks.spans[:, ::-1], given.tracks.spans)
    with pytest.raises(UserError, match=r"tracklet 5 ends at .* before it begins"):
        units_of(given.features, replace(given.tracks, spans=spans), given.cameras)


def _labelled(given: Footage, **settings) -> PseudoLabels:
    config = PseudoLabelsConfig(**{"k1": 10, "k2": 3, **settings})
    return pseudo_labels(given.features, config, given.cameras, 1, tracks=given.tracks)
