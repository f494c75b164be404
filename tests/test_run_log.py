"""What a run folder keeps, and that MLflow ends up with the same, whatever happens on the way."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from jgcl_ray import run_log
from jgcl_ray.config import Config, load_config
from jgcl_ray.data.image_files import read_rgb
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.errors import UserError
from jgcl_ray.mlflow_mirror import CARD, METRICS, RunCard, flat_params, masked, quiet_mlflow
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import save_weights
from jgcl_ray.run_log import NullRunLog, RunLog, git_commit, prepare_tracking, read_records, rewind

quiet_mlflow()
import mlflow  # noqa: E402

STAGES = ("warmup", "generator", "joint")
SMALL = ["encoder.backbone=resnet18", "encoder.weights=random", "data.height=64", "data.width=32"]


def config_of(root: Path, name: str, *overrides: str) -> Config:
    return load_config(None, [f"run.root={root}", f"run.name={name}", *SMALL, *overrides])


def without_mlflow(folder: Path) -> RunLog:
    return RunLog.open(folder, config_of(folder.parent, folder.name, "tracking.enabled=false"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one database: making its tables takes seconds."""
    root = tmp_path_factory.mktemp("runs")
    assert prepare_tracking(config_of(root, "any")) is None
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Any:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address with a password at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://someone:hunter2@127.0.0.1:{taken.getsockname()[1]}"


def numbers_at(step: int) -> dict[str, float]:
    return {"image_cycle": 1 / (step + 1), "contrast_image": math.inf if step == 3 else step**0.5}


def run_named(client: Any, name: str) -> Any:
    [run] = client.search_runs([client.get_experiment_by_name("jgcl_ray").experiment_id], f"run_name = '{name}'")
    return run


def make_records(log: RunLog, steps: range) -> None:
    for step in steps:
        log.record(STAGES[step // 10], step // 2, step, numbers_at(step))
        if step % 2:
            log.record(STAGES[step // 10], step // 2, step, {"mAP": step / 100, "rank-1": step / 50})


def histories(client: Any, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every value that MLflow has, repeated ones too."""
    names = client.get_run(run_id).data.metrics
    found = {name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)] for name in names}
    return {name: sorted(points) for name, points in found.items()}


def expected(folder: Path) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / METRICS).read_text().splitlines():
        record = json.loads(line)
        for name in record.keys() - {"stage", "epoch", "step"}:
            value = record[name]
            points.setdefault(name, []).append((record["step"], math.nan if value is None else value))
    return {name: sorted(values) for name, values in points.items()}


def assert_same(found: dict[str, list[tuple[int, float]]], wanted: dict[str, list[tuple[int, float]]]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


class TestRecords:
    def test_a_line_is_strict_json_and_there_at_once(self, tmp_path: Path) -> None:
        log = without_mlflow(tmp_path / "run")
        log.record("joint", 3, 17, {"loss": np.float32(0.5), "bad": float("nan"), "worse": torch.tensor(-math.inf)})
        line = (tmp_path / "run" / METRICS).read_text()
        assert line.endswith("\n") and "NaN" not in line and "Infinity" not in line
        assert json.loads(line) == {
            "stage": "joint", "epoch": 3, "step": 17, "loss": 0.5, "bad": None, "worse": None
        }  # fmt: skip
        log.close()

    @pytest.mark.parametrize("name", ["step", "stage", "epoch", "map@1", "", "a\nb"])
    def test_a_name_that_mlflow_would_refuse_is_refused_at_once(self, tmp_path: Path, name: str) -> None:
        with without_mlflow(tmp_path / "run") as log, pytest.raises(ValueError, match="cannot name a metric"):
            log.record("joint", 0, 0, {name: 1.0})

    @pytest.mark.parametrize(
        ("tail", "records"),
        [
            ("", 2),
            ('{"stage": "joint", "epoch": 0, "st', 2),
            ('{"stage": "joint", "epoch": 0, "step": 2, "x": 1.0}', 3),  # all but the end of the line
        ],
    )
    def test_a_half_written_last_line_is_mended(self, tmp_path: Path, tail: str, records: int) -> None:
        folder = tmp_path / "run"
        with without_mlflow(folder) as log:
            log.record("joint", 0, 0, {"x": 1.0})
            log.record("joint", 0, 1, {"x": 1.0})
        with (folder / METRICS).open("a") as file:
            file.write(tail)
        assert len(read_records(folder)) == records
        with without_mlflow(folder) as log:
            log.record("joint", 0, 9, {"x": 1.0})
        assert [record["step"] for record in read_records(folder)] == [*range(records), 9]
        assert (folder / METRICS).read_text().count("\n") == records + 1

    def test_a_damaged_line_in_the_middle_is_named(self, tmp_path: Path) -> None:
        (tmp_path / METRICS).write_text('{"stage": "joint", "epoch": 0, "step": 0}\n{"sta\n{}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not a record"):
            read_records(tmp_path)

    def test_the_null_log_takes_everything_and_leaves_nothing(self, tmp_path: Path) -> None:
        with NullRunLog() as log:
            log.record("joint", 0, 0, {"x": 1.0})
            log.picture("x", Image.new("RGB", (4, 4)), 0)
            log.file(tmp_path / "absent")
            log.model(tmp_path / "absent", 0)
            assert (log.run_id, log.page) == (None, "off")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (ZeroDivisionError, "FAILED")]
    )
    def test_how_a_run_ended(self, tmp_path: Path, error: type[BaseException] | None, status: str) -> None:
        folder = tmp_path / "run"
        try:
            with without_mlflow(folder):
                assert RunCard.read(folder).status == "RUNNING"
                if error:
                    raise error
        except (KeyboardInterrupt, ZeroDivisionError):
            pass
        assert RunCard.read(folder).status == status


class TestRewind:
    def run(self, folder: Path) -> list[tuple[str, int, int]]:
        """Two stages of two epochs of two steps; a record of labels before an epoch, of scores after it."""
        made = []
        with without_mlflow(folder) as log:
            step = 0
            for stage in ("warmup", "joint"):
                for epoch in range(2):
                    made.append((stage, epoch, step))
                    for _ in range(2):
                        step += 1
                        made.append((stage, epoch, step))
                    made.append((stage, epoch, step))
            for place in made:
                log.record(*place, {"x": 1 / 3})
        return made

    # Checkpoints of that run: in mid-epoch, or after an epoch; and how many records had been made by then.
    @pytest.mark.parametrize(
        ("stage", "epoch", "step", "kept"),
        [
            ("warmup", -1, 0, 0),
            ("warmup", 0, 1, 2),
            ("warmup", 0, 2, 4),  # after the epoch: the labels of the next, recorded at the same step, go
            ("warmup", 1, 3, 6),
            ("joint", -1, 4, 8),
            ("joint", 0, 5, 10),
            ("joint", 1, 8, 16),
        ],
    )
    def test_what_was_recorded_after_a_checkpoint_goes(
        self, tmp_path: Path, stage: str, epoch: int, step: int, kept: int
    ) -> None:
        made = self.run(tmp_path / "run")
        assert rewind(tmp_path / "run", STAGES, stage, epoch, step) == len(made) - kept
        records = read_records(tmp_path / "run")
        assert [(record["stage"], record["epoch"], record["step"]) for record in records] == made[:kept]
        assert all(record["x"] == 1 / 3 for record in records)
        assert rewind(tmp_path / "run", STAGES, stage, epoch, step) == 0

    def test_a_new_folder_has_nothing_to_drop(self, tmp_path: Path) -> None:
        assert rewind(tmp_path, STAGES, "joint", 0, 0) == 0

    def test_a_stage_out_of_order_is_an_error(self, tmp_path: Path) -> None:
        self.run(tmp_path / "run")
        with pytest.raises(ValueError, match="warmup"):
            rewind(tmp_path / "run", ("generator", "joint"), "joint", 0, 0)


class TestMLflow:
    def test_a_run_with_everything(self, root: Path, client: Any) -> None:
        config = config_of(root, "whole", "data.name=market1501", "losses.contrast_views=0.25")
        with RunLog.open(root / "whole", config, {"team": "blue"}) as log:
            make_records(log, range(25))
            log.picture("samples", Image.new("RGB", (8, 4), "red"), 7)
            plot = root / "plot.txt"
            plot.write_text("a plot")
            log.file(plot, "plots")
            run_id = log.run_id
            assert run_id is not None and f"sqlite:///{root}/mlflow.db" in log.page
        run = client.get_run(run_id)
        assert (run.info.run_name, run.info.status) == ("whole", "FINISHED")
        assert client.get_experiment(run.info.experiment_id).name == "jgcl_ray"
        assert_same(histories(client, run_id), expected(root / "whole"))
        assert run.data.params == flat_params(config)
        assert run.data.params["losses.contrast_views"] == "0.25" and run.data.params["data.root"] == "null"
        assert run.data.tags | {"dataset": "market1501", "stage": "joint", "team": "blue"} == run.data.tags
        [samples] = [image.path for image in client.list_artifacts(run_id, "images") if image.path.endswith(".png")]
        assert "samples" in samples
        assert Image.open(root / "whole" / "pictures" / "samples_0000007.png").size == (8, 4)
        assert {file.path for file in client.list_artifacts(run_id)} == {"config.yaml", "images", "plots"}
        copy = Path(client.download_artifacts(run_id, "config.yaml"))
        assert load_config(copy) == config

    def test_a_resumed_run_counts_nothing_twice(self, root: Path, client: Any) -> None:
        folder, config = root / "resumed", config_of(root, "resumed")
        first = RunLog.open(folder, config)
        make_records(first, range(17))
        first.picture("samples", Image.new("RGB", (8, 4)), 12)
        first.close("KILLED")

        assert rewind(folder, STAGES, "generator", 5, 11) > 0
        with RunLog.open(folder, config) as second:
            assert second.run_id == first.run_id
            make_records(second, range(12, 25))
            second.picture("samples", Image.new("RGB", (8, 4)), 12)
        wanted = expected(folder)
        assert [step for step, _ in wanted["image_cycle"]] == list(range(25))
        assert_same(histories(client, str(first.run_id)), wanted)
        assert len([file for file in client.list_artifacts(first.run_id, "images") if ".png" in file.path]) == 1
        assert client.get_run(first.run_id).info.status == "FINISHED"

    def test_a_child_is_shown_under_its_parent(self, root: Path, client: Any) -> None:
        with RunLog.open(root / "parent", config_of(root, "parent")) as parent:
            pass
        with RunLog.open(root / "child", config_of(root, "child"), parent_run_id=parent.run_id) as child:
            pass
        assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id

    def test_a_reply_that_was_lost_repeats_nothing(
        self, root: Path, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The server stores a batch, and the connection breaks before it says so."""
        log_batch, lost = mlflow.MlflowClient.log_batch, []

        def lose_the_reply(self: Any, run_id: str, metrics: Any = (), **others: Any) -> None:
            log_batch(self, run_id, metrics=metrics, **others)
            if len(metrics) and not lost:
                lost.append(len(metrics))
                raise mlflow.MlflowException("connection reset")

        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lose_the_reply)
        monkeypatch.setattr("jgcl_ray.mlflow_mirror.METRICS_PER_CALL", 10)
        folder = root / "lossy"
        log = RunLog.open(folder, config_of(root, "lossy"))
        make_records(log, range(25))
        log.close()
        assert lost == [10]
        assert [record.getMessage()[:14] for record in caplog.records] == ["MLflow is away", "MLflow is back"]
        assert_same(histories(client, str(log.run_id)), expected(folder))
        assert client.get_run(log.run_id).info.status == "FINISHED"


class TestServerAway:
    def test_the_run_goes_on_and_is_sent_later(
        self,
        root: Path,
        client: Any,
        refusing: str,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder = root / "away"
        with (
            caplog.at_level(logging.INFO),
            RunLog.open(folder, config_of(root, "away", f"tracking.uri={refusing}")) as log,
        ):
            make_records(log, range(25))
            log.picture("samples", Image.new("RGB", (8, 4)), 3)
            assert log.run_id is None
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert f"--sync {folder}" in warnings[0] and "127.0.0.1" in warnings[0]
        assert len(read_records(folder)) == 37

        with pytest.raises(UserError, match=r"password.*--uri"):
            run_log.main(["--sync", str(folder)])
        with pytest.raises(UserError, match=r"MLflow is away.*127\.0\.0\.1"):
            run_log.main(["--sync", str(folder), "--uri", refusing])

        here = ["--sync", str(folder), "--uri", f"sqlite:///{root}/mlflow.db"]
        run_log.main(here)
        assert "sent 74 numbers, 1 pictures, 1 files" in capsys.readouterr().out
        run_log.main(here)
        assert "sent 0 numbers, 0 pictures" in capsys.readouterr().out
        run = run_named(client, "away")
        assert run.info.status == "FINISHED" and run.data.tags["stage"] == "joint"
        assert_same(histories(client, run.info.run_id), expected(folder))

        secret = b"hunter2"
        assert all(secret not in file.read_bytes() for file in root.rglob("*") if file.is_file())
        assert secret.decode() not in caplog.text

    def test_a_server_that_never_answers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setattr(run_log, "PATIENCE_AT_OPEN", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with RunLog.open(tmp_path / "run", config_of(tmp_path, "run", f"tracking.uri={uri}")) as log:
                make_records(log, range(3))
        assert len(read_records(tmp_path / "run")) == 4
        assert [record.message for record in caplog.records if "MLflow is away" in record.message]

    def test_the_driver_is_told(self, tmp_path: Path, refusing: str, caplog: pytest.LogCaptureFixture) -> None:
        reason = prepare_tracking(config_of(tmp_path, "run", f"tracking.uri={refusing}"))
        assert reason is not None and "127.0.0.1" in reason and "hunter2" not in reason
        assert not caplog.records
        off = config_of(tmp_path, "run", f"tracking.uri={refusing}", "tracking.enabled=false")
        assert prepare_tracking(off) is None

    @pytest.mark.parametrize("damage", [None, "", "{", '{"key": 1}'])
    def test_a_folder_that_is_no_run(self, tmp_path: Path, damage: str | None) -> None:
        if damage is not None:
            (tmp_path / CARD).write_text(damage)
        with pytest.raises(UserError, match="not a run folder" if damage is None else r"tracking\.json: damaged"):
            run_log.main(["--sync", str(tmp_path)])


class TestModel:
    def test_it_loads_and_embeds_as_the_encoder_does(
        self, root: Path, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = config_of(root, "model")
        torch.manual_seed(0)
        encoder = IdentityEncoder(config.encoder).eval()
        save_weights(encoder, tmp_path / "encoder.safetensors")
        pixels = np.random.default_rng(0).integers(0, 256, (5, 90, 40, 3), dtype=np.uint8)
        paths, encoded = [tmp_path / f"{i}.png" for i in range(5)], []
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image).save(path)
            encoded.append(path.read_bytes())
        with torch.inference_mode():
            images = normalise_images([read_rgb(path, 64, 32) for path in paths])
            wanted = F.normalize(encoder(images).embedding).numpy()

        with RunLog.open(root / "model", config) as log:
            log.model(tmp_path / "encoder.safetensors", step=3)
            log.model(tmp_path / "encoder.safetensors", step=4)
            run_id = log.run_id
        [logged] = client.search_logged_models([run_named(client, "model").info.experiment_id], "name = 'model'")
        assert (logged.source_run_id, logged.status.value) == (run_id, "READY")
        assert [output.step for output in client.get_run(run_id).outputs.model_outputs][-1] == 4

        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        names = [str(path) for path in paths]
        inputs = [
            names,
            np.array(names),
            encoded,
            pd.DataFrame({"image": names}),
            pd.DataFrame({"b": encoded}),
        ]
        for source in (f"runs:/{run_id}/model", str(root / "model" / "model")):
            model = mlflow.pyfunc.load_model(source)
            for given in inputs:
                found = model.predict(given)
                assert found.dtype == np.float32 and found.shape == (5, encoder.embedding_width)
                np.testing.assert_allclose(found, wanted, atol=1e-5)
            assert model.predict([]).shape == (0, encoder.embedding_width)
            with pytest.raises(ValueError, match=r"absent\.png: cannot be read"):
                model.predict([str(tmp_path / "absent.png")])
            with pytest.raises(ValueError, match=r"image 1 \(3 bytes\)"):
                model.predict([encoded[0], b"abc"])

    def test_nothing_is_pickled(self, tmp_path: Path) -> None:
        config = config_of(tmp_path, "run", "tracking.enabled=false")
        save_weights(IdentityEncoder(config.encoder), tmp_path / "encoder.safetensors")
        with RunLog.open(tmp_path / "run", config) as log:
            log.model(tmp_path / "encoder.safetensors", step=0)
        endings = {file.suffix for file in (tmp_path / "run" / "model").rglob("*") if "code" not in file.parts}
        assert not endings & {".pkl", ".pickle", ".pt", ".pth"}


class TestSecrets:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("http://me:pw@host:5000/x", "http://***@host:5000/x"),
            ("postgresql+psycopg2://me:p@w@host/db", "postgresql+psycopg2://***@host/db"),
            ("mysql://host/db?user=me&password=pw", "mysql://host/db?user=me&password=***"),
            ("failed: https://token@host, twice", "failed: https://***@host, twice"),
            ("sqlite:////a/b.db", "sqlite:////a/b.db"),
            ("http://host:5000", "http://host:5000"),
        ],
    )
    def test_addresses(self, text: str, shown: str) -> None:
        assert masked(text) == shown

    def test_params_are_flat_and_cut(self, tmp_path: Path) -> None:
        config = config_of(tmp_path, "run", f"data.root=/{'x' * 7000}", "tracking.uri=http://me:pw@host")
        params = flat_params(config)
        assert len(params["data.root"]) == 6000
        assert params["tracking.uri"] == "http://***@host"
        assert params["optim.adam_betas"] == "[0.0, 0.999]" and params["tracking.enabled"] == "true"


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("sqlite:///mine.db", "sqlite:///{here}/mine.db"),
        ("sqlite:////abs/mine.db", "sqlite:////abs/mine.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_databases_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, becomes: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, [f"tracking.uri={given}"]).tracking.uri == becomes.format(here=tmp_path)


@pytest.mark.parametrize("uri", ["mlruns", "/data/mlruns", "file:///data/mlruns"])
def test_folders_are_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri.*sqlite"):
        load_config(None, [f"tracking.uri={uri}"])


def test_commit_is_read_from_a_checkout(tmp_path: Path) -> None:
    git, commit = tmp_path / ".git", "0123456789abcdef0123456789abcdef01234567"
    assert git_commit(tmp_path) is None
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert git_commit(tmp_path) is None  # no commit yet
    (git / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{commit[::-1]} refs/heads/old\n{commit} refs/heads/main\n"
    )
    assert git_commit(tmp_path) == commit
    (git / "refs" / "heads" / "main").write_text(commit[::-1] + "\n")
    assert git_commit(tmp_path) == commit[::-1]

    tree = git / "worktrees" / "second"
    tree.mkdir(parents=True)
    (tree / "HEAD").write_text("ref: refs/heads/main\n")
    (tree / "commondir").write_text("../..\n")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / ".git").write_text(f"gitdir: {tree}\n")
    assert git_commit(tmp_path / "second") == commit[::-1]
    (tree / "HEAD").write_text(commit + "\n")
    assert git_commit(tmp_path / "second") == commit


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server of its own, all of whose processes end with the block."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    with (folder / "server.log").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with suppress(OSError), urlopen(f"{uri}/health", timeout=1):
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_log, "INTERVAL", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder, config = tmp_path / "run", config_of(tmp_path, "run", f"tracking.uri=http://127.0.0.1:{port}")
    save_weights(IdentityEncoder(config.encoder), tmp_path / "encoder.safetensors")
    with server(tmp_path, port):
        log = RunLog.open(folder, config)
        run_id = log.run_id
        assert run_id is not None and f"runs/{run_id}" in log.page
        make_records(log, range(10))
        log.picture("samples", Image.new("RGB", (8, 4)), 3)
    make_records(log, range(10, 20))
    log.picture("samples", Image.new("RGB", (8, 4)), 13)
    while "MLflow is away" not in caplog.text:
        time.sleep(0.1)
    with server(tmp_path, port) as uri:
        make_records(log, range(20, 25))
        log.model(tmp_path / "encoder.safetensors", step=24)
        log.close()
        client = mlflow.MlflowClient(tracking_uri=uri)
        assert_same(histories(client, run_id), expected(folder))
        assert client.get_run(run_id).info.status == "FINISHED"
        assert len([file for file in client.list_artifacts(run_id, "images") if ".png" in file.path]) == 2
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict([]).shape == (0, 512)
    assert "MLflow is back" in caplog.text


OPEN_A_RUN = """
import sys
from pathlib import Path
from jgcl_ray.config import load_config
from jgcl_ray.run_log import RunLog
root, name = Path(sys.argv[1]), sys.argv[2]
with RunLog.open(root / name, load_config(None, [f"run.root={root}", f"run.name={name}"])) as log:
    log.record("joint", 0, 1, {"x": 1.0})
print(log.run_id)
"""


@pytest.mark.slow
def test_runs_that_start_together(tmp_path: Path) -> None:
    """Three processes at once, where there is no database yet."""
    command = [sys.executable, "-c", OPEN_A_RUN, str(tmp_path)]
    started = [subprocess.Popen([*command, f"run{i}"], stdout=subprocess.PIPE, text=True) for i in range(3)]
    runs = [process.communicate(timeout=300)[0].strip() for process in started]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert len(set(runs)) == 3
    assert [client.get_run(run).data.metrics for run in runs] == [{"x": 1.0}] * 3
