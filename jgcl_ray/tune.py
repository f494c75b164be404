"""Sweep: `python -m jgcl_ray.tune [--config NAME.yaml] [--space NAME.yaml] [--trials N] [section.field=value]`."""

from __future__ import annotations

import argparse
import sys

from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.tuning.space import check_space, load_space


def main() -> None:
    """Parse, load config and space, run the sweep, tell what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m jgcl_ray.tune",
        description="Many runs with different settings, as many at a time as the Ray cluster holds. With no argument "
        "at all, a quick sweep on small walkers. The same command goes on with a sweep that was stopped.",
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

        # Ray is slow to import: a mistake in the space is told before that.
        from jgcl_ray.progress import plain_console
        from jgcl_ray.tuning.report import table
        from jgcl_ray.tuning.sweep import sweep

        console = plain_console()
        found = sweep(base, space, lambda line: console.print(line), again=arguments.again)
    for line in table(space, found.metric, found.trials):
        print(line)
    if found.interrupted:
        console.print("stopped before all trials ended; the same command goes on from here")
        sys.exit(130)
    if found.best is None:
        console.print("no trial has a score: see the reasons above")
        sys.exit(1)
    print(f"best: {found.best.name}; python -m jgcl_ray.train --config {found.folder / 'best.yaml'}")


if __name__ == "__main__":
    main()
