"""The identity encoder E_id: appearance code and embedding of an image (GCL 3.1; METHOD "Networks").

Letters: B images, H x W image size, C channels of the last map, D width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.config import EncoderConfig
from jgcl_ray.floats import at_least_float32
from jgcl_ray.models.backbones import BACKBONES
from jgcl_ray.models.batch_norm import Domain, DomainBatchNorm, group_statistics

CODE_CELLS = 4  # cells of the appearance code, from head to foot


@dataclass(frozen=True)
class EncoderOutput:
    """What E_id says of a batch, in float32 (of float64 images in float64)."""

    code: torch.Tensor  # (B, 4C) appearance code, channel first: entry c*4+p is channel c, cell p from the top
    embedding: torch.Tensor  # (B, D) before L2 normalisation; compare embeddings only after it


class IdentityEncoder(nn.Module):
    """E_id: a backbone, and two readings of its last map.

    Head `linear`: pool, Linear C -> D, batch norm. Head `linear_relu`: ReLU besides, as in torchreid's OSNet. Head
    `pool`: pool, batch norm, D = C.
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Random weights; `weights.build_encoder` loads what the config asks for."""
        super().__init__()
        backbone, projects = BACKBONES[config.backbone], config.head != "pool"
        self.code_width = CODE_CELLS * backbone.channels
        self.embedding_width = config.embedding if projects else backbone.channels
        self.rectifies = config.head == "linear_relu"
        self.backbone = backbone.build(config.separate_batch_norm)
        self.pool: nn.Module = GeneralisedMean() if config.pooling == "gem" else nn.AdaptiveAvgPool2d(1)
        self.embed: nn.Module = nn.Identity()
        if projects:
            self.embed = nn.Linear(backbone.channels, self.embedding_width)
            nn.init.kaiming_normal_(self.embed.weight, mode="fan_out")
            nn.init.zeros_(self.embed.bias)
        self.embed_norm = DomainBatchNorm(self.embedding_width, config.separate_batch_norm)
        group_statistics(self, config.batch_norm_group)

    def forward(self, image: torch.Tensor, domain: Domain = "real") -> EncoderOutput:
        """image (B, 3, H, W), ImageNet mean/std normalised; domain: whose batch-norm statistics are meant."""
        last = self.backbone(image, domain)
        code = F.adaptive_avg_pool2d(last, (CODE_CELLS, 1)).flatten(1)
        embedding = self.embed_norm(at_least_float32(self.embed(self.pool(last).flatten(1))), domain)
        return EncoderOutput(at_least_float32(code), F.relu(embedding) if self.rectifies else embedding)


class GeneralisedMean(nn.Module):
    """GeM pooling: (mean of x^p)^(1/p) over the map, p learnt from 3 (Radenovic et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w) -> (B, C, 1, 1) float32."""
        return at_least_float32(x).clamp(min=1e-6).pow(self.power).mean((2, 3), keepdim=True).pow(1 / self.power)
