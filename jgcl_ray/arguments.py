"""The parser of all commands, and types of their arguments."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jgcl_ray.errors import in_one_line

LARGEST_SEED = 2**32 - 1
LARGEST_COUNT = 10**9
MOST_WORKERS = 1_000  # processes and threads of one command
LARGEST_SIDE = 4096  # of images, pixels


EXIT_CODES = "exit codes: 0 done; 2 bad input, named in one line; 130 stopped by Ctrl-C, 143 by SIGTERM"


class Parser(argparse.ArgumentParser):
    """Tells an error in one line, as commands tell every other one, and exit codes at the end of its help."""

    def format_help(self) -> str:
        """The help; exit codes are left to an epilog that speaks of them."""
        text = super().format_help()
        return text if "exit codes" in text else f"{text}\n{EXIT_CODES}\n"

    def _get_value(self, action: argparse.Action, arg_string: str) -> object:
        """As argparse's, but no path is empty: Path makes the current folder of a shell's empty variable."""
        if action.type is Path and not arg_string:
            raise argparse.ArgumentError(action, "an empty path; . is the folder that the command is given in")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        """The message on standard error; exit code 2."""
        print(f"error: {in_one_line(message)}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def whole(least: int, most: int = LARGEST_COUNT) -> Callable[[str], int]:
    """For argparse's `type`: a whole number between two limits, both included."""
    limits = f"from {least} to {most:,}"

    def parsed(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return number

    return parsed


def finite(text: str) -> float:
    """For argparse's `type`: a number, neither NaN nor infinite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(text: str) -> float:
    """For argparse's `type`: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
