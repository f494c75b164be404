"""The choices of `encoder.backbone`. A new one: its file, and its line in jgcl_ray/choices.py."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name

import torch

from jgcl_ray import choices
from jgcl_ray.models.backbone import Backbone, State

BACKBONES: dict[str, Backbone] = {name: resolve_name(place)[name] for name, place in choices.BACKBONES.items()}


def backbone_of(state: State) -> str | None:
    """The backbone whose weights `state` holds, whatever head is with them; None: no whole one."""
    for name, backbone in BACKBONES.items():
        expected = _expected(name)
        found = backbone.translate(state)
        if _shapes({key: value for key, value in found.items() if not key.startswith(backbone.heads)}) == expected:
            return name
    return None


@cache
def _expected(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return _shapes(BACKBONES[name].build(False).state_dict())


def _shapes(state: State) -> dict[str, torch.Size]:
    """Without what old files lack."""
    return {name: value.shape for name, value in state.items() if not name.endswith("num_batches_tracked")}
