"""The contrast with proxies of other cameras, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import CentroidMemoryConfig
from jgcl_ray.losses.camera_proxies import camera_proxy_contrast
from jgcl_ray.memories.proxies import CameraProxies

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, -1, 0, 3])
CAMERAS = np.array([1, 2, 2, 1, 3, 2, 2, 1, 3, 1])


def make_proxies(labels: np.ndarray = LABELS, cameras: np.ndarray = CAMERAS) -> tuple[CameraProxies, torch.Tensor]:
    features = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(0))
    return CameraProxies(features, labels, cameras, CentroidMemoryConfig()), F.normalize(features, dim=1)


def written_out(f: torch.Tensor, label: int, camera: int, proxies: CameraProxies, negatives: int) -> float:
    rows = list(zip(proxies.clusters.tolist(), proxies.cameras.tolist(), proxies.memory.rows, strict=True))
    similar = [math.exp(float(F.normalize(f, dim=0) @ row) / 0.07) for *_, row in rows]
    others = sorted((s for s, (cluster, *_) in zip(similar, rows, strict=True) if cluster != label), reverse=True)
    beside = sum(others[:negatives])
    positive = [s for s, (cluster, of, _) in zip(similar, rows, strict=True) if cluster == label and of != camera]
    return sum(-math.log(s / (s + beside)) for s in positive) / len(positive) if positive else 0.0


def test_proxies_are_the_means_of_cluster_and_camera() -> None:
    proxies, features = make_proxies()
    assert list(zip(proxies.clusters.tolist(), proxies.cameras.tolist(), strict=True)) == sorted(
        {(int(y), int(c)) for y, c in zip(LABELS, CAMERAS, strict=True) if y >= 0}
    )
    of_two = F.normalize(features[1] + features[2], dim=0)
    torch.testing.assert_close(proxies.memory.rows[1], of_two, rtol=0, atol=1e-6)
    assert proxies.row_of.tolist() == [0, 1, 1, 3, 4, 5, 5, -1, 2, 6]


@pytest.mark.parametrize("negatives", [2, 50])
def test_equals_the_sums_written_out(negatives: int) -> None:
    proxies, _ = make_proxies()
    f = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels, cameras = torch.tensor([0, -1, 3, 1]), torch.tensor([2, 1, 1, 2])  # 3 is seen by camera 1 alone
    losses = [
        written_out(x, y, c, proxies, negatives) if y >= 0 else 0.0
        for x, y, c in zip(f.detach(), labels.tolist(), cameras.tolist(), strict=True)
    ]
    loss = camera_proxy_contrast(f, labels, cameras, proxies, 0.07, negatives)
    assert losses[0] > 0 and losses[2] == 0
    assert loss.item() == pytest.approx(sum(losses) / 4, rel=1e-4)
    loss.backward()
    assert f.grad[0].abs().sum() > 0 and f.grad[1:3].eq(0).all()


def test_a_single_cluster_has_no_negatives_and_no_gradient() -> None:
    proxies, _ = make_proxies(np.zeros(4, np.int64), np.array([1, 1, 2, 3]))
    f = torch.randn(2, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = camera_proxy_contrast(f, torch.tensor([0, 0]), torch.tensor([1, 2]), proxies, 0.07, 50)
    loss.backward()
    assert loss.item() == 0 and f.grad.eq(0).all()


def test_an_image_moves_the_proxy_of_its_own_camera_alone() -> None:
    proxies, _ = make_proxies()
    before = proxies.memory.rows.clone()
    proxies.update(torch.tensor([4, 7]), torch.ones(2, 6))  # cluster 1 in camera 3; an outlier
    moved = (proxies.memory.rows - before).abs().sum(1) > 0
    assert moved.tolist() == [False, False, False, False, True, False, False]
