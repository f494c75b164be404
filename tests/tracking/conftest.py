"""A folder of runs with its database."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import config_of

from jgcl_ray.mlflow_mirror import quiet_mlflow
from jgcl_ray.run_log import prepare_tracking

quiet_mlflow()
import mlflow  # noqa: E402


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
