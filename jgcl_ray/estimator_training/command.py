"""`python -m jgcl_ray.meshes.estimator train`: from the arguments to the weights file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.train import Recipe, train, trained
from jgcl_ray.meshes.estimator_network import EstimatorNetwork
from jgcl_ray.ownership import is_estimator, is_saved_by_torch
from jgcl_ray.places import check_file


def train_weights(given: argparse.Namespace) -> None:
    """Train, telling a line a minute; write the weights; remove the checkpoint beside them."""
    out = given.out.expanduser().absolute()
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    check_file(out, "--out", is_estimator)
    check_file(out.with_name(out.name + ".training"), "--out", is_saved_by_torch)
    named = {name: getattr(given, name) for name in ("figures", "steps", "batch", "seed")}
    recipe = Recipe(**{name: value for name, value in named.items() if value is not None})
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    checkpoint, device = out.with_name(out.name + ".training"), torch.device(given.device)
    if given.workers > 1:
        from jgcl_ray.estimator_training.on_ray import train_on_ray

        train_on_ray(recipe, checkpoint, given.workers, device.type == "cuda", given.drawers, print)
    else:
        for progress in train(recipe, checkpoint, device, given.drawers):
            print(progress.told(recipe.steps), flush=True)
    network, seconds = trained(checkpoint, recipe)
    write_weights(network, out, made_of(recipe, given, seconds))
    checkpoint.unlink()
    print(out)


def made_of(recipe: Recipe, given: argparse.Namespace, seconds: float) -> dict[str, str]:
    """The weights' origin, kept in their file."""
    arguments = [f"--{name} {getattr(recipe, name)}" for name in ("figures", "steps", "batch", "seed")]
    arguments += [f"--device {given.device}", f"--workers {given.workers}", f"--drawers {given.drawers}"]
    return {
        "command": " ".join(
            ["python -m jgcl_ray.meshes.estimator train", *arguments, "--out", shlex.quote(given.out.name)]
        ),
        "recipe": json.dumps(vars(recipe)),
        "minutes": f"{seconds / 60:.1f}",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {given.device}, "
        f"{torch.get_num_threads()} threads",
        "versions": f"Python {sys.version.split()[0]}, torch {torch.__version__}",
    }


def write_weights(network: EstimatorNetwork, path: Path, metadata: dict[str, str]) -> None:
    """Convolutions and matrices in half precision; read by meshes.estimator.load_estimator."""
    tensors = {
        name: (tensor.half() if name.endswith("weight") and tensor.ndim > 1 else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)
