"""Trains an identity encoder on rendered people: batches drawn by one process, learnt from by another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jgcl_ray.distributed import all_reduce_gradients, broadcast_module, world_size
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import CUTOUTS, Cutouts, ensure_cutouts
from jgcl_ray.floats import computes_bf16
from jgcl_ray.image_files import IMAGENET_MEAN, IMAGENET_STD
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.encoder_files import start_from
from jgcl_ray.models.shipped import shipped
from jgcl_ray.pretraining import loop
from jgcl_ray.pretraining.loop import Batches, Progress, learnt
from jgcl_ray.pretraining.losses import identity_losses
from jgcl_ray.pretraining.pictures import Drawing, IdentityBatch, draw_identities
from jgcl_ray.pretraining.recipe import EncoderRecipe


def train(recipe: EncoderRecipe, checkpoint: Path, device: torch.device, drawers: int = 1) -> Iterator[Progress]:
    """Train, or go on from `checkpoint`; that is written once a minute, and at the end, when it holds the result.

    Yields whenever it is. `drawers`: processes that draw pictures. A recipe of so many steps gives the same weights,
    interrupted or not, on one machine with the same number of threads. Within a process group, which needs such a
    recipe, each worker draws and learns from a share of every batch's people; the first one writes and yields.
    """
    learner = Learner(recipe, device)
    if checkpoint.is_file():
        learner.load(checkpoint)
    # Workers hold the cluster's CPUs: what their machine lacks each of them renders by itself.
    given = ensure_cutouts(recipe.figures, recipe.seed, 0 if world_size() > 1 else None)
    if recipe.init is not None and learner.step == 0:
        learner.point_classifier(given)
    broadcast_module(learner.network)
    yield from learnt(learner, _batches(given, recipe, learner.step), checkpoint, drawers)


def trained(checkpoint: Path, recipe: EncoderRecipe) -> tuple[IdentityEncoder, float]:
    """The encoder in a checkpoint, and the seconds that it took."""
    learner = Learner(recipe, torch.device("cpu"))
    learner.load(checkpoint)
    return learner.network.encoder, learner.seconds


class _Network(nn.Module):
    """The encoder, and a direction for each figure."""

    def __init__(self, recipe: EncoderRecipe) -> None:
        super().__init__()
        self.encoder = IdentityEncoder(recipe.architecture)
        self.classifier = nn.Parameter(0.01 * torch.randn(recipe.identities, self.encoder.embedding_width))


class Learner(loop.Learner):
    """The network and its optimiser."""

    recipe: EncoderRecipe

    def __init__(self, recipe: EncoderRecipe, device: torch.device) -> None:
        super().__init__(device)
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        network = _Network(recipe)
        if recipe.init is not None:
            start_from(network.encoder, recipe.architecture, shipped(recipe.init), f"--init {recipe.init}")
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    @property
    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """What learns."""
        return {"network": self.network, "optimiser": self._optimiser}

    @cached_property
    def _normal(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(value, device=self.device) for value in (IMAGENET_MEAN, IMAGENET_STD))
        return mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)

    def learn(self, batch: IdentityBatch) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the terms before it, and the share whose nearest picture by another camera is the person's."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * _schedule(self.share)
        mean, std = self._normal
        pictures = (batch.pictures.to(self.device) - mean) / std
        identities = batch.identities.to(self.device)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bf16(self.device)):
            found = self.network.encoder(pictures.contiguous(memory_format=torch.channels_last))
        terms = identity_losses(found.embedding, identities, self.network.classifier, self.recipe)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {float(term):.3g}" for name, term in terms.items())
            raise UserError(
                f"the loss at step {self.step} is not finite ({shown}); train with another --seed or more --people"
            )
        self._optimiser.zero_grad()
        loss.backward()
        all_reduce_gradients(self.network.parameters())
        self._optimiser.step()
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}, _right(found.embedding.detach(), batch)

    @torch.no_grad()
    def point_classifier(self, given: Cutouts) -> None:
        """Turn each person's direction to where the encoder puts two easy pictures of them.

        Random directions would tear apart what the encoder to go on from knows, before they have found their people.
        """
        recipe, (mean, std) = self.recipe, self._normal
        drawing = Drawing(CUTOUTS, recipe.people, 2, (recipe.height, recipe.width))
        self.network.eval()
        figures = len(given) // CUTOUTS
        for start in range(0, figures, recipe.people):
            identities = np.arange(start, min(start + recipe.people, figures))
            drawn = replace(drawing, people=len(identities))
            batch = draw_identities(given, drawn, recipe.seed, start, 0.0, identities)
            pictures = (batch.pictures.to(self.device) - mean) / std
            found = nn.functional.normalize(self.network.encoder(pictures).embedding, dim=1).view(
                2, len(identities), -1
            )
            length = self.network.classifier[identities].norm(dim=1, keepdim=True)
            self.network.classifier[identities] = length * nn.functional.normalize(found.mean(0), dim=1)


def _batches(given: Cutouts, recipe: EncoderRecipe, start: int) -> Batches:
    drawing = Drawing(CUTOUTS, recipe.people // world_size(), recipe.images, (recipe.height, recipe.width))

    def draw(step: int, number: int) -> IdentityBatch:
        return draw_identities(given, drawing, recipe.seed, number, recipe.hardness(step))

    return Batches(draw, start)


def _right(embeddings: Tensor, batch: IdentityBatch) -> Tensor:
    unit, cameras = nn.functional.normalize(embeddings.float().cpu(), dim=1), batch.cameras
    nearest = (unit @ unit.T).masked_fill(cameras[:, None] == cameras, -torch.inf).argmax(1)
    return (batch.identities[nearest] == batch.identities).float().mean()


def _schedule(share: float) -> float:
    """Of the learning rate, at a share of the training."""
    return min(share / 0.05, 1.0) * 0.5 * (1 + math.cos(math.pi * share)) + 1e-4
