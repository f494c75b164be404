"""What a sweep has come to: a table, best.yaml, which fields mattered, and all trials in one picture. No Ray."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from jgcl_ray.atomic import write_bytes
from jgcl_ray.config import Config, to_yaml
from jgcl_ray.mlflow_mirror import ARTIFACTS
from jgcl_ray.tuning.record import TrialRecord, best_of
from jgcl_ray.tuning.space import Dimension, Space, configured
from jgcl_ray.wording import counted

FEWEST = 4  # trials with a score, below which nothing is said of importance
BEST, TABLE = "best.yaml", "trials.csv"
PICTURES = ("importance.png", "parallel_coordinates.png")

_REPEATS = 30  # permutations of each field


def write_report(folder: Path, base: Config, space: Space, metric: str, trials: Sequence[TrialRecord]) -> None:
    """best.yaml, trials.csv and the pictures, in the sweep's folder and among the artifacts of its MLflow run."""
    files = {TABLE: _as_csv(space, metric, trials).encode()}
    best = best_of(trials)
    if best is not None:
        files[BEST] = to_yaml(best_config(base, folder.name, best)).encode()
    measured = [trial for trial in trials if trial.best is not None]
    for name, draw in zip(PICTURES, (importance_plot, parallel_coordinates), strict=True):
        if len(measured) >= FEWEST:
            content = io.BytesIO()
            draw(space, metric, measured).save(content, format="PNG", optimize=True)
            files[name] = content.getvalue()
    (folder / ARTIFACTS).mkdir(parents=True, exist_ok=True)
    for name, written in files.items():
        write_bytes(folder / name, written)
        write_bytes(folder / ARTIFACTS / name, written)


def best_config(base: Config, sweep: str, best: TrialRecord) -> Config:
    """The configuration of the best trial, as a run of its own."""
    config = configured(base, best.params)
    return config.model_copy(update={"run": config.run.model_copy(update={"name": f"{sweep}-best"})})


def table(space: Space, metric: str, trials: Sequence[TrialRecord]) -> Iterator[str]:
    """Lines for a terminal, the best trial first; the names of fields without their section where that is enough."""
    rows = [
        ("trial", "status", metric, "test mAP", "epochs", "seconds", *_short([d.field for d in space.dimensions]))
    ]
    for trial in sorted(trials, key=lambda trial: (trial.best is None, -(trial.best or 0.0))):
        numbers = ("-" if value is None else f"{value:.4f}" for value in (trial.best, trial.mAP))
        values = (str(trial.params.get(each.field, "-")) for each in space.dimensions)
        rows.append((trial.name, trial.status, *numbers, str(trial.epochs), f"{trial.seconds:.0f}", *values))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def importances(space: Space, trials: Sequence[TrialRecord]) -> Mapping[str, tuple[float, float]]:
    """By field: how much worse a random forest of the trials predicts when the field's values are shuffled.

    Mean and standard deviation over shufflings of the fall of R^2 (Breiman, Random Forests, 2001).
    """
    points = np.stack([_places(each, trials) for each in space.dimensions], axis=1)
    values = np.array([trial.best for trial in trials])
    forest = RandomForestRegressor(200, random_state=space.sweep.seed).fit(points, values)
    found = permutation_importance(forest, points, values, n_repeats=_REPEATS, random_state=space.sweep.seed)
    fields = [each.field for each in space.dimensions]
    means, deviations = found.importances_mean.tolist(), found.importances_std.tolist()
    return {field: (mean, deviation) for field, mean, deviation in zip(fields, means, deviations, strict=True)}


def importance_plot(space: Space, metric: str, trials: Sequence[TrialRecord]) -> Image.Image:
    """Bars, the most important field on top."""
    ordered = sorted(importances(space, trials).items(), key=lambda item: item[1][0])
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [field for field, _ in ordered],
        [mean for _, (mean, _) in ordered],
        xerr=[deviation for _, (_, deviation) in ordered],
        color="tab:blue",
    )
    axes.set_xlabel(f"fall of R² of {metric} when shuffled")
    few = "; so few say little" if len(trials) < 10 * len(ordered) else ""
    axes.set_title(f"Importance, from {counted(len(trials), 'trial')}{few}", fontsize=10)
    return _drawn(figure)


def parallel_coordinates(space: Space, metric: str, trials: Sequence[TrialRecord]) -> Image.Image:
    """A line for each trial across an axis for each field, the metric last and in colour; stopped trials dashed."""
    values = np.array([trial.best for trial in trials], float)
    low, high = float(values.min()), float(values.max())
    heights = [_places(each, trials) for each in space.dimensions]
    columns = np.stack([*heights, (values - low) / (high - low or 1.0)], axis=1)
    names = _short([each.field for each in space.dimensions])
    figure = Figure(figsize=(max(6.0, 1.6 * columns.shape[1]), 4.5), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["viridis"]
    for row in np.argsort(values):
        stopped = trials[row].status != "finished"
        axes.plot(columns[row], color=colours(columns[row, -1]), linestyle="--" if stopped else "-", linewidth=1.8)
    for place, each in enumerate(space.dimensions):
        axes.axvline(place, color="0.6", linewidth=0.8)
        for height, said in _ticks(each):
            axes.text(place, height, f" {said}", fontsize=8, va="center", color="0.3")
    axes.axvline(columns.shape[1] - 1, color="0.6", linewidth=0.8)
    for height, value in ((0.0, low), (1.0, high)):
        axes.text(columns.shape[1] - 1, height, f" {value:.3f}", fontsize=8, va="center", color="0.3")
    axes.set_xticks(range(columns.shape[1]), [*names, metric], rotation=20 if len(names) > 3 else 0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return _drawn(figure)


def _places(dimension: Dimension, trials: Sequence[TrialRecord]) -> np.ndarray:
    """(trials,) where in the range of a field each trial lies, in [0, 1]: by logarithm, by place among choices."""
    values = [trial.params[dimension.field] for trial in trials]
    if not dimension.bounded:
        last = max(len(dimension.values) - 1, 1)
        return np.array([dimension.values.index(value) / last for value in values])
    ends, numbers = np.array(dimension.values, float), np.array(values, float)
    if dimension.kind == "loguniform":
        ends, numbers = np.log(ends), np.log(numbers)
    return (numbers - ends[0]) / (ends[1] - ends[0])


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    last = max(len(dimension.values) - 1, 1)
    return [
        (place / last, f"{value:g}" if isinstance(value, float) else str(value))
        for place, value in enumerate(dimension.values)
    ]


def _short(fields: Sequence[str]) -> list[str]:
    names = [field.partition(".")[2] for field in fields]
    return [name if names.count(name) == 1 else field for name, field in zip(names, fields, strict=True)]


def _as_csv(space: Space, metric: str, trials: Sequence[TrialRecord]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = [each.field for each in space.dimensions]
    writer.writerow(
        ["trial", "status", "reason", "origin", metric, "test mAP", "test rank-1", "epochs", "seconds", *fields]
    )
    for trial in trials:
        columns = (trial.name, trial.status, trial.reason, trial.origin, trial.best, trial.mAP, trial.rank1)
        writer.writerow([*columns, trial.epochs, trial.seconds, *(trial.params.get(field) for field in fields)])
    return text.getvalue()


def _drawn(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
