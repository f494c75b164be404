"""The encoders that the package ships, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jgcl_ray.models.encoder_files import read_header

# Names that stand for files of the package, wherever a file of weights is asked for.
SHIPPED: Mapping[str, Path] = {"rendered": Path(__file__).parents[1] / "weights" / "rendered.safetensors"}


def shipped(path: str | Path) -> Path:
    """The package's own file, if `path` is its name; else the path, ~ resolved."""
    return SHIPPED.get(str(path), Path(path).expanduser())


def shipped_metadata(name: str) -> dict[str, str]:
    """How a shipped encoder was made: command, recipe with its seed, minutes, machine."""
    return read_header(SHIPPED[name])
