"""Recipes against each other: the same start, backbone, image size, seeds and labelling; mAP on people never seen.

    python benchmarks/bm_recipe.py --set medium --recipes cluster_contrast,gcl --seeds 1,2,3 --out DIR
    python benchmarks/bm_recipe.py --set DIR --data NAME ...     a data set on disk, its training part without labels
    python benchmarks/bm_recipe.py --quick                       in ten minutes, to see that it works

1. The start: an encoder after the labelled warm-up on other walkers, made once, or that of --start; for `gcl`
   besides, a generator trained from it on the photos of the set, once (its seconds are part of each of the recipe's
   runs).
2. The rates: each recipe once at each of three learning rates on the walkers of seed 1; the best by mAP is taken. The
   numbers that count are of other people: `--set-seed` (11).
3. Each recipe with each seed, in a process of its own, for as many images through the encoder's backward pass
   (`--images`), or for as many minutes of training (`--minutes`). The checkpoint that counts is the last.

A JSON line a run: recipe, seed, mAP and its 95 % interval over people, images, seconds (training and labelling, not
evaluation), the mAP of the evaluated epochs; then a table with paired differences over people, all seeds of a recipe
averaged for each query, and what each needed to reach the best mAP of the first recipe. A second call with the same
arguments goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from jgcl_ray.arguments import Parser, positive, whole
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.evaluation.bootstrap import Interval, mean_interval, paired_difference
from jgcl_ray.evaluation.ranking import RankingProtocol
from jgcl_ray.models.shipped import SHIPPED
from jgcl_ray.training.worker import STOP

TUNED_ON, REPORTED_ON = 1, 11  # seeds of the walkers


IMAGES_PER_EPOCH = 1280  # through the encoder's backward pass, from one labelling to the next


@dataclass(frozen=True)
class Recipe:
    """How the joint stage is run: a shipped configuration and what differs from it."""

    config: str
    images_per_step: int  # through the encoder's backward pass
    steps: str  # the field of the steps of an epoch
    rate: str  # the field of the encoder's learning rate
    rates: tuple[float, ...]  # tried on TUNED_ON
    settings: tuple[str, ...] = ()
    draws: bool = False  # needs a generator


RECIPES = {
    # P x K = 64 images a step.
    "cluster_contrast": Recipe(
        "cluster_contrast", 64, "cluster_contrast.batches_per_epoch", "cluster_contrast.lr", (1e-4, 3.5e-4, 1e-3)
    ),
    # Its step with labels from mirror-averaged features less camera means, and proxies of cluster and camera.
    "camera_proxies": Recipe(
        "walkers", 64, "cluster_contrast.batches_per_epoch", "cluster_contrast.lr", (1e-4, 3.5e-4, 1e-3)
    ),
    # With views of every second photo, from another side and by another camera, beside it.
    "surface_views": Recipe(
        "walkers",
        96,
        "cluster_contrast.batches_per_epoch",
        "cluster_contrast.lr",
        (1e-4, 3.5e-4, 1e-3),
        ("cluster_contrast.views_every=2",),
    ),
    # Photos, novel views and cycle images of 16 photos a step.
    "gcl": Recipe(
        "gcl",
        48,
        "joint.batches_per_epoch",
        "optim.encoder_lr",
        (1e-4, 4e-4, 1.6e-3),
        ("joint.decay_at=1000",),
        True,
    ),
}


@dataclass(frozen=True)
class Run:
    """One finished run; letters: E epochs, Q queries."""

    recipe: str
    seed: int
    rate: float
    curve: list[Point]
    scores: np.ndarray  # (Q,) average precision of each query
    people: np.ndarray  # (Q,) who is on it

    @property
    def line(self) -> dict[str, Any]:
        """For the results file."""
        interval, last = mean_interval(self.scores, self.people), self.curve[-1]
        return {
            "benchmark": "recipe",
            "recipe": self.recipe,
            "seed": self.seed,
            "rate": self.rate,
            "mAP": round(interval.mean, 4),
            "interval": [round(bound, 4) for bound in interval.bounds or ()],
            "images": last.images,
            "seconds": round(last.seconds, 1),
            "curve": [[point.images, round(point.seconds, 1), round(point.mAP, 4)] for point in self.curve],
        }


@dataclass(frozen=True)
class Point:
    """After an epoch."""

    images: int  # through the encoder's backward pass since the start
    seconds: float  # of training, features and labelling since the start, the recipe's generator included
    mAP: float


class Bench:
    """The runs on one set, in one folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out = arguments, Path(arguments.out).absolute()
        self.out.mkdir(parents=True, exist_ok=True)

    def data(self, people: int) -> dict[str, str]:
        """Configuration fields that name the set; `people`: the seed of walkers."""
        given = Path(self.arguments.set)
        if given.is_dir():
            return {"data.name": self.arguments.data, "data.root": str(given.absolute())}
        return {"data.name": "walkers", "walkers.preset": self.arguments.set, "walkers.seed": str(people)}

    def start(self) -> str | Path:
        """The encoder that all recipes start from: the one given, else one after the warm-up on labelled walkers."""
        if self.arguments.start is not None:
            given = str(self.arguments.start)
            return given if given in SHIPPED else Path(given).absolute()
        settings = ["run.stages=[warmup]", "eval.every=100", "run.init_from=null", "warmup.mode=source"]
        settings += ["warmup.epochs=4"] if self.arguments.quick else []
        self.train("start", "cluster_contrast", TUNED_ON, settings)
        return self.latest("start") / "encoder.safetensors"

    def generator(self, people: int) -> tuple[Path, float]:
        """The start with a generator trained on the photos of the set, and the seconds of that."""
        name = f"generator-{people}"
        stage = ["run.stages=[generation]", f"generation.epochs={self.arguments.generator_epochs}"]
        self.train(name, "gcl", people, [*stage, f"run.init_from={self.start()}"])
        return self.latest(name), sum(line.get("seconds_train", 0.0) for line in self.records(name))

    def best_rate(self, name: str) -> float:
        """The rate of the highest mAP on the people of TUNED_ON; the one that is given, where only one is."""
        rates = self.arguments.rates or RECIPES[name].rates
        if len(rates) == 1:
            return float(rates[0])
        tried = {rate: self.run(name, 1, rate, TUNED_ON) for rate in rates}
        for run in tried.values():
            show({**run.line, "benchmark": "recipe_rate"}, self.out)
        return max(tried, key=lambda rate: float(np.nanmean(tried[rate].scores)))

    def run(self, name: str, seed: int, rate: float, people: int) -> Run:
        """One run of a recipe, or what is left of it."""
        recipe, limit = RECIPES[name], self.arguments.minutes
        start, before = self.generator(people) if recipe.draws else (self.start(), 0.0)
        folder = f"{name}-{people}-seed{seed}-{rate:g}"
        settings = [
            *recipe.settings,
            "run.stages=[joint]",
            f"run.init_from={start}",
            f"run.seed={seed}",
            f"eval.every={self.arguments.evaluate_every}",
        ]
        settings += [f"{recipe.rate}={rate}", f"{recipe.steps}={round(IMAGES_PER_EPOCH / recipe.images_per_step)}"]
        epochs = 1000 if limit else round(self.arguments.images / IMAGES_PER_EPOCH)
        self.train(folder, recipe.config, people, [*settings, f"joint.epochs={epochs}"], limit and 60 * limit)
        scores, people_of = self.scores(folder, people)
        return Run(name, seed, rate, self.curve(folder, recipe, before), scores, people_of)

    def curve(self, name: str, recipe: Recipe, before: float) -> list[Point]:
        """What a run's epochs cost, and what the evaluated ones brought; first the start as it came."""
        lines = self.records(name)
        points = [Point(0, 0.0, line["mAP"]) for line in lines if line["step"] == 0 and "mAP" in line]
        seconds = before
        for line in lines:
            seconds += sum(line.get(f"seconds_{part}", 0.0) for part in ("train", "features", "labels"))
            if "seconds_train" in line and "mAP" in line:
                points.append(Point(line["step"] * recipe.images_per_step, seconds, line["mAP"]))
        return points

    def train(
        self, name: str, config: str, people: int, settings: Sequence[str], seconds: float | None = None
    ) -> None:
        """`python -m jgcl_ray.train` in a process of its own, unless it has ended before."""
        folder = self.out / name
        if (folder / "done").is_file():
            return
        fixed = ["run.local=true", f"run.root={self.out}", f"run.name={name}", "tracking.enabled=false"]
        fixed += [f"scaling.threads_per_worker={self.arguments.threads}", f"precision.dtype={self.arguments.dtype}"]
        fixed += [f"{field}={value}" for field, value in self.data(people).items()]
        fixed += ["checkpoints.keep=1000"] if self.arguments.keep else []
        command = [sys.executable, "-m", "jgcl_ray.train", "--config", config, *fixed, *settings]
        with (self.out / f"{name}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            until = None if seconds is None else time.monotonic() + seconds
            while process.poll() is None:
                time.sleep(1)
                if until is not None and time.monotonic() > until:
                    (folder / STOP).touch()
        if process.returncode and not (folder / STOP).exists():
            raise SystemExit(f"{name} ended with exit code {process.returncode}: see {self.out / name}.log")
        (folder / "done").touch()

    def scores(self, name: str, people: int) -> tuple[np.ndarray, np.ndarray]:
        """Average precision (Q,) of each query by the last checkpoint, and who is on it (Q,)."""
        file, data = self.out / name / "scores.json", self.data(people)
        if not file.is_file():
            command = ["--checkpoint", str(self.latest(name)), "--data", data["data.name"], "--json", str(file)]
            command += ["--root", data["data.root"]] if "data.root" in data else []
            command += ["--protocol", self.arguments.protocol] if self.arguments.protocol else []
            command += [f"{field}={value}" for field, value in data.items() if field.startswith("walkers.")]
            subprocess.run(
                [sys.executable, "-m", "jgcl_ray.evaluate", *command], check=True, stdout=subprocess.DEVNULL
            )
        queries = json.loads(file.read_text())["by_query"]
        return np.array(queries["average_precision"], np.float64), np.array(queries["identities"], np.int64)

    def latest(self, name: str) -> Path:
        """The last checkpoint of a run."""
        return (self.out / name / "checkpoints" / "latest").resolve()

    def records(self, name: str) -> list[dict[str, Any]]:
        """metrics.jsonl."""
        return [json.loads(line) for line in (self.out / name / "metrics.jsonl").read_text().splitlines()]


def show(line: dict[str, Any], out: Path) -> None:
    """To standard output, and once into results.jsonl."""
    text, file = json.dumps(line), out / "results.jsonl"
    print(text, flush=True)
    if not file.is_file() or text not in file.read_text().splitlines():
        with file.open("a") as lines:
            lines.write(text + "\n")


def table(runs: Sequence[Run]) -> str:
    """Markdown: each recipe over its seeds, its paired difference to the first, when it reached the first's best."""
    by_recipe = {
        name: [run for run in runs if run.recipe == name] for name in dict.fromkeys(run.recipe for run in runs)
    }
    first = next(iter(by_recipe.values()))
    goal = float(np.mean([max(point.mAP for point in run.curve) for run in first]))
    rows = [
        f"| recipe | rate | mAP, {len(first)} seeds | each seed | difference to the first | images | seconds "
        f"| reached {goal:.3f} after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, group in by_recipe.items():
        scores, people = np.stack([run.scores for run in group]), group[0].people
        mean = mean_interval(scores, people)
        other = (
            paired_difference(scores, np.stack([run.scores for run in first]), people) if group is not first else None
        )
        each = ", ".join(f"{np.nanmean(run.scores):.3f}" for run in group)
        last = [run.curve[-1] for run in group]
        reached = [next((point for point in run.curve if point.mAP >= goal), None) for run in group]
        when = [f"{point.images:,} / {point.seconds:.0f} s" if point else "never" for point in reached]
        rows.append(
            f"| `{name}` | {group[0].rate:g} | {words(mean)} | {each} | {words(other, '+') if other else ''} "
            f"| {int(np.mean([point.images for point in last])):,} "
            f"| {np.mean([point.seconds for point in last]):.0f} | {', '.join(when)} |"
        )
    return "\n".join(rows)


def words(interval: Interval, sign: str = "") -> str:
    """As in the tables; sign "+": of differences."""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def main() -> None:
    """Parse, run, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="medium", help="preset of the walkers, or the folder of a data set (medium)")
    parser.add_argument("--data", default="market1501", help="what lies in that folder, as data.name (market1501)")
    parser.add_argument(
        "--protocol", choices=get_args(RankingProtocol), help="of the scores; by default the set's own"
    )
    parser.add_argument("--start", help="an encoder's file, or `rendered` (a warm-up on labelled walkers)")
    parser.add_argument("--set-seed", type=whole(0), default=REPORTED_ON, help="seed of the walkers that counts (11)")
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=list(RECIPES), help="A,B (all)")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 3])
    parser.add_argument(
        "--rates", type=lambda text: [float(part) for part in text.split(",")], help="instead of each recipe's"
    )
    parser.add_argument(
        "--images", type=whole(1), default=12_800, help="through the encoder's backward pass, each run"
    )
    parser.add_argument("--minutes", type=positive, help="of training, each run, instead of --images")
    parser.add_argument("--evaluate-every", type=whole(0), default=2, help="epochs of 1,280 images (2)")
    parser.add_argument("--generator-epochs", type=whole(0), default=6, help="of the stage before `gcl` (6)")
    parser.add_argument("--threads", type=whole(0), default=1)
    parser.add_argument("--dtype", default="float32", help="precision.dtype (float32)")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoint of every epoch")
    parser.add_argument("--quick", action="store_true", help="demo, one seed, few images: does it work?")
    parser.add_argument("--out", default="runs/recipes", help="folder of the runs (runs/recipes)")
    arguments = parser.parse_args()
    if unknown := set(arguments.recipes) - set(RECIPES):
        parser.error(f"no recipe {', '.join(sorted(unknown))}; known: {', '.join(RECIPES)}")
    if arguments.quick:
        arguments.set, arguments.seeds, arguments.images, arguments.generator_epochs = "demo", [1], 1280, 1
        arguments.rates = arguments.rates or [3.5e-4]

    bench, runs = Bench(arguments), []
    for name in arguments.recipes:
        rate = bench.best_rate(name)
        for seed in arguments.seeds:
            runs.append(bench.run(name, seed, rate, arguments.set_seed))
            show(runs[-1].line, bench.out)
    print(table(runs))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
