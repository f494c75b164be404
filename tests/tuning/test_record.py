"""The record: who runs what again, and MLflow runs that are all closed, under one parent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from jgcl_ray.config import Config, load_config
from jgcl_ray.errors import UserError
from jgcl_ray.mlflow_mirror import RunCard
from jgcl_ray.run_log import RunLog
from jgcl_ray.tuning.record import SweepRecord, TrialRecord, claim, open_folder, read_trials, remaining
from jgcl_ray.tuning.space import Space, SweepConfig, check_space

SWEEP = SweepConfig(trials=5, fields={"losses.image_cycle": {"uniform": [1.0, 2.0]}})
METRIC = "validation_mAP"


@pytest.fixture
def base(tmp_path: Path) -> Config:
    return load_config("walkers", [f"run.root={tmp_path / 'runs'}"])


@pytest.fixture
def space(base: Config) -> Space:
    return check_space("mine", SWEEP, base)


def test_a_trial_keeps_its_folder_until_it_takes_over_another(tmp_path: Path) -> None:
    first = claim(tmp_path, 0, {"a": 1.0})
    other = claim(tmp_path, 1, {"a": 2.0})
    assert (first.name, other.name) == ("trial_000", "trial_001")
    assert claim(tmp_path, 0, {"a": 1.0}) == first
    second = claim(tmp_path, 0, {"a": 2.4}, origin=other.name)
    assert (second.name, second.origin, second.params) == ("trial_000.1", "trial_001", {"a": 2.4})
    assert claim(tmp_path, 0, {"a": 2.4}) == claim(tmp_path, 0, {"a": 2.4}, other.name) == second
    assert [record.name for record in read_trials(tmp_path)] == ["trial_000", "trial_000.1", "trial_001"]
    replaced = read_trials(tmp_path)[0]
    assert (replaced.status, replaced.reason) == ("replaced", "goes on as trial_000.1, from trial_001")


def test_ended_trials_are_not_run_again() -> None:
    drawn = {number: {"a": float(number)} for number in range(7)}
    records = [
        TrialRecord("trial_000", 0, drawn[0], status="finished"),
        TrialRecord("trial_001", 1, drawn[1], status="running"),  # its driver was killed
        TrialRecord("trial_002", 2, drawn[2], status="stopped"),
        TrialRecord("trial_003", 3, drawn[3], status="replaced"),
        TrialRecord("trial_003.1", 3, {"a": 0.5}, origin="trial_000", status="interrupted"),
        TrialRecord("trial_004", 4, drawn[4], status="failed"),
    ]
    new = {5: drawn[5], 6: drawn[6]}
    assert remaining(records, drawn, again=False) == {1: drawn[1], 3: {"a": 0.5}, **new}
    assert remaining(records, drawn, again=True) == {1: drawn[1], 3: {"a": 0.5}, 4: drawn[4], **new}
    assert remaining(records, {}, again=False) == {1: drawn[1], 3: {"a": 0.5}}  # optuna draws what is new
    assert list(remaining([], drawn, again=False)) == list(range(7))


def test_a_folder_of_another_sweep_is_refused(base: Config, space: Space, tmp_path: Path) -> None:
    open_folder(tmp_path / "s", base, space)
    elsewhere = base.model_copy(update={"scaling": base.scaling.model_copy(update={"num_workers": 4})})
    open_folder(tmp_path / "s", elsewhere, space)
    other = check_space("mine", SWEEP.model_copy(update={"seed": 2}), base)
    with pytest.raises(
        UserError, match=r"holds another sweep \(it differs in seed\): give this one another run.name"
    ):
        open_folder(tmp_path / "s", base, other)


def trial_run(record: SweepRecord, base: Config, name: str, parent: str | None) -> RunLog:
    tracking = {"uri": f"sqlite:///{base.run.root / 'mlflow.db'}", "parent": parent}
    run = base.run.model_copy(update={"root": record.trials, "name": name})
    config = base.model_copy(update={"run": run, "tracking": base.tracking.model_copy(update=tracking)})
    log = RunLog.open(record.trials / name, config)
    log.record("joint", 0, 1, {METRIC: 0.5})
    return log


def test_every_run_in_mlflow_is_closed_under_its_parent(base: Config, space: Space) -> None:
    folder = base.run.root / "walkers-mine"
    open_folder(folder, base, space)
    record = SweepRecord(folder, base, space, METRIC)
    parent = record.open()
    statuses = ["finished", "stopped", "failed", "running", "failed"]
    for number, status in enumerate(statuses):
        trial = claim(record.trials, number, {"losses.image_cycle": 1.0 + number / 10})
        if number < 4:  # the last was lost before it began
            log = trial_run(record, base, trial.name, parent)
            log.close()
            if status != "finished":  # as a killed worker leaves it
                card = replace(RunCard.read(record.trials / trial.name), status="RUNNING")
                card.write(record.trials / trial.name)
                mlflow.MlflowClient(f"sqlite:///{base.run.root / 'mlflow.db'}").update_run(log.run_id, "RUNNING")
        if status == "finished":
            replace(trial, status="finished", best=0.6, mAP=0.4).write(record.trials)
            assert record.ended(number, trial.params, "stopped", "unheard").status == "finished"
        elif status != "running":
            assert record.ended(number, trial.params, status, f"because {number}").reason == f"because {number}"
    record.settle_trials()
    assert record.interrupted
    record.close()

    client = mlflow.MlflowClient(f"sqlite:///{base.run.root / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == base.tracking.experiment)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"walkers-mine", "trial_000", "trial_001", "trial_002", "trial_003"}
    assert {name: run.info.status for name, run in runs.items()} == {
        "walkers-mine": "KILLED",  # one trial has no end
        "trial_000": "FINISHED",
        "trial_001": "KILLED",
        "trial_002": "FAILED",
        "trial_003": "KILLED",
    }
    head = runs.pop("walkers-mine")
    assert head.info.run_id == parent
    assert all(run.data.tags["mlflow.parentRunId"] == parent for run in runs.values())
    assert [reason_in(runs[f"trial_00{n}"]) for n in range(4)] == [
        None,
        "because 1",
        "because 2",
        "the sweep was stopped",
    ]
    assert head.data.tags["best_trial"] == "trial_000" and head.data.tags["best.losses.image_cycle"] == "1.0"
    assert head.data.params["losses.image_cycle"] == "uniform[1.0, 2.0]" and head.data.params["seed"] == "1"
    assert head.data.metrics[f"best_{METRIC}"] == 0.6
    assert json.loads((folder / "trials" / "trial_003" / "trial.json").read_text())["status"] == "interrupted"


def reason_in(run: Run) -> str | None:
    return run.data.tags.get("reason")


def test_without_mlflow_the_files_say_it_all(base: Config, space: Space) -> None:
    off = base.model_copy(update={"tracking": base.tracking.model_copy(update={"enabled": False})})
    record = SweepRecord(base.run.root / "s", off, space, METRIC)
    open_folder(base.run.root / "s", off, space)
    assert record.open() is None and record.page == "off"
    record.ended(0, {"losses.image_cycle": 1.0}, "failed", "its driver was lost")
    record.settle_trials()
    record.close()
    assert not (base.run.root / "mlflow.db").exists()
    assert RunCard.read(base.run.root / "s").status == "KILLED"
    assert read_trials(record.trials)[0].reason == "its driver was lost"
