"""What tracklets are worth: mAP of the preset `folder` with pseudo_labels.tracklets=auto and off.

    python benchmarks/bm_tracklets.py --seeds 1,2,3 --out DIR
    python benchmarks/bm_tracklets.py --seeds 1,2,3 --out DIR --start CHECKPOINT

Walkers as photos alone, 60 people to train on with tracklets and 100 test people. Each arm is run at each of --rates
on the people of seed 1 first, and with its best rate on those of seed 11, which are the ones that count. A JSON line
a run, the start among them, then the paired difference over people. A second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.data.walkers.rendering import REPORTED_SEED, WalkersSize, render
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.evaluation.bootstrap import mean_interval, paired_difference

TUNED_ON = 1  # seed of the walkers
SIZE = WalkersSize(train=60, test=100, images=8, true_views=0, height=96, projections=False, tracks=True)
ARMS = ("auto", "off")


class Bench:
    """The runs in one folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out = arguments, arguments.out.absolute()
        self.out.mkdir(parents=True, exist_ok=True)

    def walkers(self, people: int) -> Path:
        """The set of this seed, rendered on first use."""
        folder = self.out / f"walkers-{people}"
        render(folder, SIZE, people)
        return folder

    def scores(self, people: int, arm: str, seed: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Average precision (Q,) of each query after a run, and who is on it (Q,)."""
        name = f"{arm}-{people}-seed{seed}-{rate:g}"
        settings = [f"pseudo_labels.tracklets={arm}", f"run.seed={seed}", f"cluster_contrast.lr={rate}"]
        settings += [f"joint.epochs={self.arguments.epochs}", f"cluster_contrast.decay_every={self.arguments.decay}"]
        settings += [
            f"run.init_from={self.arguments.start}",
            "run.local=true",
            f"run.root={self.out}",
            f"run.name={name}",
            "tracking.enabled=false",
        ]
        settings += ["scaling.threads_per_worker=1", "eval.every=100", "cluster_contrast.batches_per_epoch=16"]
        settings += ["data.name=walkers", f"data.root={self.walkers(people)}", "meshes.source=auto"]
        settings += self.arguments.set
        if not (self.out / f"{name}.json").is_file():
            self._python(["jgcl_ray.train", "--config", "folder", *settings], name)
        return self.evaluated(people, name, self.out / name / "checkpoints" / "latest")

    def evaluated(self, people: int, name: str, checkpoint: Path | str) -> tuple[np.ndarray, np.ndarray]:
        """As `scores`, of a checkpoint or `rendered`."""
        file, root = self.out / f"{name}.json", self.walkers(people)
        if not file.is_file():
            given = ["--checkpoint", str(checkpoint), "--data", "walkers", "--root", str(root), "--json", str(file)]
            given.append("--no-multi-scale")  # as runs are read
            self._python(["jgcl_ray.evaluate", *given], name)
        queries = json.loads(file.read_text())["by_query"]
        return np.array(queries["average_precision"], np.float64), np.array(queries["identities"], np.int64)

    def best_rate(self, arm: str) -> float:
        """Of the rates, by mAP on the people of TUNED_ON."""
        found = {}
        for rate in self.arguments.rates:
            scores, people = self.scores(TUNED_ON, arm, 1, rate)
            found[rate] = float(np.nanmean(scores))
            _show({"people": TUNED_ON, "tracklets": arm, "seed": 1, "rate": rate}, scores, people)
        return max(found, key=lambda rate: found[rate])

    def _python(self, module: Sequence[str], name: str) -> None:
        with (self.out / f"{name}.log").open("a") as log:
            subprocess.run([sys.executable, "-m", *module], check=True, stdout=log, stderr=log)


def _show(line: dict[str, object], scores: np.ndarray, people: np.ndarray) -> None:
    interval = mean_interval(scores, people)
    bounds = [round(bound, 4) for bound in interval.bounds or ()]
    print(
        json.dumps({"benchmark": "tracklets", **line, "mAP": round(interval.mean, 4), "interval": bounds}), flush=True
    )


def main() -> None:
    """Parse, run, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--epochs", type=whole(0), default=6, help="of 16 batches of 64 images (6)")
    parser.add_argument("--decay", type=whole(1), default=4, help="the epoch after which the rate is a tenth (4)")
    parser.add_argument(
        "--rates", type=lambda text: [float(part) for part in text.split(",")], default=[1e-4, 3.5e-4]
    )
    parser.add_argument("--start", default="rendered", metavar="CHECKPOINT", help="both arms' encoder (rendered)")
    parser.add_argument("--out", type=Path, default=Path("runs/tracklets"), help="folder of sets and runs")
    parser.add_argument("set", nargs="*", help="section.field=value for both arms")
    bench = Bench(arguments := parser.parse_args())
    for people in (TUNED_ON, REPORTED_SEED):
        _show(
            {"people": people, "start": arguments.start}, *bench.evaluated(people, f"start-{people}", arguments.start)
        )
    scores: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    whose = np.empty(0, np.int64)
    for arm in ARMS:
        rate = bench.best_rate(arm)
        for seed in arguments.seeds:
            found, whose = bench.scores(REPORTED_SEED, arm, seed, rate)
            scores[arm].append(found)
            _show({"people": REPORTED_SEED, "tracklets": arm, "seed": seed, "rate": rate}, found, whose)
    difference = paired_difference(np.stack(scores["auto"]), np.stack(scores["off"]), whose)
    print(json.dumps({"benchmark": "tracklets", "difference": difference.mean, "interval": difference.bounds}))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
