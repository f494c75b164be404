"""Number formats and memory layout of the networks (config.precision)."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from jgcl_ray.config import PrecisionConfig
from jgcl_ray.floats import computes_bf16
from jgcl_ray.models.networks import Networks


def autocast(precision: PrecisionConfig, device: torch.device) -> AbstractContextManager[None]:
    """Around the networks' passes: convolutions and matrix products in bf16, or nothing at all for float32."""
    bf16 = precision.dtype == "bf16" or (precision.dtype == "auto" and computes_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


# What a step calls of each network: torch.compile sees a module's forward only.
_COMPILED = {
    "encoder": ("forward",),
    "structure_encoder": ("forward",),
    "generator": ("style", "decode"),
    "discriminator": ("forward", "with_input_gradient"),
}


def prepare(networks: Networks, precision: PrecisionConfig) -> Networks:
    """Lay the networks out and compile them as asked, in place: once, after weights are loaded and moved."""
    for name, module in networks.named():
        if precision.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision.compile:
            for method in _COMPILED[name]:
                setattr(module, method, torch.compile(getattr(module, method)))
    return networks


def laid_out(images: torch.Tensor, precision: PrecisionConfig) -> torch.Tensor:
    """Images (B, ., H, W) in the memory layout of the networks."""
    return images.contiguous(memory_format=torch.channels_last) if precision.channels_last else images
