"""What a sweep leaves: the best configuration, the field that mattered, pictures that hold together."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jgcl_ray.config import load_config
from jgcl_ray.tuning.record import TrialRecord
from jgcl_ray.tuning.report import importances, parallel_coordinates, table, write_report
from jgcl_ray.tuning.space import Space, SweepConfig, check_space

FIELDS = {
    "losses.contrast_views": {"uniform": [0.0, 2.0]},
    "optim.encoder_lr": {"loguniform": [1e-4, 1e-2]},
    "encoder.backbone": {"choice": ["resnet18", "resnet34"]},
    "pseudo_labels.k1": {"int": [10, 20]},
}


@pytest.fixture(scope="module")
def space() -> Space:
    return check_space("mine", SweepConfig(trials=24, fields=FIELDS), load_config("walkers"))


@pytest.fixture(scope="module")
def trials(space: Space) -> list[TrialRecord]:
    """The score is the learning rate's distance from 1e-3 in decades; two trials have not finished."""
    done = [
        TrialRecord(f"trial_{n:03d}", n, params, status="finished", mAP=0.1, rank1=0.2, epochs=9, seconds=12.3)
        for n, params in enumerate(space.draw())
    ]
    scored = [TrialRecord(**{**vars(trial), "best": value_of(trial)}) for trial in done]
    worse = {"status": "stopped", "reason": "among the worse after 2 epochs"}
    lost = {"status": "failed", "reason": "loss term contrast_views is not finite", "best": None}
    return [TrialRecord(**{**vars(scored[0]), **worse}), TrialRecord(**{**vars(scored[1]), **lost}), *scored[2:]]


def value_of(trial: TrialRecord) -> float:
    return 1.0 - abs(float(np.log10(trial.params["optim.encoder_lr"])) + 3)


def test_the_field_that_decides_is_the_most_important(space: Space, trials: list[TrialRecord]) -> None:
    found = importances(space, [trial for trial in trials if trial.best is not None])
    assert found.keys() == FIELDS.keys()
    rate = found.pop("optim.encoder_lr")[0]
    assert rate > 0.5 and all(mean < rate / 5 for mean, _ in found.values())


def test_best_yaml_is_a_configuration_for_train(space: Space, trials: list[TrialRecord], tmp_path: Path) -> None:
    base = load_config("walkers", ["run.seed=7", "scaling.num_workers=2"])
    write_report(tmp_path / "s", base, space, "validation_mAP", trials)
    best = max((trial for trial in trials if trial.status == "finished"), key=value_of)
    config = load_config(tmp_path / "s" / "best.yaml")
    assert config.optim.encoder_lr == best.params["optim.encoder_lr"]
    assert config.encoder.backbone == best.params["encoder.backbone"]
    assert (config.run.seed, config.scaling.num_workers, config.run.root) == (7, 2, base.run.root)
    assert config.run.name == "s-best" and config.tracking.parent is None


def test_report_is_there_twice_and_the_csv_whole(space: Space, trials: list[TrialRecord], tmp_path: Path) -> None:
    write_report(tmp_path, load_config("walkers"), space, "validation_mAP", trials)
    names = {"best.yaml", "trials.csv", "importance.png", "parallel_coordinates.png"}
    assert names == {path.name for path in tmp_path.glob("*.*")}
    assert names == {path.name for path in (tmp_path / "artifacts").iterdir()}
    rows = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [row["trial"] for row in rows] == [trial.name for trial in trials]
    assert rows[1]["reason"] == "loss term contrast_views is not finite" and rows[1]["validation_mAP"] == ""
    assert float(rows[5]["optim.encoder_lr"]) == trials[5].params["optim.encoder_lr"]
    for name in ("importance.png", "parallel_coordinates.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 400 and np.asarray(picture).std() > 10


def test_too_few_trials_are_no_ground_for_importance(space: Space, trials: list[TrialRecord], tmp_path: Path) -> None:
    write_report(tmp_path, load_config("walkers"), space, "validation_mAP", trials[:3])
    assert {path.name for path in tmp_path.glob("*.*")} == {"best.yaml", "trials.csv"}
    write_report(tmp_path / "none", load_config("walkers"), space, "validation_mAP", trials[1:2])
    assert {path.name for path in (tmp_path / "none").glob("*.*")} == {"trials.csv"}


def test_lines_cross_the_axes_where_the_values_are(space: Space, trials: list[TrialRecord]) -> None:
    """The best trial's line is drawn last, in the brightest colour of the map, and ends at the top."""
    picture = np.asarray(parallel_coordinates(space, "validation_mAP", trials[2:]))
    yellow = (picture[..., 0] > 230) & (picture[..., 1] > 210) & (picture[..., 2] < 80)
    rows, columns = np.nonzero(yellow)
    assert yellow.sum() > 200
    assert rows[columns == columns.max()].mean() < 0.25 * picture.shape[0]


def test_table_has_the_best_first(space: Space, trials: list[TrialRecord]) -> None:
    header, *lines = table(space, "validation_mAP", trials)
    assert header.split()[:3] == ["trial", "status", "validation_mAP"] and "encoder_lr" in header
    assert len({len(line) for line in (header, *lines)}) == 1
    values = [line.split()[2] for line in lines]
    assert values[-1] == "-" and values[:-1] == sorted(values[:-1], key=float, reverse=True)
