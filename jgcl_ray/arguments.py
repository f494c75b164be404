"""Types of command-line arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

LARGEST_SEED = 2**32 - 1
LARGEST_SIDE = 4096  # of images, pixels


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """For argparse's `type`: a whole number between two limits, both included."""
    limits = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parsed(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return number

    return parsed


def positive(text: str) -> float:
    """For argparse's `type`: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
