"""`python -m jgcl_ray.pretrain encoder`: from the arguments to the weights file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import STREET, ensure_cutouts
from jgcl_ray.models.backbones import BACKBONES
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.encoder_files import METADATA, EncoderSpec, check_fits
from jgcl_ray.models.origin import origin, packed
from jgcl_ray.models.shipped import shipped
from jgcl_ray.ownership import is_pretrained, is_saved_by_torch
from jgcl_ray.places import check_file
from jgcl_ray.pretraining.encoder import train, trained
from jgcl_ray.pretraining.recipe import EncoderRecipe

OPTIONS = ("figures", "minutes", "steps", "people", "images", "backbone", "init", "height", "width", "seed")
MINUTES = 60.0  # where neither --minutes nor --steps is given


def train_encoder(given: argparse.Namespace) -> None:
    """Train, telling a line a minute; write the weights; remove the checkpoint beside them."""
    out = given.out.expanduser().absolute()
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    recipe = recipe_of(given)
    checkpoint, device = out.with_name(out.name + ".training"), torch.device(given.device)
    check_file(out, "--out", is_pretrained)
    check_file(checkpoint, "--out", is_saved_by_torch)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    if given.workers > 1:
        _train_on_ray(recipe, checkpoint, given)
    else:
        for line in lines(recipe, checkpoint, device, given.drawers):
            print(line, flush=True)
    encoder, seconds = trained(checkpoint, recipe)
    write_encoder(encoder, recipe, out, origin(_command(recipe, given), recipe, seconds, given.device))
    checkpoint.unlink()
    print(out)


def recipe_of(given: argparse.Namespace) -> EncoderRecipe:
    """What the arguments ask for; UserError for what cannot be."""
    named = {name: getattr(given, name) for name in OPTIONS}
    recipe = EncoderRecipe(**{name: value for name, value in named.items() if value is not None})
    if recipe.steps is None and recipe.minutes is None:
        recipe = replace(recipe, minutes=MINUTES)
    if recipe.backbone not in BACKBONES:
        raise UserError(f"--backbone {recipe.backbone}: unknown; known: {', '.join(BACKBONES)}")
    if recipe.steps is not None and recipe.minutes is not None:
        raise UserError("--steps and --minutes: give one of them")
    if recipe.init is not None:
        check_fits(shipped(recipe.init), recipe.architecture, f"--init {recipe.init}")
    if recipe.images > STREET.cutouts:
        raise UserError(f"--images {recipe.images}: there are {STREET.cutouts} cut-outs of each person; give fewer")
    if recipe.people > recipe.identities or recipe.people % (2 * given.workers):
        raise UserError(
            f"--people {recipe.people}: a batch takes them in pairs from {recipe.identities:,}, over "
            f"{given.workers} workers; give a multiple of {2 * given.workers}, no greater than that"
        )
    return recipe


def render(recipe: EncoderRecipe) -> None:
    """The cut-outs that a recipe needs, into the cache."""
    ensure_cutouts(recipe.figures, recipe.seed, spec=STREET)


def lines(recipe: EncoderRecipe, checkpoint: Path, device: torch.device, drawers: int) -> Iterator[str]:
    """Train, and tell it."""
    for progress in train(recipe, checkpoint, device, drawers):
        yield progress.line(recipe)


def write_encoder(encoder: IdentityEncoder, recipe: EncoderRecipe, path: Path, metadata: dict[str, str]) -> None:
    """Convolutions and matrices as int8 with a scale for each output channel; read by Encoder.load."""
    spec = EncoderSpec(recipe.architecture, recipe.height, recipe.width).document()
    with replacing(path) as partial:
        save_file(packed(encoder), partial, metadata | {METADATA: json.dumps(spec)})


def _train_on_ray(recipe: EncoderRecipe, checkpoint: Path, given: argparse.Namespace) -> None:
    from jgcl_ray.estimator_training.on_ray import Training, train_on_ray

    if recipe.steps is None:
        raise UserError(f"--workers {given.workers} are of one mind about --steps only; give those, not --minutes")
    training = Training(render, lines, trained)
    train_on_ray(training, recipe, checkpoint, given.workers, given.device == "cuda", given.drawers, print)


def _command(recipe: EncoderRecipe, given: argparse.Namespace) -> str:
    parts = [
        f"--{name} {shlex.quote(str(getattr(recipe, name)))}" for name in OPTIONS if getattr(recipe, name) is not None
    ]
    parts += [f"--device {given.device}", f"--workers {given.workers}", f"--drawers {given.drawers}"]
    return " ".join(["python -m jgcl_ray.pretrain encoder", *parts, "--out", shlex.quote(given.out.name)])
