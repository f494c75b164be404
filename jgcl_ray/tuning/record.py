"""The record of a sweep: trial.json in each trial's run folder, and in MLflow a parent run with the trials below it.

    RUNS/NAME-SPACE/            sweep.json, trials.csv, best.yaml; artifacts/ and metrics.jsonl of the parent run
    RUNS/NAME-SPACE/trials/     a run folder for each trial, with trial.json beside its metrics.jsonl

No Ray: files are the truth, and whoever reads them later sees what the driver saw.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from jgcl_ray.atomic import write_json
from jgcl_ray.config import Config
from jgcl_ray.errors import UserError
from jgcl_ray.mlflow_mirror import (
    ARTIFACTS,
    CARD,
    METRICS,
    Mirror,
    RunCard,
    TrackingUnavailableError,
    masked,
    tracking_uri,
)
from jgcl_ray.mlflow_mirror import Status as MlflowStatus
from jgcl_ray.run_log import prepare_tracking
from jgcl_ray.stored_files import read_json
from jgcl_ray.tuning.space import Params, Space
from jgcl_ray.writer_lock import CLAIM, LOCK

TRIAL, SWEEP, TRIALS = "trial.json", "sweep.json", "trials"
Status = Literal["running", "finished", "stopped", "replaced", "failed", "interrupted"]

_FREE = {"scaling", "tracking", "checkpoints"}  # may differ when a sweep goes on, on another cluster perhaps

logger = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0)]
Score = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class TrialRecord:
    """trial.json: one trial, or with PBT a stretch of one between two exchanges."""

    name: str  # of its run folder and of its MLflow run
    number: Count  # of the trial, from 0
    params: Params
    origin: str | None = None  # the trial from whose checkpoint it started
    status: Status = "running"
    reason: str = ""  # why it was stopped, replaced or failed
    best: Score | None = None  # the largest value of the sweep's metric
    mAP: Score | None = None  # of the best checkpoint on the test split, of finished trials
    rank1: Score | None = None
    epochs: Count = 0  # over all stages
    seconds: Score = 0.0  # of training, over all starts

    def write(self, folder: Path) -> None:
        """Atomically, as TRIALS/NAME/trial.json."""
        write_json(folder / self.name / TRIAL, asdict(self))


def read_trials(folder: Path) -> list[TrialRecord]:
    """All trials in a folder of trials, by name; UserError for a damaged record."""
    return [_read_trial(file) for file in sorted(folder.glob(f"*/{TRIAL}"))]


def _read_trial(file: Path) -> TrialRecord:
    remedy = f"restore it, or remove {file.parent} to run the trial anew"
    record = read_json(file, TrialRecord, remedy)
    if record.name != file.parent.name:
        raise UserError(f"{file}: damaged (it is of {record.name}); {remedy}")
    return record


def check_params(folder: Path, space: Space) -> None:
    """UserError where a trial's params cannot be of the space."""
    for record in read_trials(folder):
        for each in space.dimensions:
            value = record.params.get(each.field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number if each.bounded else value in each.values):
                of = folder / record.name
                raise UserError(
                    f"{of / TRIAL}: damaged (params: {each.field}={value!r}); restore it, or remove {of} to run the "
                    "trial anew"
                )


def claim(folder: Path, number: int, params: Params, origin: str | None = None) -> TrialRecord:
    """The run folder of a trial, for the one process that runs it: that of an earlier start, else a new one.

    A trial that takes over another's checkpoint, `origin`, and has other params from there on gets a further folder.
    """
    own = [record for record in read_trials(folder) if record.number == number]
    if own and own[-1].params == params and origin in (None, own[-1].origin):
        return own[-1]
    record = TrialRecord(f"trial_{number:03d}" + (f".{len(own)}" if own else ""), number, params, origin)
    try:
        (folder / record.name).mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder / record.name}: there is no {TRIAL} in it; restore that, or remove it") from None
    record.write(folder)
    if own and own[-1].status == "running":
        replace(own[-1], status="replaced", reason=f"goes on as {record.name}, from {origin}").write(folder)
    return record


def remaining(records: list[TrialRecord], drawn: Mapping[int, Params], again: bool) -> dict[int, Params]:
    """Number and params of the trials that a sweep has still to run: those without an end of their own.

    records: of an earlier start. drawn: the params that a trial starts with. again: failed trials too.
    """
    ended = ("finished", "stopped") if again else ("finished", "stopped", "failed")
    last = {record.number: record for record in records}  # by name: of several stretches the newest
    here = {number: record.params for number, record in last.items() if record.status not in ended}
    return dict(sorted((here | {n: params for n, params in drawn.items() if n not in last}).items()))


class SweepRecord:
    """What the driver of a sweep keeps; MLflow is updated by a thread, so that trials never wait for it."""

    def __init__(self, folder: Path, base: Config, space: Space, metric: str) -> None:
        self.folder, self.trials = folder, folder / TRIALS
        self._base, self._space, self._metric = base, space, metric
        self._mirror = Mirror(folder, tracking_uri(base)) if base.tracking.enabled else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sweep record")
        self._sent: list[Future[None]] = []
        self._settled: set[tuple[str, Status]] = set()
        self._ended = 0

    def open(self) -> str | None:
        """Begin the parent run, or go on with it; its id, None where MLflow is off or away."""
        (self.folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
        self.trials.mkdir(exist_ok=True)
        self._ended = len(_lines(self.folder / METRICS))
        sweep = self._space.sweep
        params = {"space": self._space.name, "config": self._base.run.name, "metric": self._metric}
        params |= {"trials": str(self._space.trials), "seed": str(sweep.seed), "searcher": sweep.searcher}
        params |= {f"scheduler.{name}": str(value) for name, value in sweep.scheduler.model_dump().items()}
        params |= {each.field: str(each) for each in self._space.dimensions}
        RunCard(
            key=RunCard.read(self.folder).key if (self.folder / CARD).exists() else uuid.uuid4().hex,
            name=self.folder.name,
            uri=masked(tracking_uri(self._base)),
            experiment=self._base.tracking.experiment,
            status="RUNNING",
            params=params,
            tags={"dataset": self._base.data.name},
        ).write(self.folder)
        if (unavailable := prepare_tracking(self._base)) is not None:
            logger.warning("MLflow: %s; the record stays in %s", unavailable, self.folder)
            return None
        self._send()
        return self._mirror.run_id if self._mirror else None

    @property
    def page(self) -> str:
        """Where the sweep can be looked at in MLflow."""
        return self._mirror.page if self._mirror else "off"

    @property
    def interrupted(self) -> bool:
        """Whether there are trials without an end."""
        records = read_trials(self.trials)
        begun = {record.number for record in records}
        return len(begun) < self._space.trials or any(record.status == "interrupted" for record in records)

    def ended(self, number: int, params: Params, status: Status, reason: str = "") -> TrialRecord:
        """A trial's end as the driver saw it; what the trial itself has written stays. Its last record."""
        record = claim(self.trials, number, params)
        if record.status == "running":
            record = replace(record, status=status, reason=reason)
            record.write(self.trials)
        self._ended += 1
        values = [record.best for record in read_trials(self.trials) if record.best is not None]
        line = {
            "stage": "sweep",
            "epoch": self._ended,
            "step": self._ended,
            f"best_{self._metric}": max(values, default=None),
        }
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._sent.append(self._thread.submit(self._settle))
        return record

    def settle_trials(self) -> None:
        """When none runs any more: what still says `running` was interrupted; the MLflow runs of all are closed."""
        self._thread.shutdown(wait=True)
        for future in self._sent:
            future.result()
        for record in read_trials(self.trials):
            if record.status == "running":
                replace(record, status="interrupted", reason="the sweep was stopped").write(self.trials)
        self._settle(final=True)

    def close(self) -> None:
        """Close the parent run: KILLED where trials are left to be run."""
        status: MlflowStatus = "KILLED" if self.interrupted else "FINISHED"
        replace(RunCard.read(self.folder), status=status).write(self.folder)
        self._tag(self.folder, best_tags(read_trials(self.trials)))

    def _settle(self, final: bool = False) -> None:
        """Close and label the MLflow runs of trials that have ended."""
        for record in read_trials(self.trials):
            folder = self.trials / record.name
            ended = (record.name, record.status)
            if ended in self._settled or record.status == "running" or not (folder / CARD).exists():
                continue
            card = RunCard.read(folder)
            if card.status == "RUNNING":
                if not final and record.status != "failed":  # its worker is about to close it
                    continue
                replace(card, status=MLFLOW_STATUS[record.status]).write(folder)
            tags = {"trial": record.status, "reason": record.reason, "origin": record.origin or ""}
            if self._tag(folder, {name: text for name, text in tags.items() if text}):
                self._settled.add(ended)
        self._send()

    def _send(self) -> None:
        if self._mirror:
            self._tag(self.folder, {})

    def _tag(self, folder: Path, tags: Mapping[str, str]) -> bool:
        """Send what MLflow lacks of a run folder, and tags; whether MLflow took it."""
        if self._mirror is None:
            return True
        mirror = self._mirror if folder == self.folder else Mirror(folder, self._mirror.uri)
        try:
            mirror.update()
            mirror.tag(tags)
        except TrackingUnavailableError as error:
            logger.warning("MLflow: %s; later: python -m jgcl_ray.run_log --sync %s", error, folder)
            return False
        return True


MLFLOW_STATUS: Mapping[Status, MlflowStatus] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "replaced": "KILLED",
    "interrupted": "KILLED",
}


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial of the largest value, of those that finished, else of all; None where nothing was measured."""
    measured = [record for record in records if record.best is not None]
    finished = [record for record in measured if record.status == "finished"]
    return max(finished or measured, key=lambda record: record.best or 0.0, default=None)


def best_tags(records: Sequence[TrialRecord]) -> dict[str, str]:
    """For the parent run."""
    best = best_of(records)
    if best is None:
        return {}
    return {"best_trial": best.name} | {f"best.{field}": str(value) for field, value in best.params.items()}


def open_folder(folder: Path, base: Config, space: Space) -> None:
    """Make the folder of a sweep, or take it up again; UserError where it holds another one."""
    tree = base.model_dump(mode="json", exclude=_FREE) | space.sweep.model_dump(mode="json")
    file, content = folder / SWEEP, _flat(tree)
    if file.is_file():
        before = read_json(file, dict[str, Any], "restore it, or give this sweep another run.name")
        differing = [name for name in content.keys() | before.keys() if content.get(name) != before.get(name)]
        if differing:
            raise UserError(
                f"{folder} holds another sweep (it differs in {', '.join(sorted(differing)[:4])}): give this one "
                "another run.name, or remove that folder"
            )
    elif folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - {LOCK, CLAIM})
        if others:
            raise UserError(f"{folder} exists and is no sweep's, it holds {others[0]}: give another run.name")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, content)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
