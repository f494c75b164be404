"""Checkpoints: everything a run needs to go on as if it had never stopped, each in a folder of its own.

`NAME.safetensors` for each network, `state.pt` (optimisers, memory, labels, random states) and `checkpoint.json`
(position, configuration, SHA-256 of the other files), which is written last. A folder appears under its name when it
is complete; the links `latest` and `best` are replaced in one step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from jgcl_ray.atomic import sync
from jgcl_ray.errors import UserError
from jgcl_ray.models.networks import Networks
from jgcl_ray.models.weights import load_weights, save_weights
from jgcl_ray.storage import RemoteFolder

logger = logging.getLogger(__name__)

LATEST, BEST = "latest", "best"
MANIFEST, _STATE = "checkpoint.json", "state.pt"


@dataclass(frozen=True)
class Position:
    """How far a run has come: the next batch is `batch` of `epoch` of the stage."""

    stage: int = 0  # index in config.run.stages
    epoch: int = 0  # within the stage
    batch: int = 0  # within the epoch
    step: int = 0  # over all stages


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds besides the networks."""

    position: Position
    config: Mapping[str, Any]  # Config.model_dump(mode="json")
    state: Mapping[str, Any]  # tensors and plain values, as torch.load(weights_only=True) gives them back
    scores: Mapping[str, float] = field(default_factory=dict)  # of the last evaluation


class Checkpoints:
    """The checkpoints of one run, written by its first worker; mirror: where each goes a second time."""

    def __init__(self, folder: Path, keep: int = 2, mirror: RemoteFolder | None = None) -> None:
        self.folder, self.keep, self.mirror = folder, keep, mirror

    def save(self, name: str, networks: Networks, saved: Saved) -> Path:
        """Write a checkpoint under `name` and point `latest` at it; the oldest beyond `keep` go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target, partial = self.folder / name, self.folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for part, module in networks.named():
            save_weights(module, partial / f"{part}.safetensors")
        torch.save(dict(saved.state), partial / _STATE)
        manifest = {
            "position": asdict(saved.position),
            "scores": dict(saved.scores),
            "config": dict(saved.config),
            "sha256": {path.name: _digest(path) for path in sorted(partial.iterdir())},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in partial.iterdir():
            sync(path)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        sync(self.folder)
        self._point(LATEST, name)
        self._prune()
        if self.mirror is not None:
            self.mirror.send(target, keep={path.name for path in self._all()})
        return target

    def restore(self) -> None:
        """Bring back what the mirror has, for a run whose folder has no checkpoint."""
        names = [] if self.mirror is None else self.mirror.complete()
        for name in names:
            assert self.mirror is not None
            self.mirror.bring(name, self.folder)
            self._point(LATEST, name)
        if names:
            logger.warning("%s: going on from the %d checkpoints of the mirror", self.folder, len(names))

    def mark_best(self, checkpoint: Path) -> None:
        """Point `best` at a checkpoint of this run."""
        self._point(BEST, checkpoint.name)

    def newest(self) -> Path | None:
        """The newest checkpoint that can be read; unreadable ones before it are named in a warning."""
        for checkpoint in self._all()[::-1]:
            try:
                read_manifest(checkpoint, verify=True)
            except UserError as error:
                logger.warning("%s; going on from the one before it", error)
                continue
            return checkpoint
        return None

    @property
    def best(self) -> Path | None:
        """The checkpoint that `best` points at."""
        link = self.folder / BEST
        return link.resolve() if link.exists() else None

    def _all(self) -> list[Path]:
        """Oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        return sorted(path for path in found if not path.name.startswith("."))

    def _prune(self) -> None:
        best = self.best
        for checkpoint in self._all()[: -self.keep]:
            if checkpoint.resolve() != best:
                shutil.rmtree(checkpoint)

    def _point(self, link: str, name: str) -> None:
        temporary = self.folder / f".{link}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(name)
        temporary.replace(self.folder / link)


def checkpoint_name(stage: str, position: Position) -> str:
    """Folder of the checkpoint at a position. Names sort by age, also where one stage ends and the next begins."""
    return f"step{position.step:07d}-stage{position.stage + 1}-{stage}-epoch{position.epoch:03d}"


def read_manifest(checkpoint: Path, verify: bool = False) -> dict[str, Any]:
    """checkpoint.json; UserError where it or, with `verify`, a file it lists is missing, cut off or altered."""
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        digests: dict[str, str] = manifest["sha256"]
    except (OSError, json.JSONDecodeError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{checkpoint}: not a readable checkpoint ({type(error).__name__}: {error})") from None
    for name, digest in digests.items() if verify else ():
        path = checkpoint / name
        if not path.is_file() or _digest(path) != digest:
            raise UserError(f"{checkpoint}: {name} is missing or damaged")
    return manifest


def load_networks(checkpoint: Path, networks: Networks) -> None:
    """The networks' weights, strictly."""
    for part, module in networks.named():
        load_weights(module, checkpoint / f"{part}.safetensors")


def load_saved(checkpoint: Path) -> Saved:
    """Everything but the networks; UserError where it cannot be read."""
    manifest = read_manifest(checkpoint, verify=True)
    try:
        state = torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"{checkpoint / _STATE}: cannot be read ({error})") from None
    return Saved(Position(**manifest["position"]), manifest["config"], state, manifest["scores"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
