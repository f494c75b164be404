"""The optimisers of METHOD "Stages"; schedules belong to the stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from jgcl_ray.config import ContrastSchedule, OptimConfig
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


def build_optimisers(
    networks: Networks,
    optim: OptimConfig,
    warmup: ContrastSchedule | None = None,
    joint: ContrastSchedule | None = None,
) -> Optimisers:
    """Adam for all, but for the encoder's joint stage without a `joint` schedule: SGD with Nesterov momentum."""
    encoder = list(networks.encoder.parameters())
    generator = [*networks.structure_encoder.parameters(), *networks.generator.parameters()]
    joint_encoder: torch.optim.Optimizer = torch.optim.SGD(
        encoder,
        lr=optim.encoder_lr,
        momentum=optim.encoder_momentum,
        nesterov=True,
        weight_decay=optim.weight_decay,
    )
    return Optimisers(
        _contrast_adam(encoder, warmup or ContrastSchedule()),
        joint_encoder if joint is None else _contrast_adam(encoder, joint),
        _adversarial_adam(generator, optim.generator_lr, optim),
        _adversarial_adam(list(networks.discriminator.parameters()), optim.discriminator_lr, optim),
    )


def _contrast_adam(parameters: list[torch.nn.Parameter], schedule: ContrastSchedule) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)


def _adversarial_adam(parameters: list[torch.nn.Parameter], lr: float, optim: OptimConfig) -> torch.optim.Optimizer:
    betas = optim.adam_betas
    return torch.optim.Adam(parameters, lr=lr, betas=betas, weight_decay=optim.weight_decay, fused=True)
