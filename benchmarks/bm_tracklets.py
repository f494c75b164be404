"""What tracklets are worth: mAP of Cluster-Contrast's step with pseudo_labels.tracklets=auto and off, from one start.

    python benchmarks/bm_tracklets.py --seeds 1,2 --out DIR

Walkers as photos alone, 60 people to train on with tracklets and 100 test people, of seed 11; the start is a short
warm-up on other walkers (8 epochs of 16 batches). Off is run with the neighbourhood that labelled seed 1's images
best of three (k1=20, k2=6, eps 0.5), auto with the preset's. A JSON line a run, then the paired difference over
people. A second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jgcl_ray.data.walkers.rendering import REPORTED_SEED, WalkersSize, render
from jgcl_ray.evaluation.bootstrap import mean_interval, paired_difference

SIZE = WalkersSize(train=60, test=100, images=8, true_views=0, height=96, projections=False, tracks=True)
OFF = ("pseudo_labels.tracklets=off", "pseudo_labels.k1=20", "pseudo_labels.k2=6", "pseudo_labels.eps=0.5")
WARMUP = ("run.stages=[warmup]", "run.init_from=null", "warmup.mode=source")
ARMS = {"auto": (), "off": OFF}


def train(out: Path, data: Path, name: str, settings: Sequence[str]) -> Path:
    """The last checkpoint of a run in a process of its own."""
    fixed = ["run.local=true", f"run.root={out}", f"run.name={name}", f"data.root={data}", "tracking.enabled=false"]
    fixed += ["scaling.threads_per_worker=1", "precision.dtype=float32", "eval.every=100"]
    command = [sys.executable, "-m", "jgcl_ray.train", "--config", "cluster_contrast", *fixed, *settings]
    with (out / f"{name}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return (out / name / "checkpoints" / "latest").resolve()


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=6, help="of 16 batches of 64 images (6)")
    parser.add_argument("--rate", type=float, default=3.5e-4, help="Adam's learning rate (3.5e-4)")
    parser.add_argument("--out", type=Path, default=Path("runs/tracklets"), help="folder of set and runs")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    data = out / "walkers"
    render(data, SIZE, REPORTED_SEED)
    start = train(out, data, "start", [*WARMUP, "warmup.epochs=8", "warmup.decay_every=6"])
    joint = [
        "run.stages=[joint]",
        f"run.init_from={start / 'encoder.safetensors'}",
        f"joint.epochs={arguments.epochs}",
    ]
    joint += ["cluster_contrast.batches_per_epoch=16", f"cluster_contrast.lr={arguments.rate}"]
    scores: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    people = np.empty(0, np.int64)
    for seed in arguments.seeds:
        for arm, settings in ARMS.items():
            name = f"{arm}-seed{seed}"
            checkpoint, file = train(out, data, name, [*joint, f"run.seed={seed}", *settings]), out / f"{name}.json"
            scored = ["--checkpoint", str(checkpoint), "--data", "walkers", "--root", str(data), "--json", str(file)]
            subprocess.run(
                [sys.executable, "-m", "jgcl_ray.evaluate", *scored], check=True, stdout=subprocess.DEVNULL
            )
            queries = json.loads(file.read_text())["by_query"]
            people = np.array(queries["identities"], np.int64)
            scores[arm].append(np.array(queries["average_precision"], np.float64))
            interval = mean_interval(scores[arm][-1], people)
            line = {"benchmark": "tracklets", "tracklets": arm, "seed": seed, "rate": arguments.rate}
            print(json.dumps(line | {"mAP": round(interval.mean, 4), "interval": interval.bounds}), flush=True)
    difference = paired_difference(np.stack(scores["auto"]), np.stack(scores["off"]), people)
    print(json.dumps({"benchmark": "tracklets", "difference": difference.mean, "interval": difference.bounds}))


if __name__ == "__main__":
    main()
