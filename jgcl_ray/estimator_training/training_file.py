"""The file from which an interrupted training goes on: `.training` beside the weights that it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.models.weights import read_saved
from jgcl_ray.stored_files import in_short

_REMEDY = "delete it, the training begins anew"


def write_training(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training; the file is whole as soon as it bears its name."""
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save(dict(state), file)


@contextmanager
def training_of(path: Path, device: torch.device, now: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was written, to go on from; now: the state of the training that does, its recipe under `recipe`.

    UserError for a file of another recipe, or a damaged one, also where that shows while the state is taken over.
    """
    state = read_saved(path, device, _REMEDY)
    if absent := now.keys() - state.keys():
        raise UserError(f"{path}: damaged (no {', '.join(sorted(absent))}); {_REMEDY}")
    if state["recipe"] != now["recipe"]:
        raise UserError(f"{path} is of another training, {state['recipe']}: give --out another file, or delete it")
    try:
        yield state
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged ({in_short(error)}); {_REMEDY}") from None
