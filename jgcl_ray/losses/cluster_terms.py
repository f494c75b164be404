"""All terms of a Cluster-Contrast step, by name, and their weights.

Letters: B images, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jgcl_ray.config import ClusterContrastConfig
from jgcl_ray.losses.adversarial import sum_of
from jgcl_ray.losses.camera_proxies import camera_proxy_contrast
from jgcl_ray.losses.cluster_contrast import cluster_contrast
from jgcl_ray.losses.joint import Terms
from jgcl_ray.memories.centroids import CentroidMemory
from jgcl_ray.memories.proxies import CameraProxies


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Images of a batch, or views of them, as the encoder embeds them."""

    f: torch.Tensor  # (B, D), of any scale
    labels: torch.Tensor  # (B,) int64: cluster of each, -1 for outliers
    cameras: torch.Tensor  # (B,) int64
    trust: torch.Tensor | None  # (B,): factors on the loss of each image; None: all alike


def cluster_terms(
    images: EmbeddedImages,
    centroids: CentroidMemory,
    proxies: CameraProxies | None,
    temperature: float,
    config: ClusterContrastConfig,
) -> Terms:
    """The terms, each the mean over the batch, without its weight; without proxies none of theirs.

    temperature: of the contrast with the centroids (centroid_memory.temperature).
    """
    f, labels, trust = images.f, images.labels, images.trust
    terms = {"cluster_contrast": cluster_contrast(f, labels, centroids, temperature, trust)}
    if proxies is not None:
        settings = config.proxy_temperature, config.proxy_negatives, trust
        terms["camera_proxies"] = camera_proxy_contrast(f, labels, images.cameras, proxies, *settings)
    return terms


def weighted_cluster_terms(terms: Terms, config: ClusterContrastConfig) -> torch.Tensor:
    """The sum of the terms, each times its weight."""
    weights = {"cluster_contrast": 1.0, "camera_proxies": config.proxy_weight}
    return sum_of([weights[name] * value for name, value in terms.items()])
