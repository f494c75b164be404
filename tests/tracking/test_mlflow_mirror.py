"""MLflow ends up with what the run folder has, whatever happens on the way."""

from __future__ import annotations

import logging
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

import pytest
from PIL import Image
from tracked_runs import STAGES, assert_same, config_of, expected, histories, make_records, run_named

from jgcl_ray import run_log
from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError
from jgcl_ray.mlflow_mirror import CARD, flat_params, masked, quiet_mlflow
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import save_weights
from jgcl_ray.run_log import RunLog, prepare_tracking, read_records, rewind

quiet_mlflow()
import mlflow  # noqa: E402


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

    def test_a_data_set_whose_name_is_no_text(self, root: Path, client: Any) -> None:
        with RunLog.open(
            root / "bytes", config_of(root, "bytes", "data.root=/data/by\udcffte"), {"from": "\udcfe"}
        ) as log:
            make_records(log, range(2))
            run_id = log.run_id
        assert run_id is not None
        run = client.get_run(run_id)
        assert (run.info.status, run.data.params["data.root"]) == ("FINISHED", "/data/by\\xffte")
        assert run.data.tags["from"] == "\\xfe"

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
