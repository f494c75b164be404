"""From distances to pseudo labels: eps by the rho rule, DBSCAN or HDBSCAN on the sparse graph, advice in words.

Letters: N rows, U units (rows, or tracklets in their place), D embedding width, M = N (N - 1) / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN, HDBSCAN
from sklearn.neighbors import sort_graph_by_row_values

from jgcl_ray.batches import PseudoLabels, Tracks
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels import camera_aware
from jgcl_ray.pseudo_labels.distances import BINS, ZERO, encode
from jgcl_ray.pseudo_labels.neighbours import check_features, nearest
from jgcl_ray.pseudo_labels.on_device import encode_on_device, nearest_on_device
from jgcl_ray.pseudo_labels.tracklets import Units, split, units_of
from jgcl_ray.wording import counted

__all__ = ["METHODS", "PseudoLabels", "advice", "dbscan_labels", "eps_by_rho", "pseudo_labels"]


class Encoding(Protocol):
    """What gives distances in passes over the rows: distances.ReciprocalEncoding, and its like on a GPU."""

    @property
    def num_rows(self) -> int: ...

    @property
    def recall(self) -> float: ...

    def within(self, limit: float) -> csr_array: ...

    def histogram(self) -> np.ndarray: ...


def dbscan_labels(
    features: np.ndarray, k1: int = 30, k2: int = 6, rho: float = 0.002, min_samples: int = 4
) -> PseudoLabels:
    """DBSCAN on the k-reciprocal Jaccard distance, eps by the rho rule, neighbours exact.

    features: (N, D) float32, rows of unit length; k2 counts up to k1. The labels are those of scikit-learn on the
    dense matrix.
    """
    return pseudo_labels(
        features, PseudoLabelsConfig(k1=k1, k2=min(k1, k2), rho=rho, min_samples=min_samples, neighbours="exact")
    )


def pseudo_labels(
    features: np.ndarray,
    config: PseudoLabelsConfig,
    cameras: np.ndarray | None = None,
    threads: int | None = None,
    device: str = "cpu",
    tracks: Tracks | None = None,
) -> PseudoLabels:
    """Labels of all rows by the configured distance and method.

    features: (N, D) float32, rows of unit length; cameras: (N,) integers, needed by what is camera-aware. On another
    device than the CPU the Jaccard distance is computed there, neighbours exactly; CA-Jaccard stays on the CPU.
    tracks: where given (and config.tracklets is not off), tracklets are clustered in place of images, each counting
    as many rows as it has; no two that cannot be one person come into one cluster (tracklets.py).
    UserError for features that are not finite, of another type or length, and where cameras are missing.
    """
    features = check_features(features)
    if cameras is None and (config.distance == "camera_aware_jaccard" or config.single_camera != "keep"):
        raise UserError(
            f"pseudo_labels.distance={config.distance}, single_camera={config.single_camera} need the camera of each "
            "image; use distance=jaccard and single_camera=keep for data without"
        )
    if tracks is None or config.tracklets == "off":
        encoding = _encoding(features, config, cameras, threads, device)
        found = replace(METHODS[config.method](encoding, config, None), recall=encoding.recall)
    else:
        units = units_of(features, tracks, cameras, threads)
        found = _of_units(units, config.for_tracklets, threads, device)
    if cameras is None or config.single_camera == "keep":
        return found
    if config.single_camera == "weigh":
        return replace(found, weights=camera_aware.entropy_weights(found.labels, cameras))
    kept = _labelling(camera_aware.drop_clusters(found.labels, cameras, config.min_camera_entropy), found.eps)
    dropped = found.num_clusters - kept.num_clusters
    return replace(
        found,
        labels=kept.labels,
        num_clusters=kept.num_clusters,
        num_outliers=kept.num_outliers,
        dropped=dropped,
    )


def _of_units(units: Units, config: PseudoLabelsConfig, threads: int | None, device: str) -> PseudoLabels:
    """The labels of rows by those of their units."""
    encoding = _encoding(check_features(units.features), config, units.cameras, threads, device)
    found = METHODS[config.method](encoding, config, units)
    labels = found.labels[units.of_row]
    return replace(
        found,
        labels=labels,
        num_outliers=int((labels < 0).sum()),
        recall=encoding.recall,
        tracklets=units.tracklets,
        cut_tracklets=units.cut,
    )


def _encoding(
    features: np.ndarray, config: PseudoLabelsConfig, cameras: np.ndarray | None, threads: int | None, device: str
) -> Encoding:
    if config.distance == "camera_aware_jaccard":
        assert cameras is not None
        return camera_aware.encode(features, cameras, config, threads)
    if device != "cpu":
        on_device = torch.tensor(features, device=device)
        return encode_on_device(on_device, nearest_on_device(on_device, config.k1), config.k1, config.k2)
    found = nearest(features, config.k1, config.neighbours, threads, config.min_recall)
    return encode(features, found, config.k1, config.k2, threads)


def dbscan(encoding: Encoding, config: PseudoLabelsConfig, units: Units | None = None) -> PseudoLabels:
    """DBSCAN (Ester et al., KDD 1996) with the fixed eps of the configuration, or that of the rho rule.

    units: what the rows of `encoding` are, where these are tracklets.
    """
    if config.eps is not None:
        return dbscan_on_graph(encoding.within(config.eps), config.eps, config.min_samples, units)
    # Only pairs up to the edge of the bin that holds the last of the smallest can matter, to eps and to DBSCAN.
    counts = encoding.histogram()
    pairs = encoding.num_rows * (encoding.num_rows - 1) // 2 - int(counts[0]) // 2
    reached = np.flatnonzero(counts[1:].cumsum() >= 2 * _smallest(pairs, config.rho))
    graph = encoding.within(min((int(reached[0]) + 1) / BINS, 1.0) if len(reached) else 1.0)
    eps = eps_by_rho(graph, config.rho)
    return dbscan_on_graph(graph, eps, config.min_samples, units)


def eps_by_rho(distances: csr_array, rho: float) -> float:
    """Mean of the smallest round(rho * M) of the M positive distances, at least of one.

    distances: symmetric (N, N), absent pairs 1. Those below ZERO are not positive. ZERO where no pair is.
    """
    num_rows = distances.shape[0]
    positive = distances.data[distances.data >= ZERO]
    pairs, stored = num_rows * (num_rows - 1) // 2 - (distances.nnz - len(positive)) // 2, len(positive) // 2
    if pairs == 0:
        return ZERO
    count = _smallest(pairs, rho)
    if count > stored:
        return float((positive.sum(dtype=np.float64) / 2 + count - stored) / count)
    positive.partition(2 * count - 1)  # every pair is stored twice
    return float(positive[: 2 * count].mean(dtype=np.float64))


def _smallest(pairs: int, rho: float) -> int:
    return min(max(round(rho * pairs), 1), pairs)


def dbscan_on_graph(graph: csr_array, eps: float, min_samples: int, units: Units | None = None) -> PseudoLabels:
    """Labels of scikit-learn's DBSCAN. graph: symmetric (N, N), the distances up to eps or more, absent pairs 1.

    units: where the rows are tracklets, each weighs as many rows as it has, pairs that cannot be linked are not near,
    and a cluster that holds such a pair nevertheless is split.
    """
    if units is not None:
        graph = units.linkable(graph)
    near = graph.data <= eps
    rows = np.repeat(np.arange(graph.shape[0], dtype=np.int32), np.diff(graph.indptr))[near]
    within = csr_array((graph.data[near], (rows, graph.indices[near])), shape=graph.shape)
    weights = np.ones(graph.shape[0], np.int64) if units is None else units.sizes
    if eps >= 1:  # then absent pairs are near, too
        labels = np.full(graph.shape[0], 0 if weights.sum() >= min_samples else -1)
    else:
        ordered = sort_graph_by_row_values(within, copy=units is not None, warn_when_not_sorted=False)
        model = DBSCAN(eps=1.0, min_samples=min_samples, metric="precomputed")
        labels = model.fit(ordered, sample_weight=None if units is None else weights).labels_
    return _labelling(labels, eps) if units is None else _split(labels, eps, within, units, min_samples)


def hdbscan(encoding: Encoding, config: PseudoLabelsConfig, units: Units | None = None) -> PseudoLabels:
    """HDBSCAN (Campello et al., PAKDD 2013) of clusters of at least `min_samples` rows, as on the dense matrix.

    scikit-learn's takes a connected graph without zeros, `min_samples` entries to a row: distances below ZERO become
    ZERO, and some absent pairs are written down with their distance, which is 1. It keeps all distances at once.
    units: where the rows are tracklets; `min_samples` counts these, pairs that cannot be linked have distance 1, and
    a cluster that holds such a pair nevertheless is split.
    """
    num_rows, size = encoding.num_rows, max(config.min_samples, 2)
    if num_rows < size:
        return _labelling(np.full(num_rows, -1), float("nan"))
    graph = encoding.within(1.0)
    stored = graph = graph if units is None else units.linkable(graph)
    graph = graph.astype(np.float64)
    graph.data = np.maximum(graph.data, ZERO)
    graph = (graph + ZERO * eye_array(num_rows)).tocsr()
    first = np.unique(connected_components(graph, directed=False)[1], return_index=True)[1]  # a row of each part
    short = np.flatnonzero(np.diff(graph.indptr) < size)
    offsets = np.arange(1, min(2 * size, num_rows))
    rows = np.concatenate([first[:-1], np.repeat(short, len(offsets))])
    columns = np.concatenate([first[1:], (np.add.outer(short, offsets) % num_rows).ravel()])
    absent = csr_array((np.ones(2 * len(rows)), (np.append(rows, columns), np.append(columns, rows))), graph.shape)
    absent = (absent > 0).astype(np.float64) - (absent > 0).multiply(graph > 0).astype(np.float64)
    absent.eliminate_zeros()
    model = HDBSCAN(min_cluster_size=size, metric="precomputed", copy=False).fit((graph + absent).tocsr())
    if units is None:
        return _labelling(model.labels_, float("nan"))
    return _split(model.labels_, float("nan"), stored, units, 1)


def advice(found: PseudoLabels, config: PseudoLabelsConfig) -> str | None:
    """What to change where the labelling is of no use to training, in one line; None where nothing stands out."""
    if found.tracklets:
        config = config.for_tracklets
    of = "tracklet_" if found.tracklets else ""  # what the fields begin with
    num_rows = len(found.labels)
    outliers = found.num_outliers / max(num_rows, 1)
    largest = np.bincount(found.labels[found.labels >= 0], minlength=1).max() / max(num_rows, 1)
    radius = "eps" if config.eps is not None else "rho"
    knobs = f"pseudo_labels.{radius}" if config.method == "dbscan" else "pseudo_labels.min_samples"
    k1 = f"pseudo_labels.{of}k1"
    tighter = f"lower {knobs} or {k1}" if config.method == "dbscan" else f"raise {knobs} or lower {k1}"
    looser = f"raise {knobs} or {k1}, or lower min_samples" if config.method == "dbscan" else f"lower {knobs}"
    count, one = (found.tracklets, "tracklet") if found.tracklets else (num_rows, "image")
    kind = f"{one}s"
    if count < config.min_samples:
        return (
            f"{counted(count, one)}, and a cluster takes pseudo_labels.min_samples = {config.min_samples}; give more "
            "images, or lower it"
        )
    if found.dropped and found.num_clusters == 0:
        return (
            f"{counted(found.dropped, 'cluster')}, each of one camera and dropped (pseudo_labels.single_camera=drop, "
            f"min_camera_entropy={config.min_camera_entropy:g}); use pseudo_labels.single_camera=keep or weigh"
        )
    if count <= config.k1:
        return f"{count} {kind}, all neighbours of each other with {k1} = {config.k1}; lower it"
    if config.method == "dbscan" and config.eps is None and found.eps > 0.8:
        return (  # eps of use lie between 0.3 and 0.7
            f"eps is {found.eps:.3f}: rho = {config.rho:g} asks for {config.rho * count:.0f} near {kind} to each, "
            f"more than share a neighbour; lower pseudo_labels.rho, {25 / count:.2g} would ask for 25"
        )
    if found.num_clusters == 0:
        return (
            f"no cluster, {counted(num_rows, 'image')} as outliers; {looser}; or the features are still without "
            "structure"
        )
    if found.num_clusters == 1 or largest > 0.5:
        return f"{largest:.0%} of the images in one of {counted(found.num_clusters, 'cluster')}; {tighter}"
    if outliers > 0.5:
        return f"{outliers:.0%} of the images are outliers; {looser}"
    return None


METHODS: dict[str, Callable[[Encoding, PseudoLabelsConfig, Units | None], PseudoLabels]] = {
    "dbscan": dbscan,
    "hdbscan": hdbscan,
}


def _split(labels: np.ndarray, eps: float, graph: csr_array, units: Units, least: int) -> PseudoLabels:
    parted, pairs = split(labels.astype(np.int64), graph, units, least)
    return replace(_labelling(parted, eps), cannot_links_split=pairs)


def _labelling(labels: np.ndarray, eps: float) -> PseudoLabels:
    clusters = int(labels.max(initial=-1)) + 1
    return PseudoLabels(labels.astype(np.int64), eps, clusters, int((labels < 0).sum()))
