"""The contrast against centroids, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import CentroidMemoryConfig
from jgcl_ray.losses.cluster_contrast import cluster_contrast
from jgcl_ray.memories.centroids import CentroidMemory


def make_memory(labels: list[int]) -> CentroidMemory:
    features = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(0))
    return CentroidMemory(features, torch.tensor(labels), CentroidMemoryConfig())


def test_equals_the_sums_written_out_and_outliers_count_as_zero() -> None:
    memory = make_memory([0, 1, 1, 2, -1, 2, 3])
    f = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = [3, -1, 0, 2, 2]
    losses = []
    for feature, label in zip(F.normalize(f.detach(), dim=1), labels, strict=True):
        similar = [math.exp(float(feature @ centroid) / 0.05) for centroid in memory.rows]
        losses.append(-math.log(similar[label] / sum(similar)) if label >= 0 else 0.0)
    loss = cluster_contrast(f, torch.tensor(labels), memory, 0.05)
    assert loss.item() == pytest.approx(sum(losses) / 5, rel=1e-4)
    loss.backward()
    assert f.grad[1].eq(0).all()
    assert f.grad[0].abs().sum() > 0


def test_trust_scales_the_loss_of_each_image() -> None:
    memory, labels = make_memory([0, 1, 2]), torch.tensor([0, 2])
    f = torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    first, second = (cluster_contrast(f[i : i + 1], labels[i : i + 1], memory, 0.05).item() for i in range(2))
    trusted = cluster_contrast(f, labels, memory, 0.05, torch.tensor([0.25, 1.0]))
    assert trusted.item() == pytest.approx((0.25 * first + second) / 2, rel=1e-5)


def test_outliers_alone_give_zero() -> None:
    for memory in (make_memory([0, 1]), make_memory([-1, -1])):
        f = torch.randn(3, 6, requires_grad=True)
        loss = cluster_contrast(f, torch.tensor([-1, -1, -1]), memory, 0.05)
        loss.backward()
        assert loss.item() == 0
        assert not f.grad.any()


def test_autocast_leaves_the_logits_in_float32() -> None:
    memory, labels = make_memory([0, 1, 2, 3]), torch.tensor([0, 2])
    f = torch.randn(2, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cluster_contrast(f, labels, memory, 0.05)
    assert torch.equal(loss, cluster_contrast(f.float(), labels, memory, 0.05))
