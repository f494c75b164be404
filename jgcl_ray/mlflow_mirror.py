"""MLflow as a mirror of a run folder: whatever the folder has and MLflow lacks is sent, at any time, by anyone.

The folder is the truth, and MLflow itself is asked how far it has got. So sending again, after a failure, a resumed
run or from another process, repeats nothing, and there is no state of sending to be lost.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jgcl_ray.atomic import one_at_a_time, write_json
from jgcl_ray.config import Config
from jgcl_ray.errors import UserError, as_text
from jgcl_ray.image_files import UnreadableImage, read_image
from jgcl_ray.run_records import RECORD_KEYS, parse_record
from jgcl_ray.stored_files import read_json, read_yaml_as

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

METRICS, PICTURES, ARTIFACTS, MODEL, CARD = "metrics.jsonl", "pictures", "artifacts", "model", "tracking.json"
SQLITE = "sqlite:///"  # and the path, which begins with a slash of its own
KEY_TAG, MODEL_TAG = "jgcl_ray.run_key", "jgcl_ray.model_uuid"
PARAM_LENGTH, METRICS_PER_CALL, PARAMS_PER_CALL = 6000, 1000, 100  # MLflow's limits
# Short ones: a server that does not answer is asked again later, by the mirror itself.
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_IMAGE_FILE = re.compile(r"(?P<name>[^/]+)[+%]step[+%](?P<step>\d+)[+%]timestamp")  # as MlflowClient.log_image has it
_NO_MODEL = f"remove the folder {MODEL}, MLflow then has no model of this run"
_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential", re.IGNORECASE)


class TrackingUnavailableError(Exception):
    """MLflow cannot be reached or does not take what it is sent; the message bears no password."""

    def __init__(self, uri: str, error: BaseException) -> None:
        lines = masked(str(error)).strip().splitlines()
        super().__init__(f"{masked(uri)}: {lines[0][:300] if lines else type(error).__name__}")


@dataclass(frozen=True)
class RunCard:
    """tracking.json of a run folder: what MLflow gets of a run besides its numbers and files."""

    key: str  # the tag by which the run is found again, on any server
    name: str
    uri: str  # without passwords
    experiment: str
    status: Status
    params: dict[str, str]
    tags: dict[str, str]

    def write(self, folder: Path) -> None:
        """Atomically."""
        write_json(folder / CARD, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> RunCard:
        """UserError where `folder` is not one of a run, or its card is damaged."""
        path = folder / CARD
        if not path.exists():
            raise UserError(f"{folder}: not a run folder, it has no {CARD}; give RUNS/NAME of a run")
        return read_json(path, cls, "delete it, and the run begins anew in MLflow when resumed")


@dataclass(frozen=True)
class _ModelMetadata:
    step: int


@dataclass(frozen=True)
class _SavedModel:
    """What is wanted of MODEL/MLmodel."""

    model_uuid: str
    metadata: _ModelMetadata


@dataclass
class Sent:
    """How much one update had to send."""

    numbers: int = 0
    pictures: int = 0
    files: int = 0
    models: int = 0


class Mirror:
    """Keeps the MLflow run of one run folder up to date; one at a time, or what several send is there twice."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self._link: _Link | None = None

    @property
    def run_id(self) -> str | None:
        """Of the MLflow run, once there is one."""
        return self._link.run_id if self._link else None

    @property
    def page(self) -> str:
        """Where the run can be looked at: an address, or the command that serves it."""
        if not self.uri.startswith("http"):
            return f"mlflow ui --backend-store-uri {masked(self.uri)}"
        where = f"/#/experiments/{self._link.experiment_id}/runs/{self._link.run_id}" if self._link else ""
        return masked(self.uri).rstrip("/") + where

    def update(self) -> Sent:
        """Send what MLflow lacks; TrackingUnavailableError leaves the rest to the next call."""
        with _unavailable(self.uri):
            try:
                if self._link is None:
                    self._link = _Link(self.folder, self.uri)
                return self._link.update()
            except BaseException:
                self._link = None  # what has arrived is anyone's guess: the next call asks
                raise

    def tag(self, tags: Mapping[str, str]) -> None:
        """Tags of the MLflow run besides those of its card; after an `update`."""
        if self._link is not None:
            with _unavailable(self.uri):
                self._link.tag(tags)


class _Link:
    """One connection; knows what MLflow had when it was made, and what went since."""

    def __init__(self, folder: Path, uri: str) -> None:
        card = RunCard.read(folder)
        self._folder = folder
        with _alone_with(uri):
            self._client = _client(uri)
            self.experiment_id = _experiment(self._client, card.experiment, uri, folder.parent)
        run = self._find(card) or self._client.create_run(
            self.experiment_id, tags={**_texts(card.tags), KEY_TAG: card.key}, run_name=card.name
        )
        self.run_id: str = run.info.run_id
        self._status: str = run.info.status
        self._stage = run.data.tags.get("stage")
        # Only what `to_proto` gives bears the step: for each metric the last one there is.
        self._reached: dict[str, int] = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        self._offset = 0
        listed = self._client.list_artifacts(self.run_id, "images")
        found = [_IMAGE_FILE.match(Path(image.path).name) for image in listed]
        self._pictures = {(image["name"], int(image["step"])) for image in found if image}
        self._files: dict[Path, int] = {}
        self._model: str | None = None
        missing = {name: value for name, value in card.params.items() if name not in run.data.params}
        self._send_params(missing)

    def update(self) -> Sent:
        sent = Sent()
        sent.numbers = self._send_metrics()
        sent.pictures = self._send_pictures()
        sent.files = self._send_files()
        self._send_status(RunCard.read(self._folder).status)
        sent.models = self._send_model()  # at last: it is large, and servers before MLflow 3 do not take it
        return sent

    def tag(self, tags: Mapping[str, str]) -> None:
        for name, value in _texts(tags).items():
            self._client.set_tag(self.run_id, name, value)

    def _find(self, card: RunCard) -> Run | None:
        found = self._client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{card.key}'", max_results=1)
        return self._client.get_run(found[0].info.run_id) if found else None

    def _send_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for chunk in _chunks(
            [Param(name, text[:PARAM_LENGTH]) for name, text in _texts(params).items()], PARAMS_PER_CALL
        ):
            self._client.log_batch(self.run_id, params=chunk)

    def _send_metrics(self) -> int:
        from mlflow.entities import Metric

        path = self._folder / METRICS
        if not path.exists():
            return 0
        waiting: list[Metric] = []
        numbers, position, stage = 0, self._offset, self._stage
        now = int(time.time() * 1000)
        with path.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):  # being written at this moment
                    break
                record = parse_record(line)
                if record is None:
                    raise UserError(f"{path}: the line at byte {position:,} is not a record; take it out")
                metrics = [
                    Metric(name, math.nan if value is None else value, now, record["step"])
                    for name, value in record.items()
                    if name not in RECORD_KEYS and record["step"] > self._reached.get(name, -1)
                ]
                if len(waiting) + len(metrics) > METRICS_PER_CALL:
                    numbers += self._send_batch(waiting, position)
                    waiting = []
                waiting += metrics
                position += len(line)
                stage = record["stage"]
        numbers += self._send_batch(waiting, position)
        if stage is not None and stage != self._stage:
            self._client.set_tag(self.run_id, "stage", stage)
            self._stage = stage
        return numbers

    def _send_batch(self, metrics: list[Any], position: int) -> int:
        if metrics:
            self._client.log_batch(self.run_id, metrics=metrics)
        self._offset = position
        return len(metrics)

    def _send_pictures(self) -> int:
        before = len(self._pictures)
        for path in sorted((self._folder / PICTURES).glob("*_*.png")):
            name, _, step = path.stem.rpartition("_")
            if step.isdigit() and (name, int(step)) not in self._pictures:
                try:
                    self._client.log_image(self.run_id, read_image(path).rgb, key=name, step=int(step))
                except UnreadableImage as error:
                    logging.getLogger(__name__).warning("%s cannot be read (%s) and is not sent", path, error)
                self._pictures.add((name, int(step)))
        return len(self._pictures) - before

    def _send_files(self) -> int:
        root, sent = self._folder / ARTIFACTS, 0
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            changed = path.stat().st_mtime_ns
            if self._files.get(path) != changed and path.suffix != ".partial":
                within = path.parent.relative_to(root).as_posix()
                self._client.log_artifact(self.run_id, str(path), None if within == "." else within)
                self._files[path] = changed
                sent += 1
        return sent

    def _send_model(self) -> int:
        """The saved model as MLflow's logged model `model` of the run; an earlier one is deleted."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        description = self._folder / MODEL / "MLmodel"
        if not description.exists():
            return 0
        content = read_yaml_as(description, _SavedModel, _NO_MODEL)
        uuid = content.model_uuid
        if uuid == self._model:
            return 0
        there = False
        for model in self._logged_models():
            if model.tags.get(MODEL_TAG) == uuid and model.status == LoggedModelStatus.READY:
                there = True
            else:
                self._client.delete_logged_model(model.model_id)
        if not there:
            model = self._client.create_logged_model(
                self.experiment_id, name=MODEL, source_run_id=self.run_id, tags={MODEL_TAG: uuid}
            )
            self._client.log_model_artifacts(model.model_id, str(description.parent))
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, content.metadata.step)])
        self._model = uuid
        return int(not there)

    def _logged_models(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_logged_models([self.experiment_id], f"name = '{MODEL}'", page_token=token)
            yield from (model for model in page if model.source_run_id == self.run_id)
            token = page.token
            if not token:
                return

    def _send_status(self, status: Status) -> None:
        if status == self._status:
            return
        if status == "RUNNING":
            self._client.update_run(self.run_id, status)
        else:
            self._client.set_terminated(self.run_id, status)
        self._status = status


def prepare(uri: str, experiment: str, root: Path) -> None:
    """Create MLflow's tables and the experiment where they are missing; artifacts of databases go under `root`."""
    with _unavailable(uri), _alone_with(uri):
        _experiment(_client(uri), experiment, uri, root)


def tracking_uri(config: Config) -> str:
    """`tracking.uri`, or SQLite in the folder of all runs."""
    return config.tracking.uri or f"{SQLITE}{config.run.root / 'mlflow.db'}"


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    """Paths may hold bytes that are no text, and MLflow takes text alone."""
    return {name: as_text(value) for name, value in values.items()}


def masked(text: str) -> str:
    """The text without the user and password of any address in it, and without keys in its query."""
    text = re.sub(r"://[^/\s]+@", "://***@", text)
    return re.sub(rf"([?&][^=&\s]*(?:{_SECRET_NAME.pattern}|key)[^=&\s]*=)[^&\s]+", r"\1***", text, flags=re.I)


def without_secrets(tree: Any) -> Any:
    """A copy of nested mappings and lists with passwords masked: in addresses, and under names that say so."""
    if isinstance(tree, Mapping):
        return {
            name: "***" if _SECRET_NAME.search(str(name)) and value else without_secrets(value)
            for name, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [without_secrets(value) for value in tree]
    return masked(tree) if isinstance(tree, str) else tree


def flat_params(config: Config) -> dict[str, str]:
    """Every field as section.field -> text, without passwords, cut to the length that MLflow takes."""

    def walk(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(f"{prefix}{name}.", value)
            else:
                yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)

    tree = without_secrets(config.model_dump(mode="json"))
    return {name: text[:PARAM_LENGTH] for name, text in walk("", tree)}


def quiet_mlflow() -> None:
    """Before mlflow is imported: no telemetry, short timeouts (what the user set wins), no chatter."""
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _client(uri: str) -> MlflowClient:
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    """One process at a time makes the tables of a SQLite file: MLflow itself lets two of them spoil it."""
    if not uri.startswith(SQLITE):
        yield
        return
    database = Path(uri.removeprefix(SQLITE))
    with one_at_a_time(database.with_name(f"{database.name}.lock")):
        yield


def _experiment(client: MlflowClient, name: str, uri: str, root: Path) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # A server keeps artifacts itself. With a database each client does, by default in its current directory.
        folder = Path(uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else root
        location = None if uri.startswith("http") else (folder / "mlartifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    return experiment.experiment_id


@contextmanager
def _unavailable(uri: str) -> Iterator[None]:
    quiet_mlflow()
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, CommandError, OSError) as error:
        raise TrackingUnavailableError(uri, error) from error


def _chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
