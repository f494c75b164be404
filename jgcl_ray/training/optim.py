"""The optimisers of METHOD "Stages"; schedules belong to the stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from jgcl_ray.config import OptimConfig, WarmupConfig
from jgcl_ray.models.networks import Networks


@dataclass(frozen=True)
class Optimisers:
    """Two for E_id, in the warm-up and in the joint stage, one for E_str and G, one for D."""

    warmup: torch.optim.Optimizer
    encoder: torch.optim.Optimizer
    generator: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer

    def named(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """Name and optimiser of each, for checkpoints."""
        yield "warmup", self.warmup
        yield "encoder", self.encoder
        yield "generator", self.generator
        yield "discriminator", self.discriminator


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """One rate for all groups: schedules are functions of the epoch, with no state to resume."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def build_optimisers(networks: Networks, optim: OptimConfig, warmup: WarmupConfig | None = None) -> Optimisers:
    """SGD with Nesterov momentum for the encoder's joint stage, Adam for all else."""
    warmup = warmup or WarmupConfig()
    generator = [*networks.structure_encoder.parameters(), *networks.generator.parameters()]
    return Optimisers(
        torch.optim.Adam(networks.encoder.parameters(), lr=warmup.lr, weight_decay=warmup.weight_decay, fused=True),
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
