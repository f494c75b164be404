"""What an epoch costs in time, network and memory: on Ray against the same epochs in one plain process.

    python benchmarks/bm_epoch.py [--config gcl] [--rounds 3] [section.field=value ...]

Runs alternate, each in a new process: `run.local=true`, one Ray worker, and two with half of every batch each. One
JSON object for each kind of run: seconds of an epoch of each stage, checkpoint and pictures included (median over its
epochs but the first, and over rounds), their ratio to the plain process, the share of a joint epoch spent on
extracting and gathering features and on labels, megabytes that crossed the loopback interface meanwhile (all of the
machine's: gradients, features, labels, and Ray's own talk, which is that of the run with one worker) and the largest
resident memory of a worker. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import psutil

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.errors import exit_on_user_error

KINDS = {
    "local": ["run.local=true", "scaling.threads_per_worker=1"],
    "ray, 1 worker": ["scaling.num_workers=1", "scaling.threads_per_worker=1"],
    "ray, 2 workers": ["scaling.num_workers=2", "scaling.threads_per_worker=1", "pseudo_labels.num_cpus=0"],
}
SHORT = [
    *("warmup.epochs=4", "warmup.batches_per_epoch=8", "generation.epochs=3", "joint.epochs=4"),
    *("eval.every=100", "tracking.enabled=false", "run.init_from=null", "warmup.mode=source"),
]


def main() -> None:
    """Run, collect, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="gcl")
    parser.add_argument("--rounds", type=whole(1), default=3)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()

    epochs: dict[str, dict[str, list[dict[str, float]]]] = {kind: defaultdict(list) for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind, overrides in KINDS.items():
            with tempfile.TemporaryDirectory() as root:
                command = [sys.executable, "-m", "jgcl_ray.train", "--config", arguments.config, *SHORT, *overrides]
                command += [f"run.root={root}", "run.name=epochs", *arguments.overrides]
                for record in watched(command, Path(root) / "epochs" / "metrics.jsonl"):
                    if record["epoch"] > 0:
                        epochs[kind][record["stage"]].append(record)

    plain = {stage: seconds_of(records) for stage, records in epochs["local"].items()}
    for kind, stages in epochs.items():
        result: dict[str, object] = {"benchmark": "epoch", "run": kind, "config": arguments.config}
        for stage, records in stages.items():
            result[f"{stage}_seconds"] = round(seconds_of(records), 3)
            result[f"{stage}_ratio_to_local"] = round(seconds_of(records) / plain[stage], 3)
            result[f"{stage}_network_MB"] = round(median(record["bytes"] for record in records) / 1e6, 1)
            result[f"{stage}_worker_MiB"] = round(max(record["memory"] for record in records) / 2**20)
        joint = stages["joint"]
        beside = [(r.get("seconds_features", 0) + r.get("seconds_labels", 0)) / r["seconds_epoch"] for r in joint]
        result["joint_share_of_features_and_labels"] = round(median(beside), 4)
        print(json.dumps(result), flush=True)


def watched(command: list[str], metrics: Path) -> list[dict[str, float]]:
    """Run it; the record of each epoch, with the bytes sent over the loopback interface and a worker's memory."""
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    found: list[dict[str, float]] = []
    sent, memory, lines, running = loopback(), 0, 0, True
    while running:
        running = process.poll() is None
        memory = max([memory, *resident(process)])
        written = metrics.read_text().splitlines() if metrics.is_file() else []
        for record in map(json.loads, written[lines:]):
            if "seconds_train" in record:  # an epoch has ended
                now = loopback()
                found.append({**record, "bytes": now - sent, "memory": memory})
                sent, memory = now, 0
        lines = len(written)
        time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return found


def loopback() -> int:
    """Bytes sent so far."""
    return psutil.net_io_counters(pernic=True)["lo"].bytes_sent


def resident(process: psutil.Process) -> list[int]:
    """Bytes of the workers, or of the process that trains by itself."""
    found = []
    try:
        everyone = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:  # it has just ended
        return []
    for each in everyone:
        try:
            title = " ".join(each.cmdline())
            if "RayTrainWorker" in title or "run.local=true" in title:
                found.append(each.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return found


def seconds_of(records: list[dict[str, float]]) -> float:
    """Median seconds of an epoch, evaluation aside."""
    return median(record["seconds_epoch"] - record.get("seconds_evaluation", 0.0) for record in records)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
