"""What a sweep costs above its runs: seconds of a trial in a sweep against those of the same run by itself.

    python benchmarks/bm_tune.py [--config walkers_tiny] [--trials 3] [section.field=value ...]

The same configuration, one run at a time: `python -m jgcl_ray.train` in a process of its own, `--trials` times, then
a sweep of as many trials that differ in one weight alone, one after the other. One JSON object: seconds of a run
(median), of the whole sweep, of each of its trials (median), and what a trial costs above a run. Walkers are rendered
before. Peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.errors import exit_on_user_error


def main() -> None:
    """Run, collect, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="walkers_tiny")
    parser.add_argument("--trials", type=whole(1), default=3)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()

    with tempfile.TemporaryDirectory() as root:
        settings = ["--config", arguments.config, f"run.root={root}", *arguments.overrides]
        timed("jgcl_ray.train", "--dry-run", *settings, "run.local=true")  # renders
        plain = [timed("jgcl_ray.train", *settings, f"run.name=plain{n}") for n in range(arguments.trials)]

        space = Path(root) / "space.yaml"
        fields = {"losses.image_cycle": {"uniform": [4.9, 5.1]}}
        space.write_text(yaml.safe_dump({"trials": arguments.trials, "fields": fields}))
        # Workers and actor of more than half the cluster: one trial at a time.
        alone = ["scaling.cpus_per_worker=0.9", "pseudo_labels.num_cpus=0.5"]
        seconds = timed("jgcl_ray.tune", "--space", str(space), *settings, "run.name=sweep", *alone)
        trials = [json.loads(file.read_text()) for file in Path(root).glob("sweep-space/trials/*/trial.json")]

    assert all(trial["status"] == "finished" for trial in trials) and len(trials) == arguments.trials
    each = seconds / arguments.trials
    result = {
        "benchmark": "tune",
        "config": arguments.config,
        "trials": arguments.trials,
        "seconds_run_alone": round(median(plain), 2),
        "seconds_sweep": round(seconds, 2),
        "seconds_trial": round(median(trial["seconds"] for trial in trials), 2),
        "seconds_sweep_per_trial": round(each, 2),
        "overhead_per_trial": round(each - median(plain), 2),
        "peak_memory_MiB": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10),
    }
    print(json.dumps(result), flush=True)


def timed(module: str, *arguments: str) -> float:
    """Seconds of a command, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    with exit_on_user_error():
        main()
