"""One trial: a training run that is followed by what it writes into its run folder, and the driver that Tune holds.

The driver is light: training happens in Ray Train's workers, or in a thread of it with `run.local`. It reads scores
from the run folder as they appear, so that nothing of the trainer knows of Tune.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from jgcl_ray.config import Config, StageName
from jgcl_ray.errors import UserError
from jgcl_ray.mlflow_mirror import tracking_uri
from jgcl_ray.run_log import read_records
from jgcl_ray.training.checkpoint import BEST, LATEST, read_manifest
from jgcl_ray.training.loop import Outcome
from jgcl_ray.training.run import train
from jgcl_ray.training.worker import REFUSED, ask_to_stop
from jgcl_ray.tuning.record import TrialRecord, claim, read_trials
from jgcl_ray.tuning.space import configured

CHECKPOINTS, _ORIGIN = "checkpoints", "origin"
_INTERVAL = 0.5  # seconds between looks at the run folder
_PATIENCE = 120.0  # seconds for the workers of a stopped trial to save and end


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run."""

    value: float  # of the sweep's metric
    epochs: int  # done when it was made, over all stages
    step: int


@dataclass(frozen=True)
class TrialSetting:
    """What all trials of a sweep share."""

    base: Config
    trials: Path  # folder of their run folders
    metric: str
    numbers: tuple[int, ...]  # of the trials, in the order in which Tune gets them
    parent: str | None  # MLflow run

    def number(self, tune_id: str, config: Mapping[str, Any]) -> int:
        """Of a trial: as its searcher says, else by the place that ends Tune's id (PBT swaps all of `config`)."""
        return int(config["number"]) if "number" in config else self.numbers[int(tune_id.rpartition("_")[2])]


class RunFollower:
    """A run in a thread, and its evaluations as they appear: those of an earlier start first."""

    def __init__(self, config: Config, metric: str) -> None:
        self.folder = config.run.root / config.run.name
        self._config, self._metric = config, metric
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, name="training", daemon=True)
        self._reported = -1  # step
        self._thread.start()

    def evaluations(self) -> Iterator[Evaluation]:
        """Each when its checkpoint is written; ends with the run, by raising what the run raised."""
        running = True
        while running:
            running = self._thread.is_alive()
            for found in self._new():
                self._reported = found.step
                yield found
            self._thread.join(_INTERVAL)
        if self._error is not None:
            raise self._error

    def outcome(self) -> Outcome:
        """Of the run that has ended."""
        if self._outcome is None or self._outcome.interrupted:
            raise RuntimeError(f"{self.folder}: the run was asked to stop")
        return self._outcome

    def stop(self) -> None:
        """Let the workers save, close their record and end; waits for them."""
        deadline = time.monotonic() + _PATIENCE
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self.folder.is_dir():  # again and again: a run that is just starting clears what it finds
                ask_to_stop(self.folder)
            self._thread.join(_INTERVAL)

    def _train(self) -> None:
        try:
            self._outcome = train(self._config, lambda line: None)
        except BaseException as error:  # raised again by `evaluations`
            self._error = error

    def _new(self) -> list[Evaluation]:
        if not (self.folder / "metrics.jsonl").is_file():
            return []
        saved = self._saved()
        return [
            Evaluation(record[self._metric], self._epochs(record), record["step"])
            for record in read_records(self.folder)
            if record.get(self._metric) is not None and self._reported < record["step"] <= saved
        ]

    def _saved(self) -> int:
        """Step of the newest checkpoint: only what can be gone on from counts."""
        latest = self.folder / CHECKPOINTS / LATEST
        while latest.exists():
            checkpoint = latest.resolve()
            try:
                return read_manifest(checkpoint).position.step
            except UserError:
                if latest.resolve() == checkpoint:  # else a newer one has just taken its place
                    raise
        return -1

    def _epochs(self, record: Mapping[str, Any]) -> int:
        return epochs_before(self._config, record["stage"]) + int(record["epoch"]) + 1


def epochs_before(config: Config, stage: StageName | None = None) -> int:
    """Epochs of the stages before one; of all stages."""
    stages = config.run.stages
    before = stages[: stages.index(stage)] if stage else stages
    return sum(config.epochs_of(each) for each in before)


class Trial(tune.Trainable):
    """What Tune starts, asks for the next evaluation, and stops."""

    def setup(self, config: dict[str, Any], setting: TrialSetting) -> None:  # type: ignore[override]
        """Nothing starts yet: a checkpoint to go on from may still come."""
        self._setting, self._params = setting, dict(config["params"])
        self._number = setting.number(self.trial_id, config)
        self._record: TrialRecord | None = None
        self._following: RunFollower | None = None
        self._evaluations: Iterator[Evaluation] = iter(())
        self._since = time.monotonic()

    def step(self) -> dict[str, Any]:
        """The next evaluation; at the end the best one, with `done`."""
        if self._record is None:
            self._begin()
        record = self._require()
        try:
            if self._following is None:
                self._following = RunFollower(self._config(record), self._setting.metric)
                self._evaluations = self._following.evaluations()
            found = next(self._evaluations, None)
            if found is None:
                return self._finish(self._following.outcome())
        except Exception as error:
            self._note(status="failed", reason=reason_of(error, self._setting.trials / record.name))
            raise
        best = found.value if record.best is None else max(record.best, found.value)
        self._note(best=best, epochs=found.epochs)
        return {self._setting.metric: found.value, "epochs": found.epochs}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The newest checkpoint and the best, for another trial to go on from."""
        name, target = self._require().name, Path(checkpoint_dir)
        (target / _ORIGIN).write_text(name, encoding="utf-8")
        for link in (LATEST, BEST):
            checkpoint = (self._setting.trials / name / CHECKPOINTS / link).resolve()
            if checkpoint.is_dir():
                shutil.copytree(checkpoint, target / CHECKPOINTS / checkpoint.name, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from another trial's checkpoint; a trial's own is in its run folder anyway."""
        source = Path(checkpoint)
        origin = (source / _ORIGIN).read_text(encoding="utf-8")
        own = [record.name for record in read_trials(self._setting.trials) if record.number == self._number]
        if origin in own:
            return
        self._begin(origin)
        target = self._setting.trials / self._require().name / CHECKPOINTS
        if not target.exists():
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source / CHECKPOINTS, partial)
            partial.rename(target)

    def cleanup(self) -> None:
        """Stopped by the scheduler: the workers save and end, and nothing of them stays on the cluster."""
        if self._following is not None:
            self._following.stop()

    def _begin(self, origin: str | None = None) -> None:
        self._record = claim(self._setting.trials, self._number, self._params, origin)
        self._since = time.monotonic()
        self._note(status="running", reason="")

    def _config(self, record: TrialRecord) -> Config:
        base = self._setting.base
        run = {"root": self._setting.trials, "name": record.name, "resume": "auto"}
        tracking = {"uri": tracking_uri(base), "parent": self._setting.parent}
        config = configured(base, record.params)
        return config.model_copy(
            update={
                "run": config.run.model_copy(update=run),
                "tracking": config.tracking.model_copy(update=tracking),
            }
        )

    def _finish(self, outcome: Outcome) -> dict[str, Any]:
        scores, metric = outcome.scores, self._setting.metric
        if self._require().best is None:
            raise UserError(f"{metric} was never measured: see eval.every, run.stages and eval.select_on")
        measured = {} if scores is None else {"mAP": scores.mAP, "rank1": scores.rank1}
        record = self._note(status="finished", **measured)
        return {metric: record.best, "epochs": record.epochs, "done": True}

    def _note(self, **changes: Any) -> TrialRecord:
        before, now = self._require(), time.monotonic()
        self._record = replace(before, seconds=round(before.seconds + now - self._since, 1), **changes)
        self._since = now
        self._record.write(self._setting.trials)
        return self._record

    def _require(self) -> TrialRecord:
        assert self._record is not None
        return self._record


def reason_of(error: BaseException, folder: Path) -> str:
    """Why a run failed, in one line: what its workers refused, else the last line of the error."""
    refused = folder / REFUSED
    if refused.is_file():
        return refused.read_text(encoding="utf-8")
    return f"{type(error).__name__}: {last_line(str(error))}"


def last_line(text: str) -> str:
    """Of an error's text, where what went wrong stands."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
