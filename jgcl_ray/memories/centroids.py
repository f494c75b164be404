"""One momentum row per cluster, for the warm-up (Cluster-Contrast, arXiv 2103.11568, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F

from jgcl_ray.config import CentroidMemoryConfig
from jgcl_ray.distributed import gather_rows
from jgcl_ray.memories.instances import momentum_update


class CentroidMemory:
    """Rows (C, D), L2-normalised: row k is the centroid phi_k of cluster k; the same bits on every worker."""

    def __init__(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        config: CentroidMemoryConfig,
        device: torch.device | str | None = None,
    ) -> None:
        """See `refresh`; the memory lives on `device`, by default that of the features."""
        self.momentum, self.query = config.momentum, config.query
        self.device = torch.device(features.device if device is None else device)
        self.refresh(features, labels)

    def __len__(self) -> int:
        """C."""
        return len(self.rows)

    def refresh(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """phi_k = normalised mean of the normalised features (N, D) whose label (N,) is k; outliers (-1) left out.

        Raises ValueError where a label between 0 and the largest has no feature.
        """
        # On the CPU, where sums have one order: every worker must come to the same bits.
        labels = labels.cpu()
        clusters = int(labels.max()) + 1
        if (missing := torch.bincount(labels[labels >= 0], minlength=clusters) == 0).any():
            raise ValueError(
                f"labels must be 0 .. {clusters - 1} without gaps: {int(missing.nonzero()[0])} is missing"
            )
        sums = torch.zeros(clusters + 1, features.shape[1], dtype=torch.float32)
        groups = torch.where(labels < 0, clusters, labels)
        for part, group in zip(features.split(8192), groups.split(8192), strict=True):
            sums.index_add_(0, group, F.normalize(part.cpu().float(), dim=1))
        self.rows = F.normalize(sums[:clusters], dim=1).to(self.device)

    def update(self, labels: torch.Tensor, features: torch.Tensor) -> None:
        """phi_k <- normalise(m phi_k + (1 - m) q) over the batches of all workers, after the step. A collective.

        labels (B,), outliers (-1) left out; features (B, D), of any scale. The query q of a cluster is each of its
        features, one after the other in the order of the workers and their batches (`each`), the one least similar to
        phi_k, the first of equals (`hardest`), or their mean (`mean`).
        """
        labels = gather_rows(labels).to(self.device)
        features = F.normalize(gather_rows(features).to(self.device, self.rows.dtype), dim=1)
        clustered = (labels >= 0).nonzero()[:, 0]
        labels, features = labels[clustered], features[clustered]
        if self.query == "hardest":
            order = (features * self.rows[labels]).sum(1).argsort(stable=True)
            order = order[labels[order].argsort(stable=True)]
            labels, count = labels.unique(return_counts=True)
            features = features[order[count.cumsum(0) - count]]
        elif self.query == "mean":
            present, count = labels.unique(return_counts=True)
            # A product, not index_add: on a GPU that one adds in no fixed order.
            features = (present[:, None] == labels).to(features.dtype) @ features / count[:, None]
            labels = present
        momentum_update(self.rows, labels, features, self.momentum)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """`rows` (C, D)."""
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over the rows bit for bit, of as many clusters as there were."""
        self.rows = state["rows"].to(self.device, self.rows.dtype, copy=True)

    def to(self, device: torch.device | str) -> Self:
        """Move the memory; returns it."""
        self.device = torch.device(device)
        self.rows = self.rows.to(self.device)
        return self
