"""The epochs: one direction, no Ray. Every worker runs this loop on its own session.

features of all training images -> pseudo labels -> memory          begin_epoch
batches -> encoder, generator, discriminator -> losses -> memory    step
scores -> record -> checkpoint                                      close_epoch
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from jgcl_ray.batches import ImageBatch, PairedBatch
from jgcl_ray.config import StageName
from jgcl_ray.distributed import mean_over_workers, rank, sum_over_workers, world_size
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.evaluator import Scores
from jgcl_ray.mlflow_mirror import without_secrets
from jgcl_ray.run_log import NullRunLog
from jgcl_ray.training.best import Best, chooser, starts_trained
from jgcl_ray.training.checkpoint import Checkpoints, Position, Saved, checkpoint_name, load_networks, load_saved
from jgcl_ray.training.scoring import Scorer
from jgcl_ray.training.session import Session
from jgcl_ray.training.stages import Stage, build_stage
from jgcl_ray.training.step import NonFiniteLossError
from jgcl_ray.training.vital_signs import VitalSigns

Batch = TypeVar("Batch", ImageBatch, PairedBatch)


class Hooks:
    """What the outside hears of a run, on every worker; nothing, unless overridden."""

    def stop(self) -> bool:
        """Asked before each batch: whether to save and end."""
        return False

    def save(self) -> bool:
        """Asked before each batch: whether to save, at once, and go on: the machine may be about to go."""
        return False

    def batch_done(
        self, stage: StageName, epoch: int, batch: int, batches: int, step: int, numbers: Mapping[str, float]
    ) -> None:
        """`batch` of `batches` is done; numbers are loss terms and images/s, as of the last logged step."""

    def epoch_done(self, stage: StageName, epoch: int, step: int, numbers: Mapping[str, float]) -> None:
        """An epoch is closed and its checkpoint written."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    interrupted: bool
    position: Position
    scores: Scores | None  # of the best checkpoint on the test split; None without labels, or when interrupted


class Loop:
    """A run on one worker, from where its checkpoint left it to the last epoch of the last stage."""

    def __init__(
        self, session: Session, checkpoints: Checkpoints, log: NullRunLog, hooks: Hooks | None = None
    ) -> None:
        self.session, self.config = session, session.config
        self.checkpoints, self.log, self.hooks = checkpoints, log, hooks or Hooks()
        self.signs, self.scorer = VitalSigns(session), Scorer(session)
        self.position = Position()
        self.scores: dict[str, float] = {}  # of the last evaluation
        self.best = Best(chooser(self.config, session.data.dataset.validation is not None))
        self._memory: Mapping[str, Any] | None = None  # of the stage that is resumed
        self._resumed: Path | None = None  # the checkpoint
        self._closed = time.perf_counter()  # when the epoch before was recorded

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint of this run."""
        saved = load_saved(checkpoint)
        load_networks(checkpoint, self.session.networks)
        self._resumed = checkpoint
        with self._taking_up():
            if saved.position.stage >= len(self.config.run.stages):
                raise ValueError(f"stage {saved.position.stage} of {len(self.config.run.stages)}")
            self.session.load_state(saved.state["session"])
            self.position, self.scores = saved.position, dict(saved.scores)
            self.best.score, self.best.name = saved.state["best_score"], saved.state["best_name"]
            self._memory = saved.state["memory"]
            self.signs.load_state(saved.state["epoch_began_with"])
        # The link may be one step behind, if the run ended between the checkpoint and the link.
        if rank() == 0 and (self.checkpoints.folder / self.best.name).is_dir() and self.best.name:
            self.checkpoints.mark_best(self.checkpoints.folder / self.best.name)

    @contextmanager
    def _taking_up(self) -> Iterator[None]:
        """UserError where the state of a checkpoint is not of the form that this version writes."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"{self._resumed}: its state is damaged or of another version of jgcl_ray ({type(error).__name__}: "
                f"{error}); go on with that version, or start a new run from its weights alone by another run.name "
                f"and run.init_from={self._resumed}"
            ) from None

    def run(self) -> Outcome:
        """All stages, one after the other."""
        stages = self.config.run.stages
        while self.position.stage < len(stages):
            name = stages[self.position.stage]
            stage = build_stage(name, self.session)
            if self._memory is None or self.position.begins_stage:
                stage.begin(self.position.step)
            elif self.position.batch:
                with self._taking_up():
                    stage.load_state(self._memory)
            self._memory = None
            while self.position.epoch < stage.epochs:
                if not self.run_epoch(name, stage):
                    self.save(name, stage)
                    return Outcome(True, self.position, None)
            self.position = self.position.next_stage()
        return Outcome(False, self.position, self.score_best())

    def run_epoch(self, name: StageName, stage: Stage) -> bool:
        """One epoch, or what is left of it; False where it was stopped between two batches."""
        session, epoch = self.session, self.position.epoch
        session.seconds.clear()
        if self.position.batch == 0:
            if self.asked()[0]:
                return False
            numbers = dict(stage.begin_epoch(epoch, self.position.step))
            if epoch == 0 and stage.trains_encoder and starts_trained(self.config, self.position.stage):
                numbers |= self.score_start(name, stage)
            self.record(name, epoch, numbers)
            self.signs.epoch_begins()

        batches, images, shown = stage.num_batches(epoch), 0, {}
        start = time.perf_counter()
        for batch in stage.batches(epoch, self.position.batch):
            if self.position.batch:  # an epoch is stopped before it begins or after a batch, not between
                stop, save = self.asked()
                if stop:
                    return False
                if save:
                    self.save(name, stage)
            try:
                terms = stage.step(to_device(batch, session.device), epoch, self.position.step)
            except NonFiniteLossError as error:
                raise error.naming([str(stage.images.split.path(row)) for row in error.rows]) from None
            images += len(batch.index) * world_size()
            self.position = done = self.position.next_batch()
            if is_recorded(done, batches, self.config.run.log_every):
                shown = mean_over_workers(terms)
                self.record(name, epoch, shown)
                shown["images/s"] = images / (time.perf_counter() - start)
            self.hooks.batch_done(name, epoch, done.batch, batches, done.step, shown)
            every = self.config.checkpoints.every_steps
            if every and done.step % every == 0 and done.batch < batches:
                self.save(name, stage)
        session.seconds["train"] = time.perf_counter() - start

        self.close_epoch(name, stage, images)
        return True

    def close_epoch(self, name: StageName, stage: Stage, images: int) -> None:
        """Scores, the epoch's record, its checkpoint."""
        session, epoch = self.session, self.position.epoch
        self.position = self.position.next_epoch()
        session.equalise()
        last = epoch + 1 == stage.epochs
        if not stage.trains_encoder:
            session.encoder_unchanged(self.position.step)
        signs = self.signs.measure(
            name,
            self.position.step,
            trains_encoder=stage.trains_encoder,
            uses_generator=self.config.uses_generator(name),
            surface_views=stage.surface_views,
            decay=stage.decay(epoch),
            batches=stage.num_batches(epoch),
        )
        improved = False
        evaluated = stage.trains_encoder and (last or (epoch + 1) % self.config.eval.every == 0)
        if evaluated:
            with session.timed("evaluation"):
                self.scores = self.scorer.score(self.position.step)
            improved = self.best.offer(self.scores, checkpoint_name(name, self.position))
        numbers = dict(self.scores) if evaluated else {}  # not those of the encoder as it came
        numbers |= signs
        numbers["images_per_second"] = images / max(session.seconds["train"], 1e-9)
        numbers |= {f"seconds_{part}": value for part, value in session.seconds.items()}
        now = time.perf_counter()
        numbers["seconds_epoch"] = now - self._closed  # with checkpoint and pictures of the one before
        self._closed = now
        self.record(name, epoch, numbers)
        checkpoint = self.save(name, stage)
        if improved and rank() == 0:
            self.checkpoints.mark_best(checkpoint)
        self.hooks.epoch_done(name, epoch, self.position.step, numbers)

    def score_start(self, name: StageName, stage: Stage) -> dict[str, float]:
        """Of the encoder before the first stage that trains it: it competes for the best, from a checkpoint."""
        with self.session.timed("evaluation"):
            self.scores = self.scorer.score(self.position.step)
        if self.best.offer(self.scores, checkpoint_name(name, self.position)):
            checkpoint = self.save(name, stage)
            if rank() == 0:
                self.checkpoints.mark_best(checkpoint)
        return self.scores

    def score_best(self) -> Scores | None:
        """The best checkpoint on the test split; the last weights where no checkpoint was scored."""
        dataset = self.session.data.dataset
        if dataset.query is None or dataset.gallery is None:
            return None
        best = self.checkpoints.folder / self.best.name
        if self.best.name and best.is_dir():
            load_networks(best, self.session.networks)
        return self.scorer.on_test()

    def save(self, name: StageName, stage: Stage) -> Path:
        """A complete checkpoint of the present position. A collective; the first worker writes."""
        self.session.equalise()
        state = {
            "session": self.session.state(),
            "memory": stage.state(),
            "epoch_began_with": self.signs.state(),
            "best_score": self.best.score,
            "best_name": self.best.name,
        }
        config, listing = without_secrets(self.config.model_dump(mode="json")), self.session.data.listing
        saved = Saved(self.position, config, state, self.scores, listing)
        title = checkpoint_name(name, self.position)
        if rank() == 0:
            self.checkpoints.save(title, self.session.networks, saved)
        return self.checkpoints.folder / title

    def record(self, name: StageName, epoch: int, numbers: Mapping[str, float]) -> None:
        """Into the run log, as of the present step."""
        if numbers:
            self.log.record(name, epoch, self.position.step, numbers)

    def asked(self) -> tuple[bool, bool]:
        """Whether any worker was asked to stop, and to save: all do so before the same batch."""
        mine = torch.tensor([self.hooks.stop(), self.hooks.save()], dtype=torch.float32)
        stop, save = (mine if world_size() == 1 else sum_over_workers(mine)).tolist()
        return bool(stop), bool(save)


def is_recorded(done: Position, batches: int, every: int) -> bool:
    """Whether the loss terms of the step before `done` are recorded: every so many steps, and at the end of an epoch
    of `batches` that has no such step.
    """
    before = done.step - done.batch
    return done.step % every == 0 or (done.batch == batches and before // every == done.step // every)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors on a device."""
    moved = {part.name: getattr(batch, part.name).to(device, non_blocking=True) for part in fields(batch)}
    return replace(batch, **moved)
