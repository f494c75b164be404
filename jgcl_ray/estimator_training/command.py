"""`python -m jgcl_ray.pretrain estimator`: from the arguments to the weights file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import ensure_cutouts
from jgcl_ray.estimator_training.train import Recipe, train, trained
from jgcl_ray.meshes.estimator import load_estimator, weights_metadata
from jgcl_ray.meshes.estimator_network import EstimatorNetwork
from jgcl_ray.models.origin import halved, origin
from jgcl_ray.ownership import is_estimator, is_saved_by_torch
from jgcl_ray.places import absolute, check_file
from jgcl_ray.writer_lock import only_writer


def train_weights(given: argparse.Namespace) -> None:
    """Train, telling a line a minute; write the weights; remove the checkpoint beside them."""
    out = absolute(given.out)
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    check_file(out, "--out", is_estimator)
    check_file(out.with_name(out.name + ".training"), "--out", is_saved_by_torch)
    named = {name: getattr(given, name) for name in ("figures", "steps", "batch", "seed")}
    if given.init is not None:
        load_estimator(given.init)
        named["init"] = str(given.init)
    recipe = Recipe(**{name: value for name, value in named.items() if value is not None})
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    checkpoint, device = out.with_name(out.name + ".training"), torch.device(given.device)
    with only_writer(out.parent, "give another --out", f".{out.name}.lock"):
        if given.workers > 1:
            from jgcl_ray.estimator_training.on_ray import Training, train_on_ray

            if recipe.batch % given.workers:
                raise UserError(f"--batch {recipe.batch} does not divide by --workers {given.workers}")
            training = Training(render, lines, trained)
            train_on_ray(training, recipe, checkpoint, given.workers, device.type == "cuda", given.drawers, print)
        else:
            for line in lines(recipe, checkpoint, device, given.drawers):
                print(line, flush=True)
        network, seconds = trained(checkpoint, recipe)
        write_weights(network, out, made_of(recipe, given, seconds))
        checkpoint.unlink()
    print(out)


def render(recipe: Recipe) -> None:
    """The cut-outs that a recipe needs, into the cache."""
    ensure_cutouts(recipe.figures, recipe.seed)


def lines(recipe: Recipe, checkpoint: Path, device: torch.device, drawers: int) -> Iterator[str]:
    """Train, and tell it."""
    for progress in train(recipe, checkpoint, device, drawers):
        yield progress.line(recipe.steps)


def made_of(recipe: Recipe, given: argparse.Namespace, seconds: float) -> dict[str, str]:
    """The weights' origin, kept in their file."""
    arguments = [f"--{name} {getattr(recipe, name)}" for name in ("figures", "steps", "batch", "seed")]
    if recipe.init is not None:
        arguments.append(f"--init {shlex.quote(recipe.init)}")
    arguments += [f"--device {given.device}", f"--workers {given.workers}", f"--drawers {given.drawers}"]
    command = ["python -m jgcl_ray.pretrain estimator", *arguments, "--out", shlex.quote(given.out.name)]
    before = {} if recipe.init is None else {"before": json.dumps(weights_metadata(Path(recipe.init)))}
    return origin(" ".join(command), recipe, seconds, given.device) | before


def write_weights(network: EstimatorNetwork, path: Path, metadata: dict[str, str]) -> None:
    """Convolutions and matrices in half precision; read by meshes.estimator.load_estimator."""
    with replacing(path) as partial:
        save_file(halved(network), partial, metadata)
