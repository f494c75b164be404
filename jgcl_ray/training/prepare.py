"""What is settled on the driver before anything trains: data, run folder, session. No Ray."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jgcl_ray import places
from jgcl_ray.atomic import write_bytes
from jgcl_ray.batches import PseudoLabels, Tracks
from jgcl_ray.config import (
    Config,
    ContrastSchedule,
    DataConfig,
    MeshesConfig,
    PseudoLabelsConfig,
    load_config,
    to_yaml,
)
from jgcl_ray.data.datasets import OF_ALL_BELOW, ReidDataset, open_dataset
from jgcl_ray.data.image_check import check_images
from jgcl_ray.data.image_listing import ImageListing, difference, pack, unpack
from jgcl_ray.data.loaders import open_images
from jgcl_ray.data.samplers import Shard
from jgcl_ray.data.staging import moved, stage_folder
from jgcl_ray.distributed import broadcast_module
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.estimated_bodies import EstimatedBodies, ensure_estimated, read_estimated
from jgcl_ray.meshes.estimator import WEIGHTS, load_estimator
from jgcl_ray.meshes.projections import open_projections
from jgcl_ray.mlflow_mirror import ARTIFACTS, CARD, METRICS, MODEL, PICTURES, SQLITE, RunCard, masked, tracking_uri
from jgcl_ray.models.batch_norm import synchronise_statistics
from jgcl_ray.models.networks import build_networks
from jgcl_ray.ownership import is_database
from jgcl_ray.progress import tracked
from jgcl_ray.pseudo_labels.clustering import pseudo_labels
from jgcl_ray.run_log import read_records
from jgcl_ray.storage import RemoteFolder
from jgcl_ray.training.checkpoint import (
    MANIFEST,
    Checkpoints,
    newest_in,
    parse_manifest,
    read_listing,
    read_manifest,
)
from jgcl_ray.training.limits import check_limits
from jgcl_ray.training.optim import build_optimisers
from jgcl_ray.training.precision import prepare
from jgcl_ray.training.session import Clusterer, Session, TrainingData
from jgcl_ray.training.starts import check_starts, load_start
from jgcl_ray.training.terminal import ProgressFile
from jgcl_ray.wording import counted

BODIES, UNSURE = "bodies.npz", "unsure.txt"  # of a run folder: estimated bodies, and images whose side is uncertain

# What a run makes in its folder and replaces, once config.yaml lies there. Not its checkpoints: PBT gives them to a
# run before it starts, and no others are touched.
_MADE = (METRICS, CARD, ARTIFACTS, PICTURES, MODEL, BODIES, UNSURE)

# Fields that may differ between a run and its continuation: none changes what is computed.
_FREE = {
    "run": {"root", "resume", "init_from", "local", "log_every"},
    "scaling": {
        *("num_workers", "min_workers", "device", "cpus_per_worker", "gpus_per_worker", "threads_per_worker"),
        *("max_failures", "wait_seconds"),
    },
    "data": {"root", "cache", "stage_to", "loader_workers"},
    "checkpoints": {"every_steps", "keep", "mirror"},
    "eval": {"batch_size"},
    "tracking": None,  # all of it
}


@dataclass(frozen=True)
class Plan:
    """A checked run: what the workers are given."""

    config: Config
    dataset: ReidDataset
    source: ReidDataset | None
    images: bytes = b""  # image_listing.pack of what is learnt from, as it was when the run began

    @property
    def folder(self) -> Path:
        """RUNS/NAME."""
        return self.config.run.root / self.config.run.name

    @property
    def meshes(self) -> MeshesConfig:
        """Where projections come from, with the file of estimated bodies filled in."""
        meshes = self.config.meshes
        if meshes.source != "estimated":
            return meshes
        return meshes.model_copy(update={"parameters": self.folder / BODIES})

    @property
    def checkpoints(self) -> Checkpoints:
        """Of this run."""
        uri = self.config.checkpoints.mirror
        mirror = None if uri is None else RemoteFolder(uri, self.config.run.name, MANIFEST)
        return Checkpoints(self.folder / "checkpoints", self.config.checkpoints.keep, mirror)

    def newest_checkpoint(self) -> Path | None:
        """Where the run goes on from: its own newest, else the one of run.resume; None for a new run."""
        wanted = self.config.run.resume
        return self.checkpoints.newest() or (newest_in(wanted) if isinstance(wanted, Path) else None)


def check_places(config: Config, workers_here: bool) -> None:
    """UserError where data or checkpoints could not be copied to the places that the configuration names, or a SQLite
    file of MLflow's not be written: before the data set is opened.

    So for a run's folder among the photos, where pictures are looked for in all folders.

    workers_here: whether all workers run on this machine; others try data.stage_to on theirs, before they learn.
    """
    root, disk, folder = config.data.root, config.data.stage_to, config.run.root / config.run.name
    if root is not None and config.data.name in OF_ALL_BELOW:
        places.check_outside(folder, "run.root, run.name:", root, "data.root=")
    if root is not None and disk is not None:
        places.check_outside(disk, "data.stage_to:", root, "data.root=")
    if disk is not None and workers_here:
        places.check_folder(disk, "data.stage_to:")
    if config.checkpoints.mirror is not None:
        RemoteFolder(config.checkpoints.mirror, config.run.name, MANIFEST).check_writable()
    if config.tracking.enabled and re.search("[\udc80-\udcff]", tracking_uri(config)):
        raise UserError(
            f"run.root={config.run.root}: bytes that are no text in UTF-8, and MLflow's database cannot lie there; "
            "rename it, give tracking.uri, or set tracking.enabled=false"
        )
    uri = config.tracking.uri or ""
    if config.tracking.enabled and uri.startswith(SQLITE):
        places.check_file(Path(uri.removeprefix(SQLITE)), "tracking.uri:", is_database, parents=True)


def plan_run(config: Config) -> Plan:
    """Open and check the data; UserError for whatever would stop the run later."""
    check_starts(config)  # before anything is rendered
    config, dataset = _open(config)
    dataset = check_images(dataset, config.data.on_bad_image)
    source = None
    if "warmup" in config.run.stages and config.warmup.mode == "source":
        source = _open_source(config)
        if source.train.folder == dataset.train.folder:
            raise UserError(
                f"warmup.source: {source.root} is the data set to be learnt without labels; give another one, or "
                "walkers of another warmup.source_seed"
            )
    if config.meshes.source == "estimated":
        load_estimator(config.meshes.weights or WEIGHTS)
    elif config.needs_bodies:
        meshes = open_projections(config.meshes, config.data, dataset.train.paths, "train", dataset.train.folder)
        if config.learns_surface_views and not meshes.knows_bodies:
            every, bodies = config.cluster_contrast.views_every, config.meshes.source
            raise UserError(
                f"cluster_contrast.views_every={every} needs bodies, and pictures of them in folders (meshes.source="
                f"{bodies}) do not tell which point of the body a pixel sees; take meshes.source=estimated or "
                "parameters, or cluster_contrast.views_every=0"
            )
    warms_up = config.run.stages[0] == "warmup" and config.warmup.mode != "none"
    if not warms_up and config.run.init_from is None and config.encoder.weights == "random":
        raise UserError(
            f"run.stages={','.join(config.run.stages)}, warmup.mode={config.warmup.mode}: the encoder would start "
            "random; give a checkpoint by run.init_from, ImageNet weights by encoder.weights=imagenet, or a warm-up"
        )
    check_limits(config, dataset.train, None if source is None else source.train)
    learnt_from = {"train": dataset.train} | ({} if source is None else {"source": source.train})
    return Plan(config, dataset, source, pack({name: ImageListing.of(split) for name, split in learnt_from.items()}))


def estimate_bodies(plan: Plan) -> None:
    """Find the bodies on the images for meshes.source=estimated, and list the unsure ones; kept in the run folder.

    Once, on the driver, before the workers start.
    """
    meshes, train = plan.config.meshes, plan.dataset.train
    if not plan.config.needs_bodies or meshes.source != "estimated":
        return
    bodies = ensure_estimated(
        plan.folder / BODIES, train.folder, train.paths, meshes, lambda batches: tracked(batches, "bodies")
    )
    unsure = bodies.unsure(meshes.unsure_above)
    if meshes.skip_unsure and len(unsure) == len(train):
        raise UserError(
            f"{counted(len(train), 'image')}, none of them sure: raise meshes.unsure_above, or set skip_unsure=false"
        )
    lines = (f"{bodies.names[row]}\t{bodies.deviation[row]:.0f}\n" for row in unsure)
    write_bytes(plan.folder / UNSURE, "".join(lines).encode("utf-8", "surrogateescape"))


def estimated(plan: Plan) -> EstimatedBodies | None:
    """What `estimate_bodies` found, now or in an earlier run; None where it has not, or need not."""
    if not plan.config.needs_bodies or plan.config.meshes.source != "estimated":
        return None
    return read_estimated(plan.folder / BODIES)


def check_folder(plan: Plan) -> None:
    """UserError where the run folder holds a run of another configuration or on other images or damaged records, or
    run.resume forbids or cannot go on.
    """
    plan.checkpoints.check_links()
    file, wanted = plan.folder / "config.yaml", plan.config.run.resume
    if isinstance(wanted, Path):
        read_manifest(newest_in(wanted), verify=True)
    if file.is_file():
        before = _config_before(file)
        _check_same(before.model_dump(mode="json"), plan.config, str(plan.folder))
    elif made := [name for name in _MADE if (plan.folder / name).exists()]:
        raise UserError(
            f"{plan.folder} exists and is no run's: it holds {made[0]} and no config.yaml; give another run.name"
        )
    if (plan.folder / CARD).is_file():
        RunCard.read(plan.folder)
    if (plan.folder / METRICS).is_file():
        read_records(plan.folder)
    if wanted == "never" and plan.checkpoints.newest() is not None:
        raise UserError(f"{plan.folder} holds checkpoints and run.resume=never: give the run another run.name")
    _check_images(plan)
    mirror = plan.checkpoints.mirror
    for name in mirror.complete()[-1:] if mirror is not None else ():
        assert mirror is not None
        if wanted == "never":
            raise UserError(f"{mirror.uri} holds checkpoints and run.resume=never: give the run another run.name")
        there = f"{mirror.uri}/{name}/{MANIFEST}"
        _check_same(parse_manifest(mirror.read_last(name), there).config, plan.config, mirror.uri)


def _config_before(file: Path) -> Config:
    try:
        return load_config(file)
    except UserError as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise UserError(f"{file}: damaged ({reason}); restore it, or give this run another run.name") from None


def open_folder(plan: Plan) -> None:
    """Make the run folder, or take it up again; UserError as of `check_folder`."""
    check_folder(plan)
    keep_others_from_writing()
    plan.folder.mkdir(parents=True, exist_ok=True)
    plan.checkpoints.try_links()
    file = plan.folder / "config.yaml"
    tracking = plan.config.tracking.model_copy(update={"uri": masked(plan.config.tracking.uri or "") or None})
    write_bytes(file, to_yaml(plan.config.model_copy(update={"tracking": tracking})).encode())
    if plan.config.run.resume == "auto" and plan.checkpoints.newest() is None:
        plan.checkpoints.restore()
        _check_images(plan)


def _check_images(plan: Plan) -> None:
    """UserError where the checkpoint to go on from is of other images: its labels and memory are theirs."""
    checkpoint = plan.newest_checkpoint()
    before = {} if checkpoint is None else read_listing(checkpoint)
    for name, now in unpack(plan.images, "this run").items() if before else ():
        split = plan.dataset.train if name == "train" or plan.source is None else plan.source.train
        if name not in before or not (changed := difference(before[name], now)):
            continue
        raise UserError(
            f"{split.folder}: not the images that {checkpoint} has learnt from, since then {changed}; its labels and "
            "memory are of the images as they were: bring them back, or start a new run from its weights alone by "
            f"run.name={plan.config.run.name}-2 run.init_from={checkpoint}"
        )


def keep_others_from_writing() -> None:
    """From now on nobody but the user and the group may write to what this process makes, whatever its umask was."""
    os.umask(os.umask(0o022) | 0o002)


def build_session(plan: Plan, clusterer: Clusterer, shard: Shard, device: torch.device) -> Session:
    """Networks with the first worker's weights on all, optimisers, data (copied to this machine, if asked for)."""
    keep_others_from_writing()
    config, near = plan.config, stage(plan, shard.index == 0)
    torch.manual_seed(config.run.seed)
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    networks = build_networks(config)
    if config.run.init_from is not None:
        load_start(config.run.init_from, networks, config.encoder)
    if config.scaling.sync_batch_norm:
        synchronise_statistics(networks.encoder)
    for _, module in networks.named():
        module.to(device)
        broadcast_module(module)
    prepare(networks, config.precision)
    train, meshes = near.dataset.train, near.meshes
    data = TrainingData(
        dataset=near.dataset,
        images=open_images(train, config.data),
        projections=(
            open_projections(meshes, near.config.data, train.paths, "train", train.folder)
            if config.needs_bodies
            else None
        ),
        source=near.source,
        source_images=None if near.source is None else open_images(near.source.train, config.data),
        unsure=_skipped(near),
        listing=plan.images,
    )
    optimisers = build_optimisers(networks, config.optim, config.warmup, _joint_schedule(config))
    return Session(config, data, networks, optimisers, clusterer, device, shard)


def stage(plan: Plan, first: bool) -> Plan:
    """The plan with its data on a disk of this machine, where data.stage_to is set; `first` worker: show progress."""
    disk, config, bar = plan.config.data.stage_to, plan.config, ProgressFile(plan.folder)
    if disk is None:
        return plan

    def copied(folder: Path) -> Path:
        def show_progress(done: int, files: int) -> None:
            if first:
                bar.write(stage=f"copying {folder.name}", batch=done, batches=files, numbers={})

        return stage_folder(folder, disk, show_progress)

    root, source = copied(plan.dataset.root), plan.source
    changes: dict[str, Any] = {"data": config.data.model_copy(update={"root": root})}
    if config.meshes.root is not None and config.needs_bodies:
        changes["meshes"] = config.meshes.model_copy(update={"root": copied(config.meshes.root)})
    if source is not None:
        source = moved(source, copied(source.root))
    return replace(plan, config=config.model_copy(update=changes), dataset=moved(plan.dataset, root), source=source)


def _skipped(plan: Plan) -> np.ndarray:
    bodies = estimated(plan) if plan.config.meshes.skip_unsure else None
    return np.empty(0, np.int64) if bodies is None else bodies.unsure(plan.config.meshes.unsure_above)


class InProcess:
    """A Clusterer without Ray."""

    def __init__(self, config: PseudoLabelsConfig) -> None:
        self._config = config

    def label(
        self, features: np.ndarray, cameras: np.ndarray | None = None, tracks: Tracks | None = None
    ) -> PseudoLabels:
        """See Clusterer."""
        return pseudo_labels(features, self._config, cameras, torch.get_num_threads(), tracks=tracks)

    def pending(self) -> PseudoLabels | None:
        """See Clusterer: nothing goes on in the background."""
        return None

    def resume(self, pending: PseudoLabels | None) -> None:
        """See Clusterer."""


def _open_source(config: Config) -> ReidDataset:
    """The labelled data set of warmup.mode=source; UserError under the names of its own fields."""
    warmup = config.warmup
    if warmup.source != "walkers" and warmup.source_root is None:
        raise UserError(f"warmup.source={warmup.source}: say in warmup.source_root where it lies")
    walkers = config.walkers.model_copy(
        update={"preset": warmup.source_preset, "seed": warmup.source_seed, "tracks": False}
    )
    try:
        source = open_dataset(DataConfig(name=warmup.source, root=warmup.source_root), walkers)
    except UserError as error:
        raise UserError(str(error).replace("data.root", "warmup.source_root")) from None
    if source.train.identities is None:
        raise UserError(f"warmup.source={warmup.source}: it has no labels to learn from")
    return check_images(source, config.data.on_bad_image)


def _open(config: Config) -> tuple[Config, ReidDataset]:
    """The data set, and the configuration with its folder filled in: workers may have another cache."""
    dataset = open_dataset(config.data, config.walkers)
    if not dataset.train.folder.is_dir():
        raise UserError(f"{dataset.train.folder}: no such folder; unpack the data set again, or correct data.root")
    if not len(dataset.train):
        raise UserError(
            f"data.train_share={config.data.train_share:g} leaves nobody of {dataset.root} to train on; give more"
        )
    if config.data.root is None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": dataset.root})})
    return config, dataset


def _joint_schedule(config: Config) -> ContrastSchedule | None:
    return config.cluster_contrast if config.joint.recipe == "cluster_contrast" else None


def _check_same(before: dict[str, Any], config: Config, folder: str) -> None:
    differing = _differences(before, config.model_dump(mode="json"))
    if differing:
        raise UserError(
            f"{folder} holds a run with another configuration ({', '.join(differing[:4])}"
            f"{', ...' if len(differing) > 4 else ''}): give this one another run.name, or remove that folder"
        )


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    for section in sorted(before.keys() | after.keys()):
        free = _FREE.get(section, set())
        if free is None:
            continue
        ours, theirs = after.get(section, {}), before.get(section, {})
        for name in sorted((ours.keys() | theirs.keys()) - free):
            if json.dumps(ours.get(name)) != json.dumps(theirs.get(name)):
                found.append(f"{section}.{name}: {theirs.get(name)} there, {ours.get(name)} here")
    return found
