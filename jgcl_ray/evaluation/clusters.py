"""What the encoder takes for one person: pseudo labels of the gallery, held against the true ones.

Letters: M gallery images, C clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.pseudo_labels.clustering import advice, pseudo_labels
from jgcl_ray.pseudo_labels.quality import LabellingQuality, measure


@dataclass(frozen=True)
class Cluster:
    """One cluster, those of its most frequent person first."""

    number: int
    rows: np.ndarray  # of the gallery
    person: int  # most frequent identity in it; 0 where all are distractors
    strays: int  # images of others

    @property
    def pure(self) -> bool:
        """Whether it holds one known person and nobody else."""
        return self.person > 0 and not self.strays

    @property
    def mixed(self) -> bool:
        """Whether it holds a known person and somebody else."""
        return self.strays > 0


@dataclass(frozen=True)
class Clustering:
    """A labelling of the gallery."""

    clusters: tuple[Cluster, ...]  # C
    quality: LabellingQuality  # agreements: over photos of known people
    advice: str | None  # what to change where the labelling is of little use
    split_people: int  # identities in two clusters or more
    people: int  # identities in any cluster


def cluster_gallery(
    features: np.ndarray, identities: np.ndarray, cameras: np.ndarray, config: PseudoLabelsConfig
) -> Clustering:
    """Cluster features (M, D) as in training; identities (M,), below 1 for nobody, are used to judge it alone."""
    found = pseudo_labels(features, config, cameras)
    clusters = tuple(_cluster(label, found.labels, identities) for label in range(found.num_clusters))
    placed = (found.labels >= 0) & (identities > 0)
    pairs = np.unique(np.stack([identities[placed], found.labels[placed]]), axis=1)
    people, times = np.unique(pairs[0], return_counts=True)
    return Clustering(
        clusters=clusters,
        quality=measure(found, None, np.where(identities > 0, identities, -1), cameras),
        advice=advice(found, config),
        split_people=int((times > 1).sum()),
        people=len(people),
    )


def example_clusters(clustering: Clustering, count: int) -> list[Cluster]:
    """Half of them the largest that hold one known person, then the most mixed; more of one kind for lack of the
    other, and distractors' alone only where there is nothing else."""
    pure = sorted((c for c in clustering.clusters if c.pure), key=lambda c: -len(c.rows))
    mixed = sorted((c for c in clustering.clusters if c.mixed), key=lambda c: -c.strays)
    of_mixed = min(len(mixed), max(count // 2, count - len(pure)))
    return pure[: count - of_mixed] + mixed[:of_mixed] or list(clustering.clusters[:count])


def for_gallery(config: PseudoLabelsConfig, train_rows: int, gallery_rows: int) -> PseudoLabelsConfig:
    """The training's settings for a gallery: rho, a share of all pairs, such that a photo has as many near ones."""
    return config.model_copy(update={"rho": min(config.rho * train_rows / gallery_rows, 1.0)})


def _cluster(label: int, labels: np.ndarray, identities: np.ndarray) -> Cluster:
    rows = np.flatnonzero(labels == label)
    known = identities[rows][identities[rows] > 0]
    people, counts = np.unique(known, return_counts=True)
    person = int(people[counts.argmax()]) if len(people) else 0
    order = np.lexsort((identities[rows], identities[rows] != person))
    return Cluster(label, rows[order], person, int((identities[rows] != person).sum()))
