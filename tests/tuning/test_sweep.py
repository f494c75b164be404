"""Sweeps on Ray: trials that fail, are stopped or replaced; a killed driver, Ctrl-C, and what is left of them."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from processes import PATIENCE, said, started, wait_for
from tiny_run import arguments

from jgcl_ray.config import load_config
from jgcl_ray.training.prepare import plan_run

pytestmark = pytest.mark.slow

LOCAL = ("run.local=true", "scaling.cpus_per_worker=0.5")
SHORT = (
    "generation.epochs=0",
    "tracking.enabled=true",
    "tracking.pictures_every=100",
    "scaling.threads_per_worker=1",
)
WEIGHTS = {"losses.contrast_views": {"uniform": [0.2, 2.0]}}


def test_a_sweep_is_killed_goes_on_and_is_recorded(walkers: Path, tmp_path: Path) -> None:
    """On Ray Train. One of four trials diverges; the driver is killed when two trials have ended."""
    fields = {**WEIGHTS, "warmup.lr": {"grid": [1e-3, 1e30]}}
    on_ray = ("scaling.cpus_per_worker=0.5", "pseudo_labels.num_cpus=0.25", "scaling.max_failures=0")
    with driver(walkers, tmp_path, {"fields": fields, "trials": 4, "metric": "mAP"}, *on_ray) as process:
        wait_for(lambda: len(ended(tmp_path)) >= 2, process, tmp_path)
        process.kill()
        process.wait(PATIENCE)
    before = {trial["name"]: trial for trial in ended(tmp_path)}
    with driver(walkers, tmp_path, {"fields": fields, "trials": 4, "metric": "mAP"}, *on_ray) as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    trials = {trial["name"]: trial for trial in trials_of(tmp_path)}
    assert {name: trials[name] for name in before} == before  # not run again
    assert [trials[f"trial_00{n}"]["status"] for n in range(4)] == ["finished", "failed", "finished", "failed"]
    assert "is not finite" in trials["trial_001"]["reason"]
    assert_closed(
        tmp_path, {"trial_000": "FINISHED", "trial_001": "FAILED", "trial_002": "FINISHED", "trial_003": "FAILED"}
    )
    best = load_config(sweep_of(tmp_path) / "best.yaml")
    assert best.warmup.lr == 1e-3
    plan_run(best)


def test_ctrl_c_leaves_a_record_and_the_same_command_goes_on(walkers: Path, tmp_path: Path) -> None:
    space = {"fields": WEIGHTS, "trials": 2, "metric": "mAP"}
    with driver(walkers, tmp_path, space, *LOCAL, "warmup.epochs=4") as process:
        wait_for(lambda: any(trial["epochs"] for trial in trials_of(tmp_path)), process, tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130, said(tmp_path)
    assert "the same command goes on from here" in said(tmp_path)
    assert {trial["status"] for trial in trials_of(tmp_path)} <= {"interrupted", "finished"}
    assert "RUNNING" not in {run.info.status for run in runs_of(tmp_path)}
    with driver(walkers, tmp_path, space, *LOCAL, "warmup.epochs=4") as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert [trial["status"] for trial in trials_of(tmp_path)] == ["finished"] * 2
    assert_closed(tmp_path, {"trial_000": "FINISHED", "trial_001": "FINISHED"})


def test_asha_stops_trials_and_closes_them(walkers: Path, tmp_path: Path) -> None:
    """A trial that hardly learns comes last, so that there is one to be worse than."""
    fields = {"warmup.lr": {"grid": [3e-3, 2e-3, 1e-3, 1e-9]}}
    asha = {"name": "asha", "grace_epochs": 2, "reduction": 2}
    space = {"fields": fields, "metric": "mAP", "scheduler": asha}
    with driver(walkers, tmp_path, space, *LOCAL, "warmup.epochs=6", "scaling.cpus_per_worker=2") as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    trials = trials_of(tmp_path)
    stopped = [trial["name"] for trial in trials if trial["status"] == "stopped"]
    assert stopped and all("among the worse after" in trial["reason"] for trial in trials if trial["name"] in stopped)
    assert {trial["status"] for trial in trials} == {"finished", "stopped"}
    assert_closed(tmp_path, {t["name"]: "KILLED" if t["name"] in stopped else "FINISHED" for t in trials})


def test_pbt_carries_checkpoints_to_other_weights(walkers: Path, tmp_path: Path) -> None:
    space = {"fields": WEIGHTS, "trials": 2, "metric": "mAP", "scheduler": {"name": "pbt", "every_epochs": 2}}
    epochs = ("warmup.epochs=1", "joint.epochs=5")
    with driver(walkers, tmp_path, space, *LOCAL, *epochs) as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    trials = {trial["name"]: trial for trial in trials_of(tmp_path)}
    taken = [trial for trial in trials.values() if trial["origin"]]
    assert taken, said(tmp_path)
    for trial in taken:
        first = json.loads((sweep_of(tmp_path) / "trials" / trial["name"] / "metrics.jsonl").open().readline())
        assert first["step"] >= 2  # it did not start from the beginning
        assert 0.2 <= trial["params"]["losses.contrast_views"] <= 2.0
        assert trials[trial["name"].partition(".")[0]]["status"] == "replaced"
    assert {trial["status"] for trial in trials.values()} == {"finished", "replaced"}
    assert_closed(
        tmp_path, {t["name"]: "KILLED" if t["status"] == "replaced" else "FINISHED" for t in trials.values()}
    )


def test_optuna_chooses_values(walkers: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = {"fields": WEIGHTS, "trials": 3, "metric": "mAP", "searcher": "optuna"}
    with driver(walkers, tmp_path, space, *LOCAL) as process:
        wait_for(lambda: len(ended(tmp_path)) >= 1, process, tmp_path)
        process.kill()
        process.wait(PATIENCE)
    before = {trial["name"]: trial["params"] for trial in trials_of(tmp_path)}
    with driver(walkers, tmp_path, space, *LOCAL) as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    trials = {trial["name"]: trial for trial in trials_of(tmp_path)}
    assert [trial["status"] for trial in trials.values()] == ["finished"] * 3
    assert {name: trials[name]["params"] for name in before} == before
    assert len({trial["params"]["losses.contrast_views"] for trial in trials.values()}) == 3


def driver(
    walkers: Path, root: Path, space: dict[str, Any], *overrides: str
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """`python -m jgcl_ray.tune` on a Ray cluster of its own."""
    (root / "mine.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    settings = [*arguments(walkers, root, *SHORT), *overrides]
    return started(root, "jgcl_ray.tune", "--space", str(root / "mine.yaml"), *settings)


def sweep_of(root: Path) -> Path:
    return root / "walkers-mine"


def trials_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((sweep_of(root) / "trials").glob("*/trial.json"))]


def ended(root: Path) -> list[dict[str, Any]]:
    return [trial for trial in trials_of(root) if trial["status"] in ("finished", "failed")]


def runs_of(root: Path) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def assert_closed(root: Path, expected: dict[str, str]) -> None:
    """A run for the sweep, FINISHED, and one below it for each trial."""
    runs = {run.info.run_name: run for run in runs_of(root)}
    parent = runs.pop("walkers-mine")
    assert parent.info.status == "FINISHED" and parent.data.tags["best_trial"] in expected
    assert {name: run.info.status for name, run in runs.items()} == expected
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
