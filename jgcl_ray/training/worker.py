"""One worker's part of a run, and a run in one process: everything around the loop but Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from jgcl_ray.atomic import write_json
from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import StageName
from jgcl_ray.data.loaders import paired_loader
from jgcl_ray.data.samplers import Draw, Shard
from jgcl_ray.errors import UserError
from jgcl_ray.losses.joint import StepPlan
from jgcl_ray.pseudo_labels.extract import in_eval_mode
from jgcl_ray.run_log import NullRunLog, RunLog, read_records, rewind
from jgcl_ray.stored_files import read_json
from jgcl_ray.training.checkpoint import read_manifest
from jgcl_ray.training.loop import Hooks, Loop, Outcome, to_device
from jgcl_ray.training.pictures import label_quality_plot, loss_curves, sample_grid
from jgcl_ray.training.prepare import Plan, build_session
from jgcl_ray.training.session import Clusterer, Session
from jgcl_ray.training.step import translate
from jgcl_ray.training.summary import selection
from jgcl_ray.training.surface_sheet import surface_sheet
from jgcl_ray.training.terminal import ProgressFile

STOP, OUTCOME, REFUSED = "stop", "outcome.json", "refused.txt"

_PICTURED = 6  # images of the sample grid


def work(
    plan: Plan,
    clusterer: Clusterer,
    shard: Shard,
    device: torch.device,
    report: Callable[[Mapping[str, float]], None] = lambda numbers: None,
    preempted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run all stages from the newest checkpoint on, as worker `shard.index` of `shard.count`.

    The first worker keeps the run log. report: called on every worker after each epoch. preempted: asked on every
    worker before each batch whether it has just heard that its machine will go.
    """
    refused = plan.folder / REFUSED
    if refused.is_file():  # a worker that Ray started anew: the same input would be refused again
        raise UserError(refused.read_text(encoding="utf-8"))
    try:
        return _work(plan, clusterer, shard, device, report, preempted)
    except UserError as error:
        with suppress(OSError):  # its disk may be what is full
            refused.write_text(str(error), encoding="utf-8")
        raise


def clear(folder: Path) -> None:
    """Take away what an earlier start left to be read by its workers; for the driver, before it starts them."""
    for name in (STOP, OUTCOME, REFUSED):
        (folder / name).unlink(missing_ok=True)


def ask_to_stop(folder: Path) -> None:
    """Let the workers of a run save and end before their next batch."""
    (folder / STOP).touch()


def read_outcome(folder: Path) -> Outcome | None:
    """How the run in a folder ended; None where it did not. UserError for a damaged file."""
    file = folder / OUTCOME
    if not file.is_file():
        return None
    return read_json(file, Outcome, "give the command again, it goes on from the last checkpoint")


def _work(
    plan: Plan,
    clusterer: Clusterer,
    shard: Shard,
    device: torch.device,
    report: Callable[[Mapping[str, float]], None],
    preempted: Callable[[], bool],
) -> Outcome:
    session = build_session(plan, clusterer, shard, device)
    checkpoint = plan.newest_checkpoint()
    first = shard.index == 0
    if first:
        _rewind(plan, checkpoint)
    tags = {"best_checkpoint_by": selection(plan)}
    with RunLog.open(plan.folder, plan.config, tags) if first else NullRunLog() as log:
        loop = Loop(session, plan.checkpoints, log, WorkerHooks(plan, session, log, report, preempted))
        if checkpoint is not None:
            loop.resume(checkpoint)
        outcome = loop.run()
        if first:
            _write_outcome(plan.folder, outcome)
            if outcome.interrupted:
                log.close("KILLED")
            elif (best := plan.checkpoints.best or plan.checkpoints.newest()) is not None:
                log.model(best / "encoder.safetensors", outcome.position.step)
    return outcome


class WorkerHooks(Hooks):
    """Stop file, progress file, pictures and reports."""

    def __init__(
        self,
        plan: Plan,
        session: Session,
        log: NullRunLog,
        report: Callable[[Mapping[str, float]], None],
        preempted: Callable[[], bool],
    ) -> None:
        self._plan, self._session, self._log = plan, session, log
        self._report, self._preempted = report, preempted
        self._progress = ProgressFile(plan.folder)
        self._first = session.shard.index == 0

    def stop(self) -> bool:
        """Whether the driver left its sign in the run folder."""
        return self._first and (self._plan.folder / STOP).exists()

    def save(self) -> bool:
        """Whether this worker's machine will go."""
        return self._preempted()

    def batch_done(
        self, stage: StageName, epoch: int, batch: int, batches: int, step: int, numbers: Mapping[str, float]
    ) -> None:
        """The bar on the terminal."""
        if self._first:
            totals = {name: value for name, value in numbers.items() if name in _SHOWN}
            self._progress.write(stage=stage, epoch=epoch, batch=batch, batches=batches, step=step, numbers=totals)

    def epoch_done(self, stage: StageName, epoch: int, step: int, numbers: Mapping[str, float]) -> None:
        """Pictures by the first worker; the numbers to whoever asked for them."""
        config, now = self._plan.config, epoch + 1
        if self._first and (now % config.tracking.pictures_every == 0 or now == config.epochs_of(stage)):
            records = read_records(self._plan.folder)
            self._log.picture("losses", loss_curves(records), step)
            if config.uses_pseudo_labels(stage):
                self._log.picture("labels", label_quality_plot(records), step)
            if config.uses_generator(stage):
                self._log.picture("views", self._views(), step)
        if self._first and stage == "joint" and epoch == 0 and not config.uses_generator(stage):
            sheet = surface_sheet(self._session.data.images, self._session.config, self._plan.folder)
            if sheet is not None:
                self._log.picture("surface_views", sheet, step)
        self._report(numbers)

    @torch.no_grad()
    def _views(self) -> Image.Image:
        session, batch = self._session, self._fixed()
        with in_eval_mode(session.networks.encoder):  # the others know no modes
            config = self._plan.config
            plan = StepPlan.of(config.losses, contrasts=True)
            outputs = translate(session.networks, to_device(batch, session.device), config, plan)
        return sample_grid(batch, outputs.images)

    def _fixed(self) -> PairedBatch:
        """The same images in every picture, spread over the training set."""
        data, config = self._session.data, self._plan.config
        assert data.projections is not None
        rows = torch.linspace(0, len(data.images) - 1, _PICTURED).long().tolist()
        return paired_loader(data.images, data.projections, config.data, config.run.seed).source.batch(
            [Draw(row) for row in rows]
        )


_SHOWN = ("cluster_contrast", "generator_total", "discriminator_total", "images/s")


def _rewind(plan: Plan, checkpoint: Path | None) -> None:
    """Take the records after the checkpoint out of metrics.jsonl: what is repeated must not be counted twice."""
    stages = plan.config.run.stages
    if checkpoint is None or checkpoint.parent != plan.checkpoints.folder:
        rewind(plan.folder, stages, stages[0], -1, -1)
        return
    position = read_manifest(checkpoint).position
    epoch = position.epoch if position.batch else position.epoch - 1
    rewind(plan.folder, stages, stages[position.stage], epoch, position.step)


def _write_outcome(folder: Path, outcome: Outcome) -> None:
    write_json(folder / OUTCOME, asdict(outcome))
