"""Run folders of small untrained networks, for tests of what takes a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from jgcl_ray.config import load_config
from jgcl_ray.models.networks import build_networks
from jgcl_ray.training.checkpoint import Checkpoints, Position, Saved

SMALL = """
    data.height=80 data.width=40 encoder.backbone=resnet18 encoder.weights=random encoder.embedding=16
    generator.width=1 generator.style_width=8 discriminator.width=2 discriminator.scales=1
""".split()


def write_run(folder: Path, *overrides: str, seed: int = 0, position: Position | None = None) -> Path:
    """A run folder with one checkpoint, its best and latest."""
    config = load_config(None, [*SMALL, *overrides])
    torch.manual_seed(seed)
    networks = build_networks(config)
    networks.encoder.embed_norm.running_mean.normal_()  # unlike the statistics of a network never trained
    checkpoints = Checkpoints(folder / "checkpoints")
    saved = Saved(position or Position(stage=2), config.model_dump(mode="json"), {})
    checkpoints.mark_best(checkpoints.save(f"step{seed:07d}", networks, saved))
    return folder
