"""Trains the generator that refines drafts on rendered people: true views, a frozen encoder's maps, a judge."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jgcl_ray.config import DiscriminatorConfig
from jgcl_ray.distributed import all_reduce_gradients, broadcast_module, world_size
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import SIDES, Cutouts, ensure_cutouts
from jgcl_ray.floats import computes_bf16
from jgcl_ray.image_files import IMAGENET_MEAN, IMAGENET_STD
from jgcl_ray.losses.adversarial import fake_loss, generator_loss, gradient_penalty, real_loss
from jgcl_ray.models.discriminator import Discriminator
from jgcl_ray.models.resnet import ResNet
from jgcl_ray.models.textured_generator import TexturedGenerator, load_views
from jgcl_ray.pretraining.loop import Batches, Learner, Progress, learnt
from jgcl_ray.pretraining.recipe import GeneratorRecipe
from jgcl_ray.pretraining.view_pairs import PairDrawing, ViewBatch, draw_views

# Norms of gradients. The generator's is 0.1; where 1 got through, it lost in a hundred steps what it had learnt.
LARGEST, LARGEST_OF_JUDGE = 0.15, 5.0
STAGES = 2  # of the frozen ResNet, besides its first convolution, whose maps are compared


def train(recipe: GeneratorRecipe, checkpoint: Path, device: torch.device, drawers: int = 1) -> Iterator[Progress]:
    """Train, or go on from `checkpoint`; that is written once a minute, and at the end, when it holds the result.

    Yields whenever it is. `drawers`: processes that draw pictures. A recipe of so many steps gives the same weights,
    interrupted or not, on one machine with the same number of threads. Within a process group, which needs such a
    recipe, each worker draws and learns from a share of every batch's photos; the first one writes and yields.
    """
    learner = GeneratorLearner(recipe, device)
    if checkpoint.is_file():
        learner.load(checkpoint)
    # Workers hold the cluster's CPUs: what their machine lacks each of them renders by itself.
    given = ensure_cutouts(recipe.figures, recipe.seed, 0 if world_size() > 1 else None)
    for network in (learner.network, learner.average, learner.judge):
        broadcast_module(network)
    yield from learnt(learner, _batches(given, recipe, learner.step), checkpoint, drawers)


def trained(checkpoint: Path, recipe: GeneratorRecipe) -> tuple[TexturedGenerator, float]:
    """The generator in a checkpoint, the running average of its weights, and the seconds that it took."""
    learner = GeneratorLearner(recipe, torch.device("cpu"))
    learner.load(checkpoint)
    return learner.average, learner.seconds


class GeneratorLearner(Learner):
    """The generator, the running average of its weights, the judge, and their optimisers."""

    recipe: GeneratorRecipe

    def __init__(self, recipe: GeneratorRecipe, device: torch.device) -> None:
        super().__init__(device)
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        network = TexturedGenerator() if recipe.init is None else load_views(Path(recipe.init))
        self.network = _on(network.requires_grad_(True), device)
        self.average = copy.deepcopy(self.network).eval()
        self.judge = _on(_judge(recipe), device)
        betas = (0.5, 0.99)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.learning_rate, betas=betas)
        self._judges = torch.optim.Adam(self.judge.parameters(), lr=recipe.judge_rate, betas=betas)

    @property
    def parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """What learns."""
        networks = {"network": self.network, "average": self.average, "judge": self.judge}
        return {**networks, "optimiser": self._optimiser, "judges": self._judges}

    @cached_property
    def _features(self) -> FrozenMaps:
        backbone = Encoder.load(self.recipe.features, self.device).module.backbone
        if not isinstance(backbone, ResNet):
            raise UserError(
                f"{self.recipe.features}: maps are compared of a ResNet only; this encoder is another network"
            )
        return FrozenMaps(_on(backbone, self.device))

    def learn(self, batch: ViewBatch) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the terms before it, and by how many dB the views are nearer to the true ones than the drafts."""
        recipe = self.recipe
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(self.share)
        batch = batch.on(self.device)
        judged = self.share >= (recipe.adversarial_from if recipe.init is None else 0)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bf16(self.device)):
            views = self.network(batch.draft, batch.places, batch.photos, batch.photo_places)
            terms = self._terms(views, batch)
            if judged:
                self.judge.requires_grad_(False)
                terms["adversarial"] = recipe.adversarial_weight * generator_loss(self.judge(_centred(views)))
                self.judge.requires_grad_(True)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {float(term):.3g}" for name, term in terms.items())
            raise UserError(f"the loss at step {self.step} is not finite ({shown}); train with another --seed")
        self._optimiser.zero_grad()
        loss.backward()
        all_reduce_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST)
        self._optimiser.step()
        if judged:
            terms |= self._judge(views.detach(), batch.truth)
        self.step += 1
        self._average()
        pictures = (batch.draft.picture, views.detach())
        before, after = ((picture - batch.truth).square().mean((1, 2, 3)) for picture in pictures)
        gain = 10 * (before / after.clamp(min=1e-9)).log10().mean()
        return {name: term.detach() for name, term in terms.items()}, gain

    def _terms(self, views: Tensor, batch: ViewBatch) -> dict[str, Tensor]:
        weight = 1 + self.recipe.on_person * batch.person
        terms = {"pixels": (weight * (views - batch.truth).abs()).mean()}
        if self.recipe.feature_weight:
            both = self._features.maps(torch.cat([views.clamp(0, 1), batch.truth]))
            terms["features"] = self.recipe.feature_weight * torch.stack([_apart(maps) for maps in both]).mean()
        return terms

    def _judge(self, views: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """One step of the judge."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bf16(self.device)):
            maps = self.judge(_centred(torch.cat([views, truth])))
            false, true = _chunks(maps, 0), _chunks(maps, 1)
            terms = {"judge": fake_loss(false) + real_loss(true)}
        if self.step % self.recipe.penalty_every == 0:
            gradients = self.judge.with_input_gradient(_centred(truth)).gradients
            weight = self.recipe.penalty_weight * self.recipe.penalty_every / truth[0].numel()
            terms["penalty"] = weight * gradient_penalty(gradients)
        self._judges.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        all_reduce_gradients(self.judge.parameters())
        torch.nn.utils.clip_grad_norm_(self.judge.parameters(), LARGEST_OF_JUDGE)
        self._judges.step()
        return terms

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.averaging, self.step / (self.step + 10))
        for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


class FrozenMaps:
    """Maps of the first stages of a ResNet that learns no more."""

    def __init__(self, backbone: ResNet) -> None:
        self._backbone = backbone.eval().requires_grad_(False)
        device = backbone.conv1.weight.device
        self._mean, self._std = (
            torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Of pictures (B, 3, H, W) in [0, 1]: (B, C, h, w) each, from the first convolution on."""
        normal = ((pictures - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        return self._backbone.first_maps(normal, STAGES)


def _batches(given: Cutouts, recipe: GeneratorRecipe, start: int) -> Batches:
    photos, shape = recipe.photos // world_size(), (recipe.height, recipe.width)
    drawing = PairDrawing(SIDES, photos, recipe.views, shape)
    return Batches(lambda step, number: draw_views(given, drawing, recipe.seed, number), start)


def _judge(recipe: GeneratorRecipe) -> Discriminator:
    """With scores that differ from the first step on."""
    shape = {"width": recipe.judge_width, "scales": recipe.judge_scales}
    return Discriminator(DiscriminatorConfig(initialisation="kaiming", **shape))


def _on(network: Any, device: torch.device) -> Any:
    return network.to(device).to(memory_format=torch.channels_last)


def _centred(pictures: Tensor) -> Tensor:
    return (2 * pictures - 1).contiguous(memory_format=torch.channels_last)


def _chunks(maps: Sequence[Tensor], half: int) -> list[Tensor]:
    return [scores.chunk(2)[half] for scores in maps]


def _apart(maps: Tensor) -> Tensor:
    """Mean difference between the first half of (2B, C, h, w) and the second, over how large maps are."""
    ours, theirs = maps.float().chunk(2)
    theirs = theirs.detach()
    return (ours - theirs).abs().mean() / theirs.abs().mean()


def _schedule(share: float) -> float:
    """Of the learning rate, at a share of the training."""
    return min(share / 0.05, 1.0) * 0.5 * (1 + math.cos(math.pi * share)) + 1e-3
