"""Trains the mesh estimator: pictures drawn by one process, learnt from by another."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from jgcl_ray.distributed import all_reduce_gradients, broadcast_module, rank, world_size
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import Cutouts, ensure_cutouts
from jgcl_ray.estimator_training.losses import WEIGHTS, estimator_losses
from jgcl_ray.estimator_training.pictures import PictureBatch, draw_pictures
from jgcl_ray.estimator_training.skeleton import Skeleton
from jgcl_ray.estimator_training.training_file import training_of, write_training
from jgcl_ray.floats import computes_bf16
from jgcl_ray.meshes.estimator import load_estimator
from jgcl_ray.meshes.estimator_network import EstimatorNetwork

CHECKPOINT_SECONDS = 60


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights follow from."""

    figures: int = 3600  # people, each cut out from eight sides
    steps: int = 6800
    batch: int = 64
    learning_rate: float = 1.5e-3  # AdamW's; rises over the first twentieth of the steps, falls to zero by a cosine
    weight_decay: float = 0.02
    easy: float = 0.15  # share of the steps over which pictures become as hard as they get; none with `init`
    averaging: float = 0.999  # of the weights that are kept, an exponential mean over steps
    seed: int = 0
    init: str | None = None  # file of the estimator to go on from; none: random weights

    def hardness(self, step: int) -> float:
        """Of the pictures of a step, in [0, 1]."""
        return 1.0 if self.init is not None else min(1.0, step / self.steps / self.easy)


@dataclass(frozen=True)
class Progress:
    """Of a training, after a step."""

    step: int
    seconds: float  # since the first step, pauses not counted
    images_per_second: float
    terms: dict[str, float]
    yaw_error: float  # median over the batch, degrees

    def line(self, steps: int) -> str:
        """As a line, of a training of so many steps."""
        terms = ", ".join(f"{name} {term:.3f}" for name, term in self.terms.items())
        return (
            f"step {self.step:,} of {steps:,}, {self.images_per_second:.0f} pictures/s, "
            f"median yaw error {self.yaw_error:.0f}°; {terms}"
        )


def train(recipe: Recipe, checkpoint: Path, device: torch.device, drawers: int = 1) -> Iterator[Progress]:
    """Train, or go on from `checkpoint`; that is written once a minute, and at the end, when it holds the result.

    Yields whenever it is. `drawers`: processes that draw pictures. The same recipe gives the same weights,
    interrupted or not, on one machine with the same number of threads. Within a process group each worker draws and
    learns from its share of every batch; the first one writes and yields.
    """
    learner = Learner(recipe, device)
    if checkpoint.is_file():
        learner.load(checkpoint)
    # Workers hold the cluster's CPUs: what their machine lacks each of them renders by itself.
    given = ensure_cutouts(recipe.figures, recipe.seed, workers=0 if world_size() > 1 else None)
    for module in (learner.network, learner.average):
        broadcast_module(module)
    pictures = _Pictures(given, recipe, learner.step)
    loader = DataLoader(
        pictures, batch_size=None, num_workers=drawers, prefetch_factor=4, multiprocessing_context="fork"
    )
    first, before = learner.step, learner.seconds
    line = since = time.monotonic()
    for batch in loader:
        terms, error = learner.learn(batch)
        now = time.monotonic()
        if rank() or (now - line < CHECKPOINT_SECONDS and learner.step < recipe.steps):
            continue
        learner.seconds = before + now - since
        learner.save(checkpoint)
        speed = (learner.step - first) * recipe.batch / (now - since)
        numbers = {name: float(term) for name, term in terms.items()}
        yield Progress(learner.step, learner.seconds, speed, numbers, float(error))
        line = now


def trained(checkpoint: Path, recipe: Recipe) -> tuple[EstimatorNetwork, float]:
    """The averaged network in a checkpoint, and the seconds that it took."""
    learner = Learner(recipe, torch.device("cpu"))
    learner.load(checkpoint)
    return learner.average, learner.seconds


class Learner:
    """The network, its running average and its optimiser."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.step, self.seconds = recipe, device, 0, 0.0
        if recipe.init is None:
            self.network = EstimatorNetwork()
            self.network.poses.fit()
        else:
            self.network = load_estimator(Path(recipe.init))
        self.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub
        self.average = copy.deepcopy(self.network).eval()
        self._skeleton = Skeleton().to(device)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)

    def learn(self, batch: PictureBatch) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the terms before it, and the median error of the yaw in degrees."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * _schedule(self.step / self.recipe.steps)
        batch = PictureBatch(**{name: tensor.to(self.device) for name, tensor in vars(batch).items()})
        self.network.train()
        crops = batch.crops.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=computes_bf16(self.device)):
            found = self.network(crops, batch.proportions)
        terms = estimator_losses(found, batch, self.network, self._skeleton)
        loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {float(term):.3g}" for name, term in terms.items())
            raise UserError(
                f"the loss at step {self.step} is not finite ({shown}); train with another --seed or a larger --batch"
            )
        self._optimiser.zero_grad()
        loss.backward()
        all_reduce_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        self.step += 1
        self._average()
        error = torch.remainder(found.yaw.detach() - batch.yaw + math.pi, 2 * math.pi) - math.pi
        return {name: term.detach() for name, term in terms.items()}, error.abs().median() * (180 / math.pi)

    def save(self, path: Path) -> None:
        """Write the state of the training."""
        write_training(path, self._state())

    def load(self, path: Path) -> None:
        """Go on from there; UserError for a file of another recipe, or a damaged one."""
        with training_of(path, self.device, self._state()) as state:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def _state(self) -> dict[str, Any]:
        return {
            "recipe": dict(vars(self.recipe)),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.averaging, self.step / (self.step + 10))
        for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


class _Pictures(IterableDataset[PictureBatch]):
    def __init__(self, given: Cutouts, recipe: Recipe, start: int) -> None:
        self._given, self._recipe, self._start = given, recipe, start
        self._rank, self._workers = rank(), world_size()  # of the process that learns

    def __iter__(self) -> Iterator[PictureBatch]:
        drawer, recipe = get_worker_info(), self._recipe
        mine, drawers = (0, 1) if drawer is None else (drawer.id, drawer.num_workers)
        for step in range(self._start + mine, recipe.steps, drawers):  # the loader takes turns
            size, number = recipe.batch // self._workers, step * self._workers + self._rank
            yield draw_pictures(self._given, size, recipe.seed, number, recipe.hardness(step))


def _schedule(share: float) -> float:
    """Of the learning rate, at a share of the steps."""
    return min(share / 0.05, 1.0) * 0.5 * (1 + math.cos(math.pi * share)) + 1e-4
