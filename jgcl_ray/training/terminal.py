"""What a run shows on the terminal, read from its folder: alike for one process, Ray workers, or a run elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jgcl_ray.errors import UserError
from jgcl_ray.progress import LinesNowAndThen, description_column
from jgcl_ray.run_log import read_records
from jgcl_ray.run_records import parse_record
from jgcl_ray.stored_files import parse_json
from jgcl_ray.training.loop import Outcome
from jgcl_ray.wording import counted

PROGRESS = "progress.json"
METRICS = "metrics.jsonl"
WARNINGS = "warnings.log"

_INTERVAL = 0.5  # seconds between looks at the folder
_COLUMNS = (  # title and width; the last four are seconds
    ("stage", 10),
    ("epoch", 5),
    ("mAP", 5),
    ("rank-1", 6),
    ("val", 5),
    ("clusters", 8),
    ("outliers", 8),
    ("eps", 5),
    ("img/s", 6),
    ("train", 6),
    ("feat", 5),
    ("label", 5),
    ("eval", 5),
)


_SCORES = frozenset(("mAP", "rank-1", "validation_mAP"))


@dataclass(frozen=True)
class _Progress:
    """What a ProgressFile holds."""

    stage: str
    batch: int
    batches: int
    numbers: dict[str, float]
    epoch: int | None = None


class ProgressFile:
    """Written by the first worker, at most twice a second."""

    def __init__(self, folder: Path) -> None:
        self._path, self._written = folder / PROGRESS, 0.0

    def write(self, **values: Any) -> None:
        """Replace the file in one step; `batch` equal to `batches` is always written."""
        now = time.monotonic()
        if now - self._written < _INTERVAL and values.get("batch") != values.get("batches"):
            return
        self._written = now
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(self._path)


@contextmanager
def shown(folder: Path, console: Console) -> Iterator[None]:
    """While it lasts, a bar for the epoch under way and a line for each that is done."""
    done = threading.Event()
    table, warnings = _Table(folder / METRICS, console), _Tail(folder / WARNINGS)
    watcher = threading.Thread(target=_watch, args=(folder, table, warnings, console, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def last_line(folder: Path, outcome: Outcome) -> str:
    """How a run ended: its scores, or without labels what is known of its last labelling."""
    if outcome.scores is not None:
        return f"mAP {outcome.scores.mAP:.4f} rank-1 {outcome.scores.rank1:.4f}"
    known: dict[str, Any] = {}
    for record in read_records(folder):
        known |= record
    words = ["no labels, so no mAP"]
    if "num_clusters" in known:
        clusters, outliers = round(known["num_clusters"]), round(known["num_outliers"])
        words.append(f"{counted(clusters, 'cluster')} and {counted(outliers, 'outlier')} in the end")
    if "single_camera_share" in known:
        words.append(f"{known['single_camera_share']:.0%} of the clusters seen by one camera alone")
    if "validation_mAP" in known:
        words.append(f"validation mAP {known['validation_mAP']:.3f}")
    if "validation_tracklets_mAP" in known:
        words.append(f"tracklets found again {known['validation_tracklets_mAP']:.3f}")
    if "label_agreement_mAP" in known:
        words.append(f"agreement with the labels {known['label_agreement_mAP']:.3f} (no evidence of quality)")
    return "; ".join(words)


def _watch(folder: Path, table: _Table, warnings: _Tail, console: Console, done: threading.Event) -> None:
    columns = (
        description_column(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console, transient=True) as bar:
        task, lines = bar.add_task("starting", total=None, numbers=""), LinesNowAndThen(console)
        last = False
        while not last:
            last = done.wait(_INTERVAL)
            for line in warnings.lines():
                console.print(
                    line.decode(errors="replace"),
                    style="yellow",
                    markup=False,
                    emoji=False,
                    highlight=False,
                    soft_wrap=True,
                )
            if table.update():
                lines.printed()
            now = _read(folder / PROGRESS)
            if now is not None:
                what = now.stage if now.epoch is None else f"{now.stage} {now.epoch + 1}"
                if now.batch < now.batches:
                    lines.tell(what, now.batch, now.batches)
                bar.update(
                    task,
                    description=what,
                    completed=now.batch,
                    total=now.batches,
                    numbers="  ".join(f"{name} {value:.3g}" for name, value in now.numbers.items()),
                )


class _Tail:
    """What is added to a file of lines from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.is_file() else 0

    def lines(self) -> list[bytes]:
        """Whole lines since the last call; from the beginning, where the file has become shorter."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if file.seek(0, 2) < self._offset:
                self._offset = 0
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]
        self._offset += sum(len(line) + 1 for line in lines)
        return lines


class _Table:
    """Lines for the epochs in metrics.jsonl, those from before the start left out."""

    def __init__(self, path: Path, console: Console) -> None:
        self._records, self._console = _Tail(path), console
        self._labelling: Mapping[str, Any] = {}
        self._rows = 0

    def update(self) -> bool:
        """Print the epochs that were closed since the last time; whether there were any."""
        before = self._rows
        for line in self._records.lines():
            record = parse_record(line)
            if record is None:  # damaged: the run itself names it when it goes on
                continue
            if "images_per_second" in record:
                self._print({**self._labelling, **record}, record["epoch"] + 1)
            elif not _SCORES.isdisjoint(record):  # before its first step: they are not the first epoch's
                self._print(
                    {name: record[name] for name in _SCORES & record.keys()} | {"stage": record["stage"]}, "start"
                )
            if "num_clusters" in record:
                self._labelling = {name: value for name, value in record.items() if name not in _SCORES}
        return self._rows > before

    def _print(self, record: Mapping[str, Any], epoch: int | str) -> None:
        if not self._rows:
            self._console.print(
                " ".join(f"{title:>{width}}" for title, width in _COLUMNS), style="bold", soft_wrap=True
            )
        self._rows += 1
        labels = record["stage"] != "generation"
        values = (
            record["stage"],
            epoch,
            *(_number(record.get(name), 3) for name in ("mAP", "rank-1", "validation_mAP")),
            *(_number(record.get(name) if labels else None, 0) for name in ("num_clusters", "num_outliers")),
            _number(record.get("eps") if labels else None, 3),
            _number(record.get("images_per_second"), 1),
            *(_number(record.get(f"seconds_{part}"), 1) for part in ("train", "features", "labels", "evaluation")),
        )
        cells = (f"{value!s:>{width}}" for value, (_, width) in zip(values, _COLUMNS, strict=True))
        self._console.print(" ".join(cells), highlight=False, soft_wrap=True)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _read(path: Path) -> _Progress | None:
    """None where there is no such file, or a damaged one: the next is written in a second."""
    try:
        return parse_json(path.read_bytes(), _Progress, str(path), "")
    except (FileNotFoundError, UserError):
        return None
