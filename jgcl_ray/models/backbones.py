"""The choices of `encoder.backbone`. A new one: its file, its line in BACKBONES, its name in the config."""

from __future__ import annotations

import torch

from jgcl_ray.models import efficientnet, osnet, resnet
from jgcl_ray.models.backbone import Backbone, State

BACKBONES: dict[str, Backbone] = {**resnet.BACKBONES, **osnet.BACKBONES, **efficientnet.BACKBONES}


def backbone_of(state: State) -> str | None:
    """The backbone whose weights `state` holds, whatever head is with them; None: no whole one."""
    for name, backbone in BACKBONES.items():
        with torch.device("meta"):
            expected = _shapes(backbone.build(False).state_dict())
        found = backbone.translate(state)
        if _shapes({key: value for key, value in found.items() if not key.startswith(backbone.heads)}) == expected:
            return name
    return None


def _shapes(state: State) -> dict[str, torch.Size]:
    """Without what old files lack."""
    return {name: value.shape for name, value in state.items() if not name.endswith("num_batches_tracked")}
