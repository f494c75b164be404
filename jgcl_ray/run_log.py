"""The record of a run: metrics.jsonl and pictures in the run's folder, mirrored to MLflow in the background.

Nothing here waits for a tracking server while a run trains, nor fails because of one: what could not be sent stays
in the folder, and `python -m jgcl_ray.run_log --sync RUN_FOLDER` sends it later.

A run resumed from a checkpoint makes the steps after it again. `rewind` takes their first records out of
metrics.jsonl; in MLflow, where nothing can be taken back, a metric keeps its first value at a step, and the repeated
one is not sent.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import yaml
from PIL import Image

from jgcl_ray.arguments import Parser
from jgcl_ray.atomic import write_bytes
from jgcl_ray.config import Config, validate
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.mlflow_mirror import (
    ARTIFACTS,
    CARD,
    METRICS,
    MODEL,
    PICTURES,
    Mirror,
    RunCard,
    TrackingUnavailableError,
    flat_params,
    masked,
    prepare,
    quiet_mlflow,
    tracking_uri,
    without_secrets,
)
from jgcl_ray.places import absolute
from jgcl_ray.run_records import RECORD_KEYS, Record, parse_record

EndStatus = Literal["FINISHED", "FAILED", "KILLED"]

INTERVAL = 5.0  # seconds from one update of MLflow to the next
LONGEST_INTERVAL = 600.0  # while MLflow is away
LAST_PAUSES = (0.0, 1.0, 4.0)  # seconds before each try of the last update
# Seconds for the first update, which may have to make a database; for the last one; for that while MLflow is away.
PATIENCE_AT_OPEN, PATIENCE_AT_CLOSE, PATIENCE_AWAY = 60.0, 120.0, 15.0
MODEL_NEEDS = ("torch", "numpy", "pillow", "safetensors", "pydantic", "pyyaml")  # besides MLflow
_METRIC_NAME = re.compile(r"[\w./ -]{1,250}", re.ASCII)  # what MLflow takes
_PICTURE_NAME = re.compile(r"[\w.-]+", re.ASCII)

logger = logging.getLogger(__name__)


class NullRunLog:
    """What ranks other than 0 hold: the methods of RunLog, doing nothing."""

    @property
    def run_id(self) -> str | None:
        """Of the MLflow run, once there is one."""
        return None

    @property
    def page(self) -> str:
        """Where to look at the run in MLflow: an address, or the command that serves it."""
        return "off"

    def record(self, stage: str, epoch: int, step: int, numbers: Mapping[str, float]) -> None: ...

    def picture(self, name: str, image: Image.Image, step: int) -> None: ...

    def file(self, path: Path, folder: str = "") -> None: ...

    def model(self, weights: Path, step: int) -> None: ...

    def close(self, status: EndStatus = "FINISHED") -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close: FINISHED, KILLED by KeyboardInterrupt or SystemExit, FAILED by any other error."""
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        self.close("FINISHED" if error is None else "KILLED" if interrupted else "FAILED")


class RunLog(NullRunLog):
    """The run log of rank 0, for one process at a time."""

    def __init__(self, folder: Path, config: Config, mirror: Mirror | None) -> None:
        """By `RunLog.open`."""
        self._folder = folder
        self._config = config
        self._metrics = (folder / METRICS).open("a", encoding="utf-8")
        self._courier = _Courier(mirror) if mirror else None

    @classmethod
    def open(
        cls, folder: Path, config: Config, tags: Mapping[str, str] | None = None, parent_run_id: str | None = None
    ) -> RunLog:
        """Start the records of `folder`, or go on with them and with its MLflow run.

        Tags `dataset`, `stage` and `git_commit` come by themselves. `parent_run_id`: MLflow run under which this one
        is shown, else that of `tracking.parent`. Waits up to PATIENCE_AT_OPEN seconds for MLflow.
        """
        for name in (".", PICTURES, ARTIFACTS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _repair_last_line(folder / METRICS)
        uri = tracking_uri(config)
        key = RunCard.read(folder).key if (folder / CARD).exists() else uuid.uuid4().hex
        own_tags = {"dataset": config.data.name, **_git_tags()}
        if parent := parent_run_id or config.tracking.parent:
            own_tags["mlflow.parentRunId"] = parent
        RunCard(
            key=key,
            name=config.run.name,
            uri=masked(uri),
            experiment=config.tracking.experiment,
            status="RUNNING",
            params=flat_params(config),
            tags=own_tags | {name: masked(text) for name, text in (tags or {}).items()},
        ).write(folder)
        public = without_secrets(config.model_dump(mode="json"))
        text = yaml.safe_dump(public, sort_keys=False, allow_unicode=True)
        write_bytes(folder / ARTIFACTS / "config.yaml", text.encode())
        return cls(folder, config, Mirror(folder, uri) if config.tracking.enabled else None)

    @property
    def run_id(self) -> str | None:
        return self._courier.mirror.run_id if self._courier else None

    @property
    def page(self) -> str:
        return self._courier.mirror.page if self._courier else "off"

    def record(self, stage: str, epoch: int, step: int, numbers: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, on disk when this returns.

        step counts on over all stages. A name occurs once at a step. NaN and infinity become null.
        """
        for name in numbers:
            if name in RECORD_KEYS or not _METRIC_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} cannot name a metric: letters, digits, _-./ and spaces, not {RECORD_KEYS}"
                )
        finite = {name: float(value) if math.isfinite(value) else None for name, value in numbers.items()}
        line = {"stage": stage, "epoch": int(epoch), "step": int(step), **finite}
        self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
        self._metrics.flush()

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        """Keep as pictures/NAME_STEP.png; in MLflow an image of the run with a step."""
        if not _PICTURE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a picture: letters, digits, _ . and -")
        content = io.BytesIO()
        image.save(content, format="PNG")
        write_bytes(self._folder / PICTURES / f"{name}_{step:07d}.png", content.getvalue())

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a copy as artifacts/FOLDER/NAME, replacing an earlier one; in MLflow an artifact of the run."""
        target = self._folder / ARTIFACTS / folder
        target.mkdir(parents=True, exist_ok=True)
        partial = target / f"{path.name}.partial"
        shutil.copyfile(path, partial)
        partial.replace(target / path.name)

    def model(self, weights: Path, step: int) -> None:
        """Keep the encoder as an MLflow model in model/, replacing an earlier one (jgcl_ray/mlflow_model.py).

        weights: safetensors of `models.weights.save_weights`, of an encoder of this run's configuration. The model
        holds copies of them and of this package; `mlflow.pyfunc.load_model` takes the folder or `runs:/RUN_ID/model`.
        Seconds, and twice the size of the weights on disk: for the end of a run.
        """
        target, partial = self._folder / MODEL, self._folder / f"{MODEL}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _save_model(partial, weights, self._config, step)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)

    def close(self, status: EndStatus = "FINISHED") -> None:
        """End the records, and MLflow's run with `status`; waits up to PATIENCE_AT_CLOSE seconds for MLflow."""
        if self._metrics.closed:
            return
        self._metrics.close()
        replace(RunCard.read(self._folder), status=status).write(self._folder)
        if self._courier:
            self._courier.close()


class _Courier:
    """A thread that updates a mirror every few seconds; one warning each time MLflow goes away."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self._away = False
        self._closing, self._tried = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="run log", daemon=True)
        self._thread.start()
        if not self._tried.wait(PATIENCE_AT_OPEN):
            self._warn(f"{masked(mirror.uri)}: no answer yet")

    def close(self) -> None:
        self._closing.set()
        self._thread.join(PATIENCE_AWAY if self._away else PATIENCE_AT_CLOSE)
        if self._thread.is_alive():
            self._warn(f"{masked(self.mirror.uri)}: no answer")

    def _work(self) -> None:
        interval = 0.0
        while not self._closing.wait(interval):
            interval = INTERVAL if self._update() else min(max(2 * interval, INTERVAL), LONGEST_INTERVAL)
        for pause in [0.0] if self._away else LAST_PAUSES:
            time.sleep(pause)
            if self._update():
                return

    def _update(self) -> bool:
        try:
            self.mirror.update()
        except (TrackingUnavailableError, UserError) as error:  # or a file of the run's own is damaged
            self._warn(str(error))
            return False
        finally:
            self._tried.set()
        if self._away:
            self._away = False
            logger.warning("MLflow is back: the run's records have been sent")
        return True

    def _warn(self, reason: str) -> None:
        if not self._away:
            self._away = True
            logger.warning(
                "MLflow is away (%s). The run goes on, its records stay in its folder; should MLflow come back after "
                "the run, send them: python -m jgcl_ray.run_log --sync %s",
                reason,
                self.mirror.folder,
            )


def prepare_tracking(config: Config) -> str | None:
    """For the driver, before workers or trials open run logs: create MLflow's tables and the experiment.

    Returns why MLflow cannot be used at present, for the terminal (warnings of workers end in their log files); None
    where it can, or is not asked for. The run starts either way.
    """
    if config.tracking.enabled:
        try:
            prepare(tracking_uri(config), config.tracking.experiment, config.run.root)
        except TrackingUnavailableError as error:
            return str(error)
    return None


def read_records(folder: Path) -> list[Record]:
    """All records of a run folder, in order; a last line that is half written is left out."""
    path = folder / METRICS
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: not a run folder, it has no {METRICS}; give RUNS/NAME of a run") from None
    lines = content.split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = parse_record(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise UserError(f"{path}: line {number} is not a record; take it out")
    return records


def rewind(folder: Path, stage_order: Sequence[str], stage: str, epoch: int, step: int) -> int:
    """Go back to a checkpoint: drop, atomically, records that come after (stage, epoch, step).

    epoch: in whose middle the checkpoint was made, or the last one that it has whole (-1: none of `stage`), so that
    what the next epoch recorded before its first step goes too. Stages compare by their place in `stage_order`.
    Returns how many records went; 0 where there are none yet. For a folder whose run log is not open. UserError for
    records of another stage.
    """
    path = folder / METRICS
    if not path.exists():
        return 0
    records = read_records(folder)
    unknown = {record["stage"] for record in records} - set(stage_order)
    if unknown:
        raise UserError(
            f"{path}: records of stages {', '.join(sorted(unknown))}, this run has {', '.join(stage_order)}; take "
            "those lines out"
        )
    place = {name: i for i, name in enumerate(stage_order)}
    limit = (place[stage], epoch, step)
    kept = [record for record in records if (place[record["stage"]], record["epoch"], record["step"]) <= limit]
    write_bytes(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept).encode())
    return len(records) - len(kept)


def _repair_last_line(path: Path) -> None:
    """A killed process leaves a line without its end: complete it if it is whole, else take it away."""
    content = path.read_bytes() if path.exists() else b""
    start = content.rfind(b"\n") + 1
    last = content[start:]
    if last:
        write_bytes(path, content + b"\n" if parse_record(last) is not None else content[:start])


def _save_model(target: Path, weights: Path, config: Config, step: int) -> None:
    quiet_mlflow()
    import mlflow.pyfunc

    package = Path(__file__).parent
    needed = {"encoder": config.encoder, "data": config.data}
    settings = {name: section.model_dump(mode="json") for name, section in needed.items()}
    with tempfile.TemporaryDirectory() as folder:
        encoder = Path(folder) / "encoder.yaml"
        encoder.write_text(yaml.safe_dump(settings))
        mlflow.pyfunc.save_model(
            path=target,
            python_model=str(package / "mlflow_model.py"),
            artifacts={"weights": str(weights), "config": str(encoder)},
            code_paths=[str(package)],
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in MODEL_NEEDS],
            metadata={"step": step},
        )


def _git_tags() -> dict[str, str]:
    commit = git_commit(Path(__file__).parents[1])
    return (
        {"git_commit": commit, "mlflow.source.git.commit": commit} if commit else {}
    )  # the latter shows in its pages


def git_commit(checkout: Path) -> str | None:
    """The commit of a checkout, read from its files; None where there is none (an installed package)."""
    git = checkout / ".git"
    try:
        if git.is_file():  # a worktree or a submodule: gitdir: PATH
            git = checkout / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        common = git / "commondir"
        shared = git / common.read_text().strip() if common.exists() else git
        ref = head.removeprefix("ref: ")
        for folder in (git, shared):
            if (folder / ref).exists():
                return (folder / ref).read_text().strip()
        packed = (shared / "packed-refs").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Send to MLflow what it lacks of a run."""
    parser = Parser(prog="python -m jgcl_ray.run_log", description=main.__doc__)
    parser.add_argument("--sync", metavar="RUN_FOLDER", type=Path, required=True, help="folder of the run")
    parser.add_argument("--uri", help="MLflow's tracking server or database; the run's own when it is not given")
    options = parser.parse_args(arguments)
    folder = absolute(options.sync)
    card = RunCard.read(folder)
    uri = validate({"tracking": {"uri": options.uri}}).tracking.uri or card.uri
    if "***" in uri:
        raise UserError(f"the password for {uri} is not kept in the run folder: give the address by --uri URI")
    mirror = Mirror(folder, uri)
    try:
        sent = mirror.update()
    except TrackingUnavailableError as error:
        raise UserError(f"MLflow is away ({error}): start it and try again, or give another by --uri URI") from None
    print(
        f"{card.name}: sent {sent.numbers} numbers, {sent.pictures} pictures, {sent.files} files and "
        f"{sent.models} models to run {mirror.run_id} ({mirror.page})"
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
