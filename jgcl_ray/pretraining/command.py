"""`python -m jgcl_ray.pretrain`: from the arguments to the weights file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import CUTOUTS, SIDES, ensure_cutouts
from jgcl_ray.models.backbones import BACKBONES
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.encoder_files import METADATA, EncoderSpec, check_start, read_header
from jgcl_ray.models.origin import halved, origin, packed
from jgcl_ray.models.shipped import shipped
from jgcl_ray.models.textured_generator import TexturedGenerator, check_size, load_views
from jgcl_ray.ownership import is_pretrained, is_saved_by_torch
from jgcl_ray.places import absolute, check_file
from jgcl_ray.pretraining import encoder, generator
from jgcl_ray.pretraining.recipe import EncoderRecipe, GeneratorRecipe, Recipe
from jgcl_ray.wording import counted
from jgcl_ray.writer_lock import only_writer

LENGTH = ("figures", "minutes", "steps")
PICTURES = ("height", "width", "seed")
ENCODER = (*LENGTH, "people", "images", "backbone", "init", *PICTURES)
GENERATOR = (*LENGTH, "init", "photos", "views", "learning_rate", "adversarial_weight", *PICTURES)
MINUTES = 60.0  # where neither --minutes nor --steps is given

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def train_encoder(given: argparse.Namespace) -> None:
    """Train an encoder, telling a line a minute; write its weights; remove the checkpoint beside them."""
    recipe = encoder_recipe(given)
    _train(recipe, given, encoder_lines, encoder.trained, write_encoder, _command("encoder", ENCODER, recipe, given))


def train_generator(given: argparse.Namespace) -> None:
    """Train a generator of views, likewise."""
    recipe, made = generator_recipe(given), write_generator
    command = _command("generator", GENERATOR, recipe, given)
    _train(recipe, given, generator_lines, generator.trained, made, command)


def encoder_recipe(given: argparse.Namespace) -> EncoderRecipe:
    """What the arguments ask for; UserError for what cannot be."""
    recipe = _asked(EncoderRecipe(), ENCODER, given)
    if recipe.backbone not in BACKBONES:
        raise UserError(f"--backbone {recipe.backbone}: unknown; known: {', '.join(BACKBONES)}")
    if recipe.init is not None:
        check_start(shipped(recipe.init), recipe.architecture, f"--init {recipe.init}")
    if recipe.images > CUTOUTS:
        raise UserError(f"--images {recipe.images}: there are {CUTOUTS} cut-outs of each person; give fewer")
    if recipe.people > recipe.identities or recipe.people % (2 * given.workers):
        raise UserError(
            f"--people {recipe.people}: a batch takes them in pairs from {recipe.identities:,}, over "
            f"{counted(given.workers, 'worker')}; give a multiple of {2 * given.workers}, no greater than that"
        )
    return recipe


def generator_recipe(given: argparse.Namespace) -> GeneratorRecipe:
    """What the arguments ask for; UserError for what cannot be."""
    recipe = _asked(GeneratorRecipe(), GENERATOR, given)
    check_size(recipe.height, recipe.width)
    if recipe.init is not None:
        load_views(Path(recipe.init))
    if recipe.views >= SIDES:
        raise UserError(f"--views {recipe.views}: a pose is seen from {SIDES} sides, one of them the photo's")
    if recipe.photos % given.workers:
        raise UserError(f"--photos {recipe.photos} does not divide by --workers {given.workers}")
    return recipe


def render(recipe: Recipe) -> None:
    """The cut-outs that a recipe needs, into the cache."""
    ensure_cutouts(recipe.figures, recipe.seed)


def encoder_lines(recipe: EncoderRecipe, checkpoint: Path, device: torch.device, drawers: int) -> Iterator[str]:
    """Train, and tell it."""
    for progress in encoder.train(recipe, checkpoint, device, drawers):
        yield progress.line(recipe)


def generator_lines(recipe: GeneratorRecipe, checkpoint: Path, device: torch.device, drawers: int) -> Iterator[str]:
    """Train, and tell it."""
    for progress in generator.train(recipe, checkpoint, device, drawers):
        yield progress.line(recipe)


def write_encoder(network: IdentityEncoder, recipe: EncoderRecipe, path: Path, metadata: dict[str, str]) -> None:
    """Convolutions and matrices as int8 with a scale for each output channel; read by Encoder.load."""
    spec = EncoderSpec(recipe.architecture, recipe.height, recipe.width, multi_scale=True).document()
    with replacing(path) as partial:
        save_file(packed(network), partial, metadata | {METADATA: json.dumps(spec)})


def write_generator(
    network: TexturedGenerator, recipe: GeneratorRecipe, path: Path, metadata: dict[str, str]
) -> None:
    """Convolutions and matrices in half precision; read by models.textured_generator.load_views."""
    metadata = metadata | {"size": f"{recipe.height} x {recipe.width}"}
    if recipe.init is not None:
        metadata["before"] = json.dumps(read_header(Path(recipe.init)))
    with replacing(path) as partial:
        save_file(halved(network), partial, metadata)


def _train(
    recipe: AnyRecipe,
    given: argparse.Namespace,
    lines: Callable[[AnyRecipe, Path, torch.device, int], Iterator[str]],
    trained: Callable[[Path, AnyRecipe], tuple[Any, float]],
    write: Callable[[Any, AnyRecipe, Path, dict[str, str]], None],
    command: str,
) -> None:
    out = absolute(given.out)
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    checkpoint, device = out.with_name(out.name + ".training"), torch.device(given.device)
    check_file(out, "--out", is_pretrained)
    check_file(checkpoint, "--out", is_saved_by_torch)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    with only_writer(out.parent, "give another --out", f".{out.name}.lock"):
        if given.workers > 1:
            from jgcl_ray.estimator_training.on_ray import Training, train_on_ray

            if recipe.steps is None:
                raise UserError(
                    f"--workers {given.workers} are of one mind about --steps only; give those, not --minutes"
                )
            training = Training(render, lines, trained)
            train_on_ray(training, recipe, checkpoint, given.workers, given.device == "cuda", given.drawers, print)
        else:
            for line in lines(recipe, checkpoint, device, given.drawers):
                print(line, flush=True)
        network, seconds = trained(checkpoint, recipe)
        write(network, recipe, out, origin(command, recipe, seconds, given.device))
        checkpoint.unlink()
    print(out)


def _asked(recipe: AnyRecipe, options: tuple[str, ...], given: argparse.Namespace) -> AnyRecipe:
    named = {name: getattr(given, name) for name in options}
    recipe = replace(recipe, **{name: value for name, value in named.items() if value is not None})
    if recipe.steps is None and recipe.minutes is None:
        recipe = replace(recipe, minutes=MINUTES)
    if recipe.steps is not None and recipe.minutes is not None:
        raise UserError("--steps and --minutes: give one of them")
    return recipe


def _command(kind: str, options: tuple[str, ...], recipe: Recipe, given: argparse.Namespace) -> str:
    named = {name: getattr(recipe, name) for name in options}
    parts = [
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in named.items() if value is not None
    ]
    parts += [f"--device {given.device}", f"--workers {given.workers}", f"--drawers {given.drawers}"]
    return " ".join([f"python -m jgcl_ray.pretrain {kind}", *parts, "--out", shlex.quote(given.out.name)])
