"""Runs with records, and what MLflow has of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.config import Config, load_config
from jgcl_ray.mlflow_mirror import METRICS
from jgcl_ray.run_log import RunLog

STAGES = ("warmup", "generator", "joint")
SMALL = ["encoder.backbone=resnet18", "encoder.weights=random", "data.height=64", "data.width=32"]


def config_of(root: Path, name: str, *overrides: str) -> Config:
    return load_config(None, [f"run.root={root}", f"run.name={name}", *SMALL, *overrides])


def without_mlflow(folder: Path) -> RunLog:
    return RunLog.open(folder, config_of(folder.parent, folder.name, "tracking.enabled=false"))


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
