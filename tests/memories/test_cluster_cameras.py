"""Clusters and proxies that share a camera with an image's cluster, written out with sets."""

from __future__ import annotations

import numpy as np
import torch

from jgcl_ray.memories.cluster_cameras import ClusterCameras

LABELS = np.array([0, 0, 1, 2, 2, -1, 3, -1])
CAMERAS = np.array([7, 2, 2, 5, 7, 9, 9, 5])  # 0: 2 and 7, 1: 2, 2: 5 and 7, 3: 9


def test_rivals_share_a_camera() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    of = [{int(c) for y, c in zip(LABELS, CAMERAS, strict=True) if y == cluster} for cluster in range(4)]
    cameras = ClusterCameras(LABELS, CAMERAS)
    assert cameras.rivals(labels).tolist() == [[bool(a & b) for b in of] for a in of]
    proxies = torch.tensor([2, 7, 2, 5, 7, 9])
    assert cameras.rival_proxies(labels, proxies).tolist() == [[int(c) in a for c in proxies] for a in of]


def test_of_one_camera_all_are_rivals() -> None:
    cameras = ClusterCameras(np.array([0, 1, 2]), np.full(3, -1))
    assert cameras.rivals(torch.tensor([0, 1, 2])).all()


def test_outliers_alone_have_no_rivals() -> None:
    cameras = ClusterCameras(np.full(3, -1), np.array([1, 2, 2]))
    assert cameras.rivals(torch.tensor([-1, -1])).shape == (2, 0)
    assert cameras.rival_proxies(torch.tensor([-1]), torch.zeros(0, dtype=torch.int64)).shape == (1, 0)
