"""Scores of an encoder: features by all workers, the ranking by the first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import torch
from torch import nn

from jgcl_ray.batches import ImageBatch, PseudoLabels
from jgcl_ray.data.datasets import Split
from jgcl_ray.distributed import rank as worker
from jgcl_ray.distributed import sum_over_workers
from jgcl_ray.evaluation.ranking import RankingProtocol, RankingResult, rank
from jgcl_ray.pseudo_labels.extract import extract_features


@dataclass(frozen=True)
class Scores:
    """Of one evaluation; fractions."""

    mAP: float
    rank1: float
    mINP: float
    queries: int

    @classmethod
    def of(cls, result: RankingResult) -> Scores:
        """Those of a ranking that training records."""
        return cls(result.mAP, float(result.cmc[0]), result.mINP, result.queries)

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """By the names of the run log."""
        return {f"{prefix}mAP": self.mAP, f"{prefix}rank-1": self.rank1, f"{prefix}mINP": self.mINP}


def evaluate(
    encoder: nn.Module,
    query: Split,
    gallery: Split,
    query_batches: Iterable[ImageBatch],
    gallery_batches: Iterable[ImageBatch],
    protocol: RankingProtocol = "market",
) -> Scores:
    """Of two splits, this worker's shards of which are given. A collective; equal on every worker."""
    query_features = extract_features(encoder, query_batches, len(query))
    gallery_features = extract_features(encoder, gallery_batches, len(gallery))
    return _on_first_worker(query_features.numpy(), gallery_features.numpy(), query, gallery, protocol)


def validate(features: torch.Tensor, labels: PseudoLabels, cameras: np.ndarray) -> Scores | None:
    """Images by camera and identity or pseudo label: with the latter, how far encoder and labelling agree.

    features (N, D) normalised, cameras (N,). Of every cluster seen by two cameras or more, the first image in each
    camera is a query; all other images, outliers as distractors among them, are the gallery. It measures whether the
    encoder brings together across cameras what the labelling joined, before all that it did not. None where no
    cluster spans two cameras.
    """
    identities = labels.labels + 1  # outliers become 0, the protocol's distractor
    seen = identities * (int(cameras.max(initial=0)) + 2) + cameras + 1  # one number for an identity in a camera
    first = np.unique(seen, return_index=True)[1]
    query = np.sort(first[identities[first] > 0])
    gallery = np.setdiff1d(np.arange(len(features)), query)
    others = np.bincount(identities[gallery], minlength=labels.num_clusters + 1)[identities[query]]
    if not (others > np.bincount(seen[gallery], minlength=seen.max() + 1)[seen[query]]).any():
        return None
    found = features.numpy()
    result = rank(
        found[query], found[gallery], identities[query], identities[gallery], cameras[query], cameras[gallery]
    )
    return Scores.of(result)


def _on_first_worker(
    query_features: np.ndarray, gallery_features: np.ndarray, query: Split, gallery: Split, protocol: RankingProtocol
) -> Scores:
    assert query.identities is not None and gallery.identities is not None
    numbers = torch.zeros(len(fields(Scores)), dtype=torch.float64)
    if worker() == 0:
        labels = query.identities, gallery.identities, query.cameras, gallery.cameras
        result = rank(query_features, gallery_features, *labels, protocol=protocol)
        numbers[:] = torch.tensor(astuple(Scores.of(result)))
    scored = Scores(*sum_over_workers(numbers).tolist())
    return replace(scored, queries=int(scored.queries))
