"""Which cameras see which cluster: where two share none, they may be one person, cut in two."""

from __future__ import annotations

import numpy as np
import torch


class ClusterCameras:
    """seen (C, M) bool: whether cluster c has an image of camera m, cameras ascending by number."""

    def __init__(self, labels: np.ndarray, cameras: np.ndarray, device: torch.device | str | None = None) -> None:
        """From the labels (N,) of all training images, 0 .. C - 1 and -1 for outliers, and their cameras (N,)."""
        numbers, columns = np.unique(cameras, return_inverse=True)
        seen = np.zeros((int(labels.max(initial=-1)) + 1, len(numbers)), bool)
        clustered = labels >= 0
        seen[labels[clustered], columns.reshape(-1)[clustered]] = True
        self.seen = torch.from_numpy(seen).to(device)
        self._numbers = torch.from_numpy(numbers.astype(np.int64)).to(device)

    def rivals(self, labels: torch.Tensor) -> torch.Tensor:
        """Clusters that share a camera with those of `labels` (B,), themselves included: (B, C) bool.

        For an outlier (-1), those of some cluster: its loss counts as 0.
        """
        seen = self.seen.float()
        return self._of(labels).float() @ seen.T > 0

    def rival_proxies(self, labels: torch.Tensor, cameras: torch.Tensor) -> torch.Tensor:
        """Which proxies, of `cameras` (R,), lie in a camera that sees the cluster of labels (B,): (B, R) bool."""
        return self._of(labels)[:, torch.searchsorted(self._numbers, cameras)]

    def _of(self, labels: torch.Tensor) -> torch.Tensor:
        if not len(self.seen):  # outliers alone
            return self.seen.new_zeros(len(labels), self.seen.shape[1])
        return self.seen[labels.clamp(min=0)]
