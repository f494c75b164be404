"""What a file of shipped weights holds: fewer bits, and how it was made."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jgcl_ray.wording import counted


def halved(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network on the CPU, convolutions and matrices in half precision."""
    return {
        name: (tensor.half() if name.endswith("weight") and tensor.ndim > 1 else tensor).cpu().contiguous()
        for name, tensor in module.state_dict().items()
    }


_SCALE = ":scale"  # ends the name of a vector that belongs to a tensor; no parameter's name holds a colon


def packed(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network on the CPU, convolutions and matrices as int8 with a scale for each output channel.

    `unpacked` is its inverse but for rounding, at most 1/254 of the channel's largest weight.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        if name.endswith("weight") and value.ndim > 1:
            flat = value.float().flatten(1)
            scale = flat.abs().amax(1).clamp(min=1e-12) / 127
            state[name] = (flat / scale[:, None]).round().to(torch.int8).view(value.shape)
            state[name + _SCALE] = scale
        else:
            state[name] = value
    return state


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state as `packed` gives it, in float32; any other one as it is."""
    return {
        name: value if (scale := state.get(name + _SCALE)) is None else _times(value, scale)
        for name, value in state.items()
        if not name.endswith(_SCALE)
    }


def _times(whole: Tensor, scale: Tensor) -> Tensor:
    return whole.float() * scale.view(-1, *(1 for _ in whole.shape[1:]))


def origin(command: str, recipe: Any, seconds: float, device: str) -> dict[str, str]:
    """For the header of the file. recipe: a dataclass, whatever the weights follow from."""
    return {
        "command": command,
        "recipe": json.dumps(vars(recipe)),
        "minutes": f"{seconds / 60:.1f}",
        "machine": f"{platform.machine()}, {counted(len(os.sched_getaffinity(0)), 'core')}, {device}, "
        f"{counted(torch.get_num_threads(), 'thread')}",
        "versions": f"Python {sys.version.split()[0]}, torch {torch.__version__}",
    }
