"""The four networks of the method, together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from jgcl_ray.config import Config
from jgcl_ray.models.discriminator import Discriminator
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.generator import Generator, StructureEncoder, check_image_size
from jgcl_ray.models.weights import build_encoder


@dataclass(frozen=True)
class Networks:
    """E_id, E_str, G and D."""

    encoder: IdentityEncoder
    structure_encoder: StructureEncoder
    generator: Generator
    discriminator: Discriminator

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and module of each, for checkpoints and broadcasts."""
        yield "encoder", self.encoder
        yield "structure_encoder", self.structure_encoder
        yield "generator", self.generator
        yield "discriminator", self.discriminator

    def to(self, device: torch.device | str) -> Self:
        """Move all of them, in place."""
        for _, module in self.named():
            module.to(device)
        return self


def build_networks(config: Config) -> Networks:
    """The networks of a configuration; UserError where a stage draws and the images do not suit the generator."""
    if any(config.uses_generator(stage) for stage in config.run.stages):
        check_image_size(config.data.height, config.data.width)
    encoder = build_encoder(config.encoder)
    return Networks(
        encoder,
        StructureEncoder(config.generator),
        Generator(config.generator, encoder.code_width),
        Discriminator(config.discriminator),
    )
