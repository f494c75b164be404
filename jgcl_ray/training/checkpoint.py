"""Checkpoints: everything a run needs to go on as if it had never stopped, each in a folder of its own.

`NAME.safetensors` for each network, `state.pt` (optimisers, memory, labels, random states), `images.json.gz` (which
images they belong to) and `checkpoint.json` (position, configuration, SHA-256 of the other files), which is written
last. A folder appears under its name when it is complete; the links `latest` and `best` are replaced in one step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from jgcl_ray.atomic import room_for, sync
from jgcl_ray.config import Config, validate
from jgcl_ray.data.image_listing import LISTING, ImageListing, unpack
from jgcl_ray.errors import UserError
from jgcl_ray.models.networks import Networks
from jgcl_ray.models.weights import load_weights, read_saved, save_weights
from jgcl_ray.storage import RemoteFolder, by_age, is_checkpoint_name
from jgcl_ray.stored_files import parse_json
from jgcl_ray.wording import counted

logger = logging.getLogger(__name__)

LATEST, BEST = "latest", "best"
MANIFEST, _STATE = "checkpoint.json", "state.pt"
REMEDY = "restore it, or take another checkpoint"

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Position:
    """How far a run has come: the next batch is `batch` of `epoch` of the stage."""

    stage: Count = 0  # index in config.run.stages
    epoch: Count = 0  # within the stage
    batch: Count = 0  # within the epoch
    step: Count = 0  # over all stages

    @property
    def begins_stage(self) -> bool:
        """Whether no batch of the stage has been learnt from."""
        return self.epoch == 0 and self.batch == 0

    def next_batch(self) -> Position:
        """After another batch."""
        return replace(self, batch=self.batch + 1, step=self.step + 1)

    def next_epoch(self) -> Position:
        """Before the first batch of the stage's next epoch."""
        return replace(self, epoch=self.epoch + 1, batch=0)

    def next_stage(self) -> Position:
        """Before the first epoch of the next stage."""
        return replace(self, stage=self.stage + 1, epoch=0, batch=0)


@dataclass(frozen=True)
class Manifest:
    """checkpoint.json."""

    position: Position
    config: dict[str, Any]  # Config.model_dump(mode="json")
    sha256: dict[str, str]  # of the other files, by name
    scores: dict[str, float] = field(default_factory=dict)  # of the last evaluation

    def __post_init__(self) -> None:
        run = self.config.get("run")
        stages = run.get("stages") if isinstance(run, dict) else None
        if isinstance(stages, list | tuple) and self.position.stage >= len(stages):
            raise ValueError(f"position.stage is {self.position.stage} of {len(stages)}")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds besides the networks."""

    position: Position
    config: Mapping[str, Any]  # Config.model_dump(mode="json")
    state: Mapping[str, Any]  # tensors and plain values, as torch.load(weights_only=True) gives them back
    scores: Mapping[str, float] = field(default_factory=dict)  # of the last evaluation
    images: bytes = b""  # image_listing.pack of the images that the labels and the memory belong to


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
        try:
            with room_for(target):
                for part, module in networks.named():
                    save_weights(module, partial / f"{part}.safetensors")
                with (partial / _STATE).open("wb") as file:  # of a name alone torch does not tell of a full disk
                    torch.save(dict(saved.state), file)
                if saved.images:
                    (partial / LISTING).write_bytes(saved.images)
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
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk nothing else could be written any more
            raise
        sync(self.folder)
        self._point(LATEST, name)
        self._prune()
        if self.mirror is not None:
            self.mirror.send(target, keep={path.name for path in self._all()})
        return target

    def check_links(self) -> None:
        """UserError where something else is called as the links are: a copy made by what knows no links, or follows
        them. In place of `best` it would be lost, in place of `latest` in the way.
        """
        for link in (LATEST, BEST):
            path = self.folder / link
            if os.path.lexists(path) and not path.is_symlink():
                raise UserError(
                    f"{path}: not a link to a checkpoint beside it, after a copy perhaps that does not keep links "
                    "(rsync -a and cp -a do); remove it, or make it one by ln -s"
                )

    def try_links(self) -> None:
        """UserError where the disk takes no links, hours before the first is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._point(".trial", "nothing")
        except OSError as error:
            raise UserError(
                f"{self.folder}: no links can be made there ({error.strerror}), and latest and best are such; give "
                "run.root another disk"
            ) from None
        (self.folder / ".trial").unlink()

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
        """The newest checkpoint that can be read; unreadable ones before it are named in a warning.

        None where there is no checkpoint; UserError where there are, and none can be read.
        """
        reasons = []
        for checkpoint in self._all()[::-1]:
            try:
                read_manifest(checkpoint, verify=True)
            except UserError as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                logger.warning("%s; going on from the one before it", reason)
            return checkpoint
        if reasons:
            raise UserError(
                f"{counted(len(reasons), 'checkpoint')}, none can be read: {'; '.join(reasons)}; "
                "restore one, or remove "
                f"{self.folder} to begin anew"
            )
        return None

    @property
    def best(self) -> Path | None:
        """The checkpoint that `best` points at."""
        link = self.folder / BEST
        return link.resolve() if link.exists() else None

    def _all(self) -> list[Path]:
        """Oldest first; what else lies there, such as a user's copy of one, is not ours to prune or go on from."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        return sorted((path for path in found if is_checkpoint_name(path.name)), key=lambda path: by_age(path.name))

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


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint that a folder is, or those that a run's holds: its best, then its latest; a warning where one of
    the two leads nowhere."""
    if (folder / MANIFEST).is_file():
        return [folder.resolve()]
    for inner in (folder / "checkpoints", folder):
        found = [(inner / link).resolve() for link in (BEST, LATEST) if (inner / link / MANIFEST).is_file()]
        for link in (inner / BEST, inner / LATEST):
            if found and link.is_symlink() and not (link / MANIFEST).is_file():
                logger.warning("%s leads to no checkpoint (%s); taking %s", link, link.readlink(), found[0].name)
        if found:
            return found
    raise UserError(
        f"{folder}: no checkpoint here; give a run folder (with checkpoints/best or checkpoints/latest) or a "
        f"checkpoint (a folder with {MANIFEST})"
    )


def newest_in(folder: Path) -> Path:
    """The checkpoint that a folder is, or a run's newest; UserError where there is none that can be read."""
    if (folder / MANIFEST).is_file():
        return folder
    found = Checkpoints(folder / "checkpoints", keep=1).newest()
    return found or checkpoints_in(folder)[-1]


def checkpoint_name(stage: str, position: Position) -> str:
    """Folder of the checkpoint at a position. storage.by_age sorts names by age, also
    where one stage ends and the next begins.
    """
    return f"step{position.step:07d}-stage{position.stage + 1}-{stage}-epoch{position.epoch:03d}"


def read_manifest(checkpoint: Path, verify: bool = False) -> Manifest:
    """checkpoint.json; UserError where it or, with `verify`, a file it lists is missing, cut off or altered."""
    file = checkpoint / MANIFEST
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{checkpoint}: not a readable checkpoint ({MANIFEST}: {error.strerror})") from None
    manifest = parse_manifest(content, str(file))
    for name, digest in manifest.sha256.items() if verify else ():
        path = checkpoint / name
        if not path.is_file() or _digest(path) != digest:
            raise UserError(f"{checkpoint}: {name} is missing or damaged; {REMEDY}")
    return manifest


def parse_manifest(content: bytes, source: str) -> Manifest:
    """A checkpoint.json from elsewhere; source: where it is from. UserError where it is none."""
    return parse_json(content, Manifest, source, REMEDY)


def config_of(manifest: Manifest, checkpoint: Path) -> Config:
    """The configuration of the run that a checkpoint is of; UserError that names the file where it cannot be read."""
    try:
        return validate(manifest.config)
    except UserError as error:
        raise UserError(
            f"{checkpoint / MANIFEST}: {error}; of another version of jgcl_ray? A newer one reads checkpoints of "
            "older ones"
        ) from None


def read_listing(checkpoint: Path) -> dict[str, ImageListing]:
    """The images that a checkpoint belongs to, by split; none in checkpoints of version 0.1."""
    file = checkpoint / LISTING
    return unpack(file.read_bytes(), str(file)) if file.is_file() else {}


def load_networks(checkpoint: Path, networks: Networks) -> None:
    """The networks' weights, strictly."""
    for part, module in networks.named():
        load_weights(module, checkpoint / f"{part}.safetensors")


def load_saved(checkpoint: Path) -> Saved:
    """Everything but the networks; UserError where it cannot be read."""
    manifest = read_manifest(checkpoint, verify=True)
    state = read_saved(checkpoint / _STATE, torch.device("cpu"), REMEDY)
    return Saved(manifest.position, manifest.config, state, manifest.scores)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
