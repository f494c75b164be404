"""What every backbone of the identity encoder is: images in, the last map out, and weights from elsewhere.

Letters: B images, H x W image size, C channels of the last map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Download:
    """ImageNet weights at an address; the end of the file's name is the start of its SHA-256."""

    url: str


@dataclass(frozen=True)
class Package:
    """ImageNet weights inside an installed Python package."""

    module: str
    file: str  # inside the package
    extra: str  # of jgcl_ray, that installs it


@dataclass(frozen=True)
class ByHand:
    """ImageNet weights that no program can fetch."""

    where: str


@dataclass(frozen=True)
class Backbone:
    """One choice of `encoder.backbone`.

    build: whether generated images have statistics of their own -> a module from (images (B, 3, H, W), domain) to the
    last map (B, C, H/16, W/16). heads: how names begin in files of others that are no part of the backbone.
    translate: the names in files of others -> those of the module, where they differ.
    """

    build: Callable[[bool], nn.Module]
    channels: int  # C
    imagenet: Download | Package | ByHand
    heads: tuple[str, ...]
    translate: Callable[[State], dict[str, torch.Tensor]] = dict


def initialise_convolutions(module: nn.Module) -> None:
    """He et al. 2015, as the field's convolutional networks start."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
