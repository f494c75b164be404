"""What the camera of an image is good for: CA-Jaccard distance, and how many cameras a cluster was seen by.

Sources: "CA-Jaccard: Camera-aware Jaccard Distance for Person Re-identification" (Chen et al., CVPR 2024); the
entropy of a cluster's cameras as in "3C: Confidence-guided Clustering and Contrastive Learning for Unsupervised
Person Re-identification" (Zheng et al., 2024).

Letters: N rows, D embedding width, C clusters.
"""

from __future__ import annotations

import numba
import numpy as np

from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads, over_rows
from jgcl_ray.pseudo_labels.distances import ReciprocalEncoding, encode_sets, reciprocal_places
from jgcl_ray.pseudo_labels.neighbours import nearest_by_camera


def encode(
    features: np.ndarray, cameras: np.ndarray, config: PseudoLabelsConfig, threads: int | None = None
) -> ReciprocalEncoding:
    """V of the camera-aware Jaccard distance.

    CKRNNs: E(i) holds the reciprocal neighbours among the k1_intra nearest others of i's camera, those among the
    k1_inter nearest of the other cameras, and i; it is not expanded further. CLQE: V(i) is averaged over the first
    k2_intra of its camera, i included, and the first k2_inter of the others. features (N, D) float32; cameras (N,).
    """
    cameras = check_cameras(cameras, len(features))
    threads = threads or available_threads()
    intra, inter = nearest_by_camera(
        features, cameras, config.k1_intra + 1, config.k1_inter, config.neighbours, threads, config.min_recall
    )
    lists = [array for found in (intra, inter) for array in (found.rank, reciprocal_places(found.rank, threads))]
    sets = over_rows(_joined_rows, len(features), threads, *lists)
    expansion = np.hstack([intra.rank[:, : config.k2_intra], inter.rank[:, : config.k2_inter]])
    return encode_sets(features, sets, expansion, intra.recall, threads)


def check_cameras(cameras: np.ndarray, num_rows: int) -> np.ndarray:
    """cameras as (num_rows,) integers; UserError for another length or type."""
    cameras = np.asarray(cameras)
    if cameras.shape != (num_rows,) or cameras.dtype.kind not in "iu":
        raise UserError(
            f"cameras: {cameras.dtype} of shape {cameras.shape}; expected one integer for each of {num_rows} images"
        )
    return cameras


def camera_entropy(labels: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Entropy in nats of the cameras of each cluster, (C,) float64: 0 where one camera saw it, at most log(cameras).

    labels (N,) int64, -1 for outliers; cameras (N,) integers.
    """
    cameras = check_cameras(cameras, len(labels))
    inside = labels >= 0
    seen = np.unique(cameras, return_inverse=True)[1]
    width = int(seen.max(initial=0)) + 1
    cells, counts = np.unique(labels[inside] * width + seen[inside], return_counts=True)
    clusters = cells // width
    share = counts / np.bincount(clusters, counts)[clusters]
    return np.bincount(clusters, -share * np.log(share), minlength=int(labels.max(initial=-1)) + 1) + 0.0


def drop_clusters(labels: np.ndarray, cameras: np.ndarray, max_entropy: float = 0.0) -> np.ndarray:
    """labels with clusters of camera entropy up to `max_entropy` made outliers, the rest numbered as they came."""
    kept = camera_entropy(labels, cameras) > max_entropy + 1e-12
    renumbered = np.where(kept, kept.cumsum() - 1, -1)
    return np.append(renumbered, -1)[labels]


def entropy_weights(labels: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """(N,) float32: the camera entropy of each row's cluster over its largest possible value; 0 for outliers.

    With one camera in all, nothing can be distinguished and every clustered row weighs 1.
    """
    cameras = check_cameras(cameras, len(labels))
    most = np.log(max(len(np.unique(cameras)), 1))
    entropy = camera_entropy(labels, cameras)
    weights = entropy / most if most > 0 else np.ones_like(entropy)
    return np.append(weights, 0).astype(np.float32)[labels]


@numba.njit(nogil=True, cache=True)
def _joined_rows(start, stop, intra, intra_places, inter, inter_places):  # type: ignore[no-untyped-def]
    sizes = np.empty(stop - start, np.int64)
    members = np.empty((stop - start) * (intra.shape[1] + inter.shape[1]), np.int32)
    used = 0
    for i in range(start, stop):
        before = used
        for rank, places in ((intra, intra_places), (inter, inter_places)):
            for c in range(rank.shape[1]):
                if places[i, c] < rank.shape[1]:
                    members[used] = rank[i, c]
                    used += 1
        members[before:used] = np.sort(members[before:used])
        sizes[i - start] = used - before
    return sizes, members[:used].copy()
