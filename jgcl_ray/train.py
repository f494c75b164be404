"""Train: `python -m jgcl_ray.train [--config NAME.yaml] [section.field=value ...]`."""

from __future__ import annotations

import argparse
import signal
import sys

from jgcl_ray.arguments import Parser
from jgcl_ray.config import load_config
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.places import check_folder

_RUNS = """
examples:
  python -m jgcl_ray.train
  python -m jgcl_ray.train --config folder data.root=crops
  python -m jgcl_ray.train --config market1501 data.root=Market-1501 scaling.num_workers=4 --dry-run

The folder of a run, run.root/run.name, holds config.yaml (merged), metrics.jsonl (a JSON object a line),
checkpoints/ with `latest` and `best`, and pictures; MLflow shows the same. The last line on standard output is
`mAP M rank-1 R` of the best checkpoint, where the data set has a test split with labels. What chooses the best:
eval.select_on.

Ctrl-C or SIGTERM: a checkpoint is written, and the same command resumes the run with the numbers of one that was
never stopped. Shipped configurations and all settings: configs/ (configs/base.yaml; python -m jgcl_ray.config).

exit codes: 0 done; 2 bad input, named in one line; 128 + number of the signal: stopped by it
"""


def main() -> None:
    """Parse, load the config, train."""
    parser = Parser(
        prog="python -m jgcl_ray.train",
        description="Train an encoder without labels, by clusters of the images and, with joint.recipe=gcl, by "
        "generated views.\nWith no argument at all, on the walkers, which are rendered first.\nThe same command "
        "goes on with a run that was stopped.",
        epilog=_RUNS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="walkers", help="YAML file, or the name of a shipped one (walkers)")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the plan and the memory it needs, train nothing",
    )
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        config = load_config(arguments.config, arguments.overrides)
        folder = config.run.root / config.run.name
        check_folder(folder, "run.root, run.name:")

        # Ray is slow to import: a mistake in the configuration is reported before that.
        from jgcl_ray.progress import plain_console
        from jgcl_ray.ray_cluster import starts_own_cluster
        from jgcl_ray.training.prepare import check_places
        from jgcl_ray.training.run import Interrupted, dry_run, train
        from jgcl_ray.training.terminal import last_line, shown

        check_places(config, workers_here=config.run.local or starts_own_cluster())
        console = plain_console()
        if arguments.dry_run:
            dry_run(config, print)
            return
        try:
            with shown(folder, console):
                outcome = train(config, lambda line: console.print(line))
        except Interrupted as error:
            console.print(str(error))
            sys.exit(128 + error.number)
        if outcome.interrupted:
            console.print("stopped from outside; the same command goes on from here")
            sys.exit(128 + signal.SIGTERM)
        print(last_line(folder, outcome))


if __name__ == "__main__":
    main()
