"""Data copied to a disk of the machine, checkpoints kept a second time, and a run folder without secrets."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from tiny_run import configured, records

from jgcl_ray.config import Config
from jgcl_ray.data.samplers import Shard
from jgcl_ray.errors import UserError
from jgcl_ray.training.prepare import InProcess, open_folder, plan_run
from jgcl_ray.training.worker import clear, work

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = "run.stages=[warmup,generation]"  # rounding grows too much in the joint stage of so small a run


def start(config: Config) -> None:
    plan = plan_run(config)
    open_folder(plan)
    clear(plan.folder)
    work(plan, InProcess(config.pseudo_labels), Shard(), torch.device("cpu"))


def assert_alike(ours: list[dict], theirs: list[dict]) -> None:
    for mine, line in zip(ours, theirs, strict=True):
        assert mine == {
            name: value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True)
            for name, value in line.items()
        }


@pytest.fixture(scope="module")
def undisturbed(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    root = tmp_path_factory.mktemp("runs")
    start(configured(walkers, root, SHORT))
    return records(root / "walkers")


def test_staged_data_trains_alike(walkers: Path, undisturbed: list[dict], tmp_path: Path) -> None:
    start(configured(walkers, tmp_path, SHORT, f"data.stage_to={tmp_path}/disk"))
    assert_alike(records(tmp_path / "walkers"), undisturbed)
    manifest = json.loads((tmp_path / "walkers" / "checkpoints" / "latest" / "checkpoint.json").read_text())
    assert manifest["config"]["data"]["root"] == str(walkers), "where the data is, not where its copy is"
    assert (next((tmp_path / "disk").glob("walkers-*")) / "staged.json").is_file()


def test_a_machine_that_has_nothing_goes_on_from_the_mirror(
    walkers: Path, undisturbed: list[dict], tmp_path: Path
) -> None:
    mirror = f"checkpoints.mirror=file://{tmp_path}/mirror"
    start(configured(walkers, tmp_path / "old", SHORT, mirror))
    there = tmp_path / "mirror" / "walkers"
    kept = {path.name for path in (tmp_path / "old" / "walkers" / "checkpoints").iterdir() if not path.is_symlink()}
    assert {path.name for path in there.iterdir()} == kept
    newest = max(kept)
    shutil.rmtree(there / newest)  # as if the machine had gone before its last epoch
    start(configured(walkers, tmp_path / "new", SHORT, mirror))
    again = records(tmp_path / "new" / "walkers")
    assert 0 < len(again) < len(undisturbed)
    assert_alike(again, undisturbed[-len(again) :])
    with pytest.raises(UserError, match=r"mirror/walkers holds checkpoints and run\.resume=never"):
        open_folder(plan_run(configured(walkers, tmp_path / "third", SHORT, mirror, "run.resume=never")))
    with pytest.raises(
        UserError, match=r"mirror/walkers holds a run with another configuration \(run\.seed: 1 there"
    ):
        open_folder(plan_run(configured(walkers, tmp_path / "third", SHORT, mirror, "run.seed=7")))


def test_a_run_folder_tells_no_password_and_is_not_for_others_to_write(walkers: Path, tmp_path: Path) -> None:
    address = "tracking.uri=http://me:hunter2@localhost:1/mlflow"
    before = os.umask(0)
    try:
        start(configured(walkers, tmp_path, "run.stages=[warmup]", address))
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "walkers").rglob("*") if not path.is_symlink()]
    assert len(files) > 10
    assert [path for path in files if path.stat().st_mode & stat.S_IWOTH] == []
    assert [path for path in files if path.is_file() and b"hunter2" in path.read_bytes()] == []
    start(configured(walkers, tmp_path, "run.stages=[warmup]", address))  # is still the same run
