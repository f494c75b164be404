"""What the terminal shows of a run folder that grows."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from jgcl_ray.evaluation.evaluator import Scores
from jgcl_ray.progress import LinesNowAndThen
from jgcl_ray.training.checkpoint import Position
from jgcl_ray.training.loop import Outcome
from jgcl_ray.training.terminal import METRICS, WARNINGS, ProgressFile, _Table, last_line, shown

LABELLED = {"stage": "joint", "epoch": 0, "step": 3, "num_clusters": 21.0, "num_outliers": 4.0, "eps": 0.4321}
CLOSED = {"stage": "joint", "epoch": 0, "step": 9, "images_per_second": 12.34, "mAP": 0.5678, "seconds_train": 7.0}


def test_a_line_for_each_epoch_and_every_warning(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(json.dumps({**CLOSED, "epoch": 98}) + "\n")  # of an earlier start
    (tmp_path / WARNINGS).write_text("said before\n")
    out = io.StringIO()
    with shown(tmp_path, Console(file=out, width=200)):
        ProgressFile(tmp_path).write(stage="joint", epoch=0, batch=1, batches=2, step=4, numbers={"loss": 1.0})
        with (tmp_path / METRICS).open("a") as file:
            file.write(json.dumps(LABELLED) + "\n" + json.dumps(CLOSED) + "\n" + '{"stage": "jo')
        with (tmp_path / WARNINGS).open("a") as file:
            file.write("most images are outliers\n")
        wait_for(lambda: "outliers\n" in out.getvalue() and "12.3" in out.getvalue())
        (tmp_path / METRICS).write_text(json.dumps({**CLOSED, "images_per_second": 45.6}) + "\n")  # rewound
        wait_for(lambda: "45.6" in out.getvalue())
    lines = out.getvalue().splitlines()
    assert lines.count("most images are outliers") == 1 and "said before" not in lines
    (epoch,) = (line.split() for line in lines if "12.3" in line)
    assert epoch[:3] == ["joint", "1", "0.568"] and "21" in epoch and "0.432" in epoch
    assert not any(" 99 " in line for line in lines)


def test_a_log_has_a_line_now_and_then_within_a_long_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jgcl_ray.progress.LINE_EVERY", 0.0)
    out = io.StringIO()
    ProgressFile(tmp_path).write(stage="joint", epoch=4, batch=7, batches=2000, step=4, numbers={"loss": 1.0})
    with shown(tmp_path, Console(file=out, width=200)):
        wait_for(lambda: "joint 5: 7 of 2,000\n" in out.getvalue())


def test_a_row_of_the_table_is_such_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where epochs are longer than LINE_EVERY, each would else begin with `1 of 20` below the row before."""
    now = iter([0.0, *[29.0] * 3, *[40.0] * 1000])
    monkeypatch.setattr("jgcl_ray.progress.monotonic", lambda: next(now))
    lines = LinesNowAndThen(Console(file=(out := io.StringIO()), width=200))  # at 0 s
    lines.tell("joint 1", 19, 20)  # at 29 s
    lines.printed()
    lines.tell("joint 2", 1, 20)
    lines.tell("joint 2", 2, 20)  # at 40 s
    assert not out.getvalue()
    (tmp_path / METRICS).write_text("")
    table = _Table(tmp_path / METRICS, Console(file=io.StringIO(), width=200))
    assert not table.update()
    (tmp_path / METRICS).write_text(json.dumps(LABELLED) + "\n" + json.dumps(CLOSED) + "\n")
    assert table.update() and not table.update()


def test_scores_of_the_start_have_a_line_of_their_own(tmp_path: Path) -> None:
    """With eval.every=2 the first epoch has no score: it must not show the one of the encoder as it came."""
    out = io.StringIO()
    unscored = {name: value for name, value in CLOSED.items() if name != "mAP"}
    with shown(tmp_path, Console(file=out, width=200)):
        start = {**LABELLED, "mAP": 0.875, "rank-1": 0.9}
        (tmp_path / METRICS).write_text(json.dumps(start) + "\n" + json.dumps(unscored) + "\n")
        wait_for(lambda: "12.3" in out.getvalue())
    before, epoch = (line.split() for line in out.getvalue().splitlines()[1:3])
    assert before[:4] == ["joint", "start", "0.875", "0.900"]
    assert epoch[:4] == ["joint", "1", "-", "-"] and "21" in epoch


def test_last_line_of_a_run_with_and_without_labels(tmp_path: Path) -> None:
    scored = Outcome(False, Position(), Scores(0.51234, 0.6, 0.1, 20))
    assert last_line(tmp_path, scored) == "mAP 0.5123 rank-1 0.6000"
    closed = {**CLOSED, "label_agreement_mAP": 0.25}
    (tmp_path / METRICS).write_text(
        "".join(json.dumps(line) + "\n" for line in ({**LABELLED, "single_camera_share": 0.4}, closed))
    )
    assert last_line(tmp_path, Outcome(False, Position(), None)) == (
        "no labels, so no mAP; 21 clusters and 4 outliers in the end; 40% of the clusters seen by one camera alone; "
        "agreement with the labels 0.250 (no evidence of quality)"
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
