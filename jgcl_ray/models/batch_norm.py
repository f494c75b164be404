"""Batch norm that knows where its images come from, and which of them are one batch."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.distributed import stack_with_gradient
from jgcl_ray.floats import at_least_float32

Domain = Literal["real", "generated"]


class DomainBatchNorm(nn.Module):
    """Batch norm over all but dimension 1, under the names of torch's own.

    Trained, it normalises by the statistics of the batch, in evaluation by running ones: those of real images, or
    those of generated images where these are kept apart (generated_mean, generated_var). Gain and offset are shared.
    Where `synchronised` is set the batch is that of all workers together: two workers with half a batch each
    compute what one does with the whole, for two collectives a layer and pass. Where `group` is set each `group`
    images in a row are normalised by their own statistics, as if each group were a worker's batch; running
    statistics take the mean over the groups.
    """

    weight: nn.Parameter
    running_mean: torch.Tensor
    running_var: torch.Tensor
    generated_mean: torch.Tensor
    generated_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, channels: int, separate: bool, epsilon: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.separate, self.epsilon, self.momentum = separate, epsilon, momentum
        self.synchronised, self.group = False, 0  # 0: no groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.int64))
        if separate:
            self.register_buffer("generated_mean", torch.zeros(channels))
            self.register_buffer("generated_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var
        if self.separate and domain == "generated":
            mean, var = self.generated_mean, self.generated_var
        elif self.training:
            self.num_batches_tracked += 1
        if self.training and self.synchronised:
            return self._over_all_workers(x, mean, var)
        if self.training and self.group and self.group != len(x):
            return self._over_groups(x, mean, var)
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.epsilon)

    def _over_groups(self, x: torch.Tensor, running_mean: torch.Tensor, running_var: torch.Tensor) -> torch.Tensor:
        if len(x) % self.group:
            raise ValueError(f"a batch of {len(x)} images does not divide into batch-norm groups of {self.group}")
        mean, var, parts = torch.zeros_like(running_mean), torch.ones_like(running_var), []
        for place, part in enumerate(x.split(self.group)):
            # With a momentum of 1 / n torch's running statistics are the mean of the n groups so far.
            parts.append(F.batch_norm(part, mean, var, self.weight, self.bias, True, 1 / (place + 1), self.epsilon))
        with torch.no_grad():
            running_mean.lerp_(mean, self.momentum)
            running_var.lerp_(var, self.momentum)
        return torch.cat(parts)

    def _over_all_workers(
        self, x: torch.Tensor, running_mean: torch.Tensor, running_var: torch.Tensor
    ) -> torch.Tensor:
        """Chan et al. 1979: the variance of all from each worker's count, mean and variance."""
        wide, channelwise = at_least_float32(x), (1, -1, *(1 for _ in x.shape[2:]))
        own_var, own_mean = torch.var_mean(wide, [d for d in range(x.ndim) if d != 1], correction=0)
        count = own_mean.new_full((1,), x.numel() / x.shape[1])
        counts, means, variances = stack_with_gradient(torch.cat([count, own_mean, own_var])).tensor_split(
            [1, 1 + len(own_mean)], dim=1
        )
        share = (counts / counts.sum()).detach()
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean).square())).sum(0)
        with torch.no_grad():
            all_of_them = counts.sum()
            running_mean.lerp_(mean, self.momentum)
            running_var.lerp_(var * all_of_them / (all_of_them - 1).clamp(min=1), self.momentum)
        scale = self.weight * (var + self.epsilon).rsqrt()
        return ((wide - mean.view(channelwise)) * scale.view(channelwise) + self.bias.view(channelwise)).to(x.dtype)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm with gain and offset, given the domain as batch norm is: it keeps no statistics to part."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x)


def share_statistics(module: nn.Module) -> None:
    """Let generated images start from the running statistics of real ones, wherever they have their own."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm) and part.separate:
            part.generated_mean.copy_(part.running_mean)
            part.generated_var.copy_(part.running_var)


def synchronise_statistics(module: nn.Module) -> None:
    """Let every batch norm in training count the batches of all workers as one."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm):
            part.synchronised = True


def group_statistics(module: nn.Module, images: int | None) -> None:
    """Let every batch norm in training count each `images` of a worker's batch as a batch; None: all as one."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm):
            part.group = images or 0
