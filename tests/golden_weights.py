"""Weights made from names and shapes alone, with which the authors' implementation made the numbers in tests/data."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import torch

DATA = Path(__file__).parent / "data"


def official_states() -> dict[str, dict[str, torch.Tensor]]:
    """`id`, `gen` and `dis`: each parameter of the authors' networks, seeded by its name."""
    keys = json.loads((DATA / "official_keys.json").read_text())
    return {
        kind: {name: _value(name, shape, getattr(torch, dtype)) for name, (shape, dtype) in names.items()}
        for kind, names in keys.items()
    }


def write_checkpoints(folder: Path, states: dict[str, dict[str, torch.Tensor]] | None = None) -> None:
    """id_1.pt, gen_1.pt and dis_1.pt as the authors write them; states: by default `official_states()`."""
    for kind, state in (states or official_states()).items():
        torch.save({kind: state}, folder / f"{kind}_1.pt")


def _value(name: str, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.int64:
        return torch.zeros(shape, dtype=dtype)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()) + 1))
    if name.endswith("running_var"):
        return 1 + 0.1 * drawn.abs()
    if len(shape) == 1:
        return (1.0 if name.endswith(("weight", "gamma")) else 0.0) + 0.05 * drawn
    return drawn / drawn[0].numel() ** 0.5
