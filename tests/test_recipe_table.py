"""The table of benchmarks/bm_recipe.py: seeds are averaged for each query, differences are paired over people."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "bm_recipe.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bm_recipe", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bm_recipe"] = module
    spec.loader.exec_module(module)
    return module


def make_run(bench: ModuleType, recipe: str, seed: int, gain: float, curve: list[float]) -> object:
    people = np.repeat(np.arange(30), 4)
    hard = np.random.default_rng(5).uniform(0.2, 0.8, people.size)
    points = [bench.Point(1280 * (n + 1), 10.0 * (n + 1), mAP) for n, mAP in enumerate(curve)]
    return bench.Run(recipe, seed, 1e-4, points, hard + gain, people)


def test_a_constant_gain_is_found_whatever_the_queries(bench: ModuleType) -> None:
    runs = [make_run(bench, "a", seed, 0.0, [0.4, 0.5]) for seed in (1, 2)]
    runs += [make_run(bench, "b", seed, gain, [0.5, 0.6]) for seed, gain in ((1, 0.02), (2, 0.04))]
    *_, first, second = bench.table(runs).splitlines()
    assert "+0.030 [+0.030, +0.030]" in second and "+0.0" not in first
    assert "1,280 / 10 s, 1,280 / 10 s" in second, "each of b's seeds reached a's best after one epoch"
    assert "2,560 / 20 s, 2,560 / 20 s" in first


def test_what_never_gets_there_is_called_never(bench: ModuleType) -> None:
    runs = [make_run(bench, "a", 1, 0.0, [0.4, 0.5]), make_run(bench, "b", 1, -0.1, [0.3, 0.4])]
    assert bench.table(runs).splitlines()[-1].endswith("| never |")


def test_a_line_tells_what_its_run_cost(bench: ModuleType) -> None:
    line = make_run(bench, "a", 3, 0.0, [0.4, 0.5]).line
    assert (line["recipe"], line["seed"], line["images"], line["seconds"]) == ("a", 3, 2560, 20.0)
    low, high = line["interval"]
    assert low < line["mAP"] < high
