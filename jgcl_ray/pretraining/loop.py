"""A training that is drawn for by processes of its own, told of once a minute, and gone on with where it stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from jgcl_ray.distributed import rank
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


class Learner(Protocol):
    """Networks and their optimisers."""

    recipe: Any
    step: int
    seconds: float

    def learn(self, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        """One step; the terms before it, and a score of the batch."""

    def save(self, path: Path) -> None:
        """Write the state of the training."""


def learnt(learner: Learner, batches: IterableDataset[Any], checkpoint: Path, drawers: int) -> Iterator[Progress]:
    """Learn until the recipe says that it is done; write `checkpoint` once a minute, and at the end.

    Yields whenever it is written. Within a process group the first worker writes and yields.
    """
    recipe = learner.recipe

    def share() -> float:
        return float(recipe.share(learner.step, learner.seconds))

    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=drawers,
        prefetch_factor=4,
        multiprocessing_context="fork",
    )
    first, before = learner.step, learner.seconds
    line = since = time.monotonic()
    for batch in loader if share() < 1 else ():
        terms, score = learner.learn(batch)
        now = time.monotonic()
        learner.seconds = before + now - since
        if rank() == 0 and (now - line >= CHECKPOINT_SECONDS or share() >= 1):
            learner.save(checkpoint)
            speed = (learner.step - first) * recipe.pictures / (now - since)
            numbers = {name: float(term) for name, term in terms.items()}
            yield Progress(learner.step, share(), learner.seconds, speed, numbers, float(score))
            line = now
        if share() >= 1:
            break
