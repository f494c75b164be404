"""A training that is drawn for by processes of its own, told of once a minute, and gone on with where it stopped."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from jgcl_ray.distributed import rank, world_size
from jgcl_ray.estimator_training.training_file import training_of, write_training
from jgcl_ray.pretraining.recipe import Recipe

CHECKPOINT_SECONDS = 60


@dataclass(frozen=True)
class Progress:
    """Of a training, after a step."""

    step: int
    share: float  # of the training
    seconds: float  # since the first step, pauses not counted
    images_per_second: float
    terms: dict[str, float]
    score: float  # of the batch, as recipe.SCORE says

    def line(self, recipe: Recipe) -> str:
        """As a line."""
        terms = ", ".join(f"{name} {term:.3f}" for name, term in self.terms.items())
        length = f" of {recipe.steps:,}" if recipe.steps is not None else f", {self.share:.0%}"
        return (
            f"step {self.step:,}{length}, {self.images_per_second:.0f} pictures/s, {recipe.SCORE} "
            f"{self.score:.2f}; {terms}"
        )


class Learner(ABC):
    """Networks and their optimisers, and how far they have come."""

    recipe: Recipe

    def __init__(self, device: torch.device) -> None:
        self.device, self.step, self.seconds = device, 0, 0.0

    @property
    def share(self) -> float:
        """Of the training that is done."""
        return self.recipe.share(self.step, self.seconds)

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module | Optimizer]:
        """What learns, by the name that it has in the file of an interrupted training."""

    @abstractmethod
    def learn(self, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the terms before it, and a score of the batch."""

    def save(self, path: Path) -> None:
        """Write the state of the training."""
        write_training(path, self._state())

    def load(self, path: Path) -> None:
        """Go on from there; UserError for a file of another recipe, or a damaged one."""
        with training_of(path, self.device, self._state()) as state:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def _state(self) -> dict[str, Any]:
        states = {name: part.state_dict() for name, part in self.parts.items()}
        return {"recipe": dict(vars(self.recipe)), **states, "step": self.step, "seconds": self.seconds}


class Batches(IterableDataset[Any]):
    """The batches of a training from step `start` on, each drawn by draw(step, number).

    The drawing processes of a worker take turns at its steps; number: of the batch among those of all workers.
    """

    def __init__(self, draw: Callable[[int, int], Any], start: int) -> None:
        self._draw, self._start = draw, start
        self._rank, self._workers = rank(), world_size()  # of the process that learns

    def __iter__(self) -> Iterator[Any]:
        drawer = get_worker_info()
        mine, drawers = (0, 1) if drawer is None else (drawer.id, drawer.num_workers)
        for step in itertools.count(self._start + mine, drawers):
            yield self._draw(step, step * self._workers + self._rank)


def learnt(learner: Learner, batches: Batches, checkpoint: Path, drawers: int) -> Iterator[Progress]:
    """Learn until the recipe says that it is done; write `checkpoint` once a minute, and at the end.

    Yields whenever it is written. Within a process group the first worker writes and yields.
    """
    recipe = learner.recipe
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=drawers,
        prefetch_factor=4,
        multiprocessing_context="fork",
    )
    first, before = learner.step, learner.seconds
    line = since = time.monotonic()
    for batch in loader if learner.share < 1 else ():
        terms, score = learner.learn(batch)
        now = time.monotonic()
        learner.seconds = before + now - since
        if rank() == 0 and (now - line >= CHECKPOINT_SECONDS or learner.share >= 1):
            learner.save(checkpoint)
            speed = (learner.step - first) * recipe.pictures / (now - since)
            numbers = {name: float(term) for name, term in terms.items()}
            yield Progress(learner.step, learner.share, learner.seconds, speed, numbers, float(score))
            line = now
        if learner.share >= 1:
            break
