"""How good a labelling is, in numbers for the run log.

Letters: N rows, C clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from jgcl_ray.batches import PseudoLabels

# Upper ends of the size histogram: clusters of 1, 2-3, 4-7, ... rows.
SIZE_BINS = tuple(2**power for power in range(21))


@dataclass(frozen=True)
class LabellingQuality:
    """One labelling, measured. Agreements are over rows clustered in both labellings, None where there are none."""

    num_clusters: int
    num_outliers: int
    eps: float  # NaN for methods without one
    recall: float  # of the neighbour search
    largest_share: float  # rows of the largest cluster over N
    size_histogram: dict[int, int]  # clusters by size: the key is the smallest size of a bin, the next key ends it
    single_camera_share: float | None  # clusters seen by one camera, over C; None without cameras or clusters
    nmi_previous: float | None  # normalised mutual information with the labelling of the epoch before
    nmi: float | None  # the same with the true identities
    ari: float | None  # adjusted Rand index with the true identities
    purity: float | None  # rows that bear their cluster's most frequent identity, over clustered rows
    tracklets: int | None = None  # clustered in place of images; None, like what follows, where images were
    cut_tracklets: int | None = None  # of them, whose halves disagree
    cannot_links_split: int | None = None  # pairs of one camera at one time taken apart again

    def metrics(self) -> dict[str, float]:
        """What is a number and known, by name, for the run log; the histogram as `clusters_of_4_to_7` and so on."""
        values = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        values |= {f"clusters_of_{low}_to_{2 * low - 1}": count for low, count in self.size_histogram.items()}
        return {name: float(value) for name, value in values.items() if not np.isnan(value)}


def measure(
    found: PseudoLabels,
    previous: np.ndarray | None = None,
    identities: np.ndarray | None = None,
    cameras: np.ndarray | None = None,
) -> LabellingQuality:
    """The quality of a labelling; previous, identities, cameras: (N,) integers where known, negative for no label."""
    labels = found.labels
    sizes = np.bincount(labels[labels >= 0], minlength=found.num_clusters)
    bins = np.digitize(sizes, SIZE_BINS)
    nmi, ari, purity = _agreement(labels, identities)
    return LabellingQuality(
        num_clusters=found.num_clusters,
        num_outliers=found.num_outliers,
        eps=found.eps,
        recall=found.recall,
        largest_share=float(sizes.max(initial=0) / max(len(labels), 1)),
        size_histogram={
            SIZE_BINS[b - 1]: int(count) for b, count in zip(*np.unique(bins, return_counts=True), strict=True)
        },
        single_camera_share=_single_camera_share(labels, cameras),
        nmi_previous=_agreement(labels, previous)[0],
        nmi=nmi,
        ari=ari,
        purity=purity,
        tracklets=found.tracklets or None,
        cut_tracklets=found.cut_tracklets if found.tracklets else None,
        cannot_links_split=found.cannot_links_split if found.tracklets else None,
    )


def _agreement(labels: np.ndarray, others: np.ndarray | None) -> tuple[float, float, float] | tuple[None, None, None]:
    if others is None:
        return None, None, None
    both = (labels >= 0) & (others >= 0)
    if not both.any():
        return None, None, None
    mine, theirs = labels[both], others[both]
    cells, counts = np.unique(np.stack([mine, theirs]), axis=1, return_counts=True)
    majority = np.zeros(int(mine.max()) + 1, np.int64)
    np.maximum.at(majority, cells[0], counts)
    return (
        float(normalized_mutual_info_score(theirs, mine)),
        float(adjusted_rand_score(theirs, mine)),
        float(majority.sum() / len(mine)),
    )


def _single_camera_share(labels: np.ndarray, cameras: np.ndarray | None) -> float | None:
    if cameras is None or not (labels >= 0).any():
        return None
    pairs = np.unique(np.stack([labels, cameras])[:, labels >= 0], axis=1)
    return float(np.mean(np.unique(pairs[0], return_counts=True)[1] == 1))
