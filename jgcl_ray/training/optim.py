"""The optimisers of METHOD "Stages"; schedules belong to the stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jgcl_ray.config import OptimConfig
from jgcl_ray.models.networks import Networks


@dataclass(frozen=True)
class Optimisers:
    """One for E_id, one for E_str and G, one for D."""

    encoder: torch.optim.Optimizer
    generator: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer


def build_optimisers(networks: Networks, optim: OptimConfig) -> Optimisers:
    """SGD with Nesterov momentum for the encoder, Adam for the others."""
    generator = [*networks.structure_encoder.parameters(), *networks.generator.parameters()]
    return Optimisers(
        torch.optim.SGD(
            networks.encoder.parameters(),
            lr=optim.encoder_lr,
            momentum=optim.encoder_momentum,
            nesterov=True,
            weight_decay=optim.weight_decay,
        ),
        torch.optim.Adam(
            generator, lr=optim.generator_lr, betas=optim.adam_betas, weight_decay=optim.weight_decay, fused=True
        ),
        torch.optim.Adam(
            networks.discriminator.parameters(),
            lr=optim.discriminator_lr,
            betas=optim.adam_betas,
            weight_decay=optim.weight_decay,
            fused=True,
        ),
    )
