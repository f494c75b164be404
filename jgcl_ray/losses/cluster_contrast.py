"""Cluster contrast: an image against the centroids of all clusters (Cluster-Contrast, arXiv 2103.11568, eq. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from jgcl_ray.memories.centroids import CentroidMemory


def cluster_contrast(
    f: torch.Tensor,
    labels: torch.Tensor,
    memory: CentroidMemory,
    temperature: float,
    trust: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over the batch of -log(exp(f.phi_y/t) / sum_k exp(f.phi_k/t)), phi_k the centroid of cluster k.

    f (B, D): embeddings of any scale, normalised here, in the memory's precision; labels (B,) int64. An outlier (-1)
    counts as a loss of 0, so that workers with outliers weigh as much as those without. trust (B,): factors on the
    loss of each image.
    """
    f = F.normalize(f.to(memory.rows.dtype), dim=1)
    with torch.autocast(f.device.type, enabled=False):
        logits = f @ memory.rows.T / temperature  # (B, C)
    if not len(memory):
        return logits.sum()
    losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    return (losses if trust is None else losses * trust).sum() / len(f)
