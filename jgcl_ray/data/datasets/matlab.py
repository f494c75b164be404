"""Variables of MATLAB files, in which older data sets keep their divisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.errors import UserError


def variable(path: Path, key: str) -> Any:
    """A variable of a file up to version 7.2, as scipy reads it; UserError where it is not there."""
    import scipy.io

    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # scipy raises whatever the damaged bytes lead it to
        raise UserError(
            f"{path}: not a MATLAB file up to version 7.2 ({error}); restore it from the archive"
        ) from None
    if key not in content:
        known = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(f"{path}: holds no {key} but {known or 'nothing'}; restore it from the archive")
    return content[key]


def matrix(path: Path, key: str) -> np.ndarray:
    """The same, whole numbers, int64."""
    try:
        return np.asarray(variable(path, key)).astype(np.int64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {key} is no matrix of numbers ({error}); restore it from the archive") from None


def strings(path: Path, key: str) -> list[str]:
    """The same, a cell array of strings."""
    cells = [np.asarray(cell).ravel() for cell in np.asarray(variable(path, key)).ravel()]
    if not all(len(cell) for cell in cells):
        raise UserError(f"{path}: {key} holds an empty cell; restore it from the archive")
    return [str(cell[0]) for cell in cells]
