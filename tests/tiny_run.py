"""Runs of seconds: a handful of walkers, networks of a few channels, a few batches."""

from __future__ import annotations

import json
from pathlib import Path

from jgcl_ray.config import Config, load_config

TINY = """
    data.height=80 data.width=40 data.cache=true data.loader_workers=0 data.identities_per_batch=3
    data.images_per_identity=2 data.batch_size=4 encoder.backbone=resnet18 encoder.weights=random
    encoder.embedding=32 generator.width=1 generator.style_width=8 discriminator.width=2 discriminator.scales=1
    discriminator.penalty_every=3
    warmup.epochs=1 warmup.batches_per_epoch=2 generation.epochs=1 joint.epochs=1 joint.decay_at=1 eval.every=1
    pseudo_labels.k1=4 pseudo_labels.k2=2 pseudo_labels.eps=0.7 pseudo_labels.min_samples=2 run.log_every=1
    tracking.enabled=false checkpoints.keep=1
""".split()


def configured(walkers: Path, root: Path, *overrides: str) -> Config:
    return load_config(None, _overrides(walkers, root, *overrides))


def arguments(walkers: Path, root: Path, *overrides: str) -> list[str]:
    """Of `python -m jgcl_ray.train`."""
    return ["--config", "base", *_overrides(walkers, root, *overrides)]


def _overrides(walkers: Path, root: Path, *overrides: str) -> list[str]:
    return [*TINY, f"data.root={walkers}", f"run.root={root}", *overrides]


def records(folder: Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second")
    return [{name: value for name, value in line.items() if not name.startswith(timed)} for line in lines]
