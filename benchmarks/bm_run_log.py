"""What the run log costs: a record on the training thread, and the background thread's work for MLflow.

    python benchmarks/bm_run_log.py --numbers 25 --records 1000

One JSON object a line. `record`: median seconds of a call, and seconds of bringing MLflow (SQLite) up to date, for
each record; `plots`: seconds of the two plots of an epoch.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import load_config
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.mlflow_mirror import Mirror, tracking_uri
from jgcl_ray.run_log import RunLog, prepare_tracking, read_records
from jgcl_ray.training.pictures import label_quality_plot, loss_curves

TERMS = ("image_reconstruction", "adversarial_novel", "discriminator_cycle", "contrast_image", "generator_total")


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--numbers", type=whole(1), default=25, help="in a record")
    parser.add_argument("--records", type=whole(1), default=1000)
    parser.add_argument("--repeats", type=whole(1), default=3)
    options = parser.parse_args()
    names = [f"{TERMS[i % len(TERMS)]}_{i}" for i in range(options.numbers)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = load_config(None, [f"run.root={root}"])
        reason = prepare_tracking(config)
        assert reason is None, reason
        calls, updates, plots = [], [], []
        for repeat in range(options.repeats):
            run = root / f"run{repeat}"
            with RunLog.open(run, load_config(None, [f"run.root={root}", "tracking.enabled=false"])) as log:
                for step in range(options.records):
                    numbers = {name: 1 / (step + i + 1) for i, name in enumerate(names)}
                    start = time.perf_counter()
                    log.record("joint", step // 50, step, numbers)
                    calls.append(time.perf_counter() - start)
            start = time.process_time()
            sent = Mirror(run, tracking_uri(config)).update()
            updates.append((time.process_time() - start) / options.records)
            assert sent.numbers == options.records * options.numbers
            records = read_records(run)
            start = time.process_time()
            loss_curves(records)
            label_quality_plot(records)
            plots.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = {"numbers": options.numbers, "records": options.records, "peak_mib": round(peak)}
    lines = [
        {"case": "record", **size, "seconds": statistics.median(calls)},
        {"case": "mirror, CPU a record", **size, "seconds": statistics.median(updates)},
        {"case": "plots, CPU", **size, "seconds": statistics.median(plots)},
    ]
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
