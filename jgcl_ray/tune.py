"""Sweep: `python -m jgcl_ray.tune [--config NAME.yaml] [--space NAME.yaml] [--trials N] [section.field=value]`."""

from __future__ import annotations

import argparse
import signal
import sys

from jgcl_ray.arguments import Parser
from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.tuning.space import check_space, load_space

_SWEEPS = """
examples:
  python -m jgcl_ray.tune
  python -m jgcl_ray.tune --config market1501 --space loss_weights --trials 24 data.root=DIR

A space is a YAML (configs/search/ has several):

  config: walkers                                     # what is varied, where --config is not given
  trials: 24
  metric: mAP                                         # maximised: mAP of a test split with labels, or validation_mAP
                                                      # (the default where the data set has a validation list)
  scheduler: {name: asha, grace_epochs: 28, reduction: 3}   # none, asha, pbt
  searcher: random                                    # or optuna: pip install 'jgcl_ray[tune]'
  fields:
    losses.contrast_views: {loguniform: [0.25, 4.0]}  # uniform, loguniform, int, choice; grid: all combinations
    pseudo_labels.k1: {choice: [20, 30]}

Named before anything starts: a field that does not exist, an empty range, a value that a field does not take, and a
trial that can never fit (workers x CPUs or GPUs + the clustering actor + 0.05 of its driver). As many trials run at a
time as fit on the Ray cluster. Footage without labels has no score to maximise: tune on walkers and carry over.

RUNS/NAME-SPACE/ holds a run folder for each trial, trials.csv, best.yaml (for `python -m jgcl_ray.train --config`),
importance.png and parallel_coordinates.png. In MLflow the sweep is a run and its trials are runs below it, with
their own parameters, curves and pictures: select them and *Compare*. A trial that was stopped early is KILLED, one
that failed is FAILED, with the reason as a tag.

Resuming: trials that ended are not run again, the others resume from their checkpoints; ASHA then compares only what
runs from there on. pbt changes losses.* while the trials run: the worst continue from checkpoints of the best,
optimisers and memory included; each exchange begins a new run, `trial_003.1`, tagged with its origin.

exit codes: 0 done; 1 no trial has a score; 2 bad input, named in one line; 130 stopped by Ctrl-C, 143 by
SIGTERM
"""


def main() -> None:
    """Parse, load config and space, run the sweep, tell what came of it."""
    parser = Parser(
        prog="python -m jgcl_ray.tune",
        description="Many runs with different settings, as many at a time as the Ray cluster holds.\nWith no "
        "argument at all, a quick sweep: six short runs on small walkers, two at a time on two cores, the worse half "
        "stopped early.\nThe same command goes on with a sweep that was stopped.",
        epilog=_SWEEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="what is varied: YAML file or shipped name; the space's own if not given")
    parser.add_argument("--space", default="quick", help="YAML file, or the name of one in configs/search (quick)")
    parser.add_argument("--trials", type=int, help="how many, instead of what the space says")
    parser.add_argument("--again", action="store_true", help="also run trials again that have failed")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error():
        name, wanted = load_space(arguments.space, arguments.trials)
        base = load_config(arguments.config or wanted.config, arguments.overrides)
        for field in {text.partition("=")[0].strip() for text in arguments.overrides} & wanted.fields.keys():
            raise UserError(f"{field}: the search space varies it; take it out of the command or of the space")
        space = check_space(name, wanted, base)

        # Ray is slow to import: a mistake in the space is reported before that.
        from jgcl_ray.progress import plain_console
        from jgcl_ray.tuning.report import table
        from jgcl_ray.tuning.sweep import sweep

        console = plain_console()
        found = sweep(base, space, lambda line: console.print(line), again=arguments.again)
        for line in table(space, found.metric, found.trials):
            print(line)
        if found.interrupted:
            console.print("stopped before all trials ended; the same command goes on from here")
            sys.exit(128 + (signal.SIGTERM if found.terminated else signal.SIGINT))
        if found.best is None:
            console.print("no trial has a score: see the reasons above")
            sys.exit(1)
        print(f"best: {found.best.name}; python -m jgcl_ray.train --config {found.folder / 'best.yaml'}")


if __name__ == "__main__":
    main()
