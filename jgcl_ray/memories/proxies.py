"""One momentum row per cluster and camera (CAP, arXiv 2012.10674; ICE, arXiv 2103.16364)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from jgcl_ray.config import CentroidMemoryConfig
from jgcl_ray.memories.centroids import CentroidMemory


class CameraProxies:
    """Rows (R, D), L2-normalised: row r is the mean feature of the images of cluster clusters[r] in cameras[r]."""

    def __init__(
        self,
        features: torch.Tensor,
        labels: np.ndarray,
        cameras: np.ndarray,
        config: CentroidMemoryConfig,
        device: torch.device | str | None = None,
    ) -> None:
        """From the features (N, D) of all training images, their labels (N,), -1 for outliers, and cameras (N,)."""
        clustered = labels >= 0
        pairs = np.stack([labels, cameras], axis=1)[clustered]
        self._pairs, rows = np.unique(pairs, axis=0, return_inverse=True)
        self.row_of = torch.full((len(labels),), -1, dtype=torch.int64)  # of each training image; -1 for outliers
        self.row_of[torch.from_numpy(clustered)] = torch.from_numpy(rows.reshape(-1).astype(np.int64))
        self.memory = CentroidMemory(features, self.row_of, config, device)
        self.clusters, self.cameras = torch.from_numpy(self._pairs.astype(np.int64)).to(self.memory.device).unbind(1)

    def __len__(self) -> int:
        """R."""
        return len(self._pairs)

    def update(self, index: torch.Tensor, features: torch.Tensor) -> None:
        """Move the rows of the images `index` (B,) towards their features (B, D), as CentroidMemory.update does.

        A collective.
        """
        self.memory.update(self.row_of[index.cpu()].to(features.device), features)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """`rows` (R, D); clusters and cameras follow from the labels."""
        return self.memory.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over the rows bit for bit, made from the same labels."""
        self.memory.load_state_dict(state)
