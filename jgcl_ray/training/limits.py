"""What a run's numbers must fit, checked before anything starts: batches, workers, images, cameras, networks."""

from __future__ import annotations

import logging

import numpy as np
import torch

from jgcl_ray.config import Config, StageName
from jgcl_ray.data.datasets import Split
from jgcl_ray.errors import UserError
from jgcl_ray.losses.joint import StepPlan
from jgcl_ray.models.discriminator import Discriminator
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.wording import counted

logger = logging.getLogger(__name__)

REPEATED = 256  # images that a batch may hold even if the data has fewer, which are then repeated
PAIRED, DRAWN = "data.batch_size", "data.identities_per_batch x data.images_per_identity"


def check_limits(config: Config, train: Split, source: Split | None) -> None:
    """UserError for what would stop the run later, or take more memory than the data can fill.

    source: the labelled images of warmup.mode=source.
    """
    _check_shares(config)
    _check_groups(config)
    _check_images(config, train, source)
    _check_batch_norm(config)
    _check_cameras(config, train)
    _check_networks(config)
    _check_losses(config)


def draws(config: Config) -> bool:
    """Whether the generator works in any stage."""
    return any(config.uses_generator(stage) for stage in config.run.stages)


def batch_sizes(config: Config) -> dict[str, int]:
    """Images of a batch over all workers, by the fields that set it, of the stages to run; of pairs first."""
    data, sizes = config.data, {}
    if draws(config):
        sizes[PAIRED] = data.batch_size
    if any(stage == "warmup" or not config.uses_generator(stage) for stage in config.run.stages):
        sizes[DRAWN] = data.identities_per_batch * data.images_per_identity
    return sizes


def _possible_workers(config: Config) -> range:
    if config.run.local:
        return range(1, 2)
    most = config.scaling.num_workers
    return range(config.scaling.min_workers or most, most + 1)


def _check_groups(config: Config) -> None:
    group = config.encoder.batch_norm_group
    if group is None:
        return
    if config.scaling.sync_batch_norm:
        raise UserError(
            f"encoder.batch_norm_group={group} and scaling.sync_batch_norm=true contradict each other: batch norm "
            "counts groups of images or all workers' images as one batch; take one of the two"
        )
    for workers in _possible_workers(config):
        for name, size in batch_sizes(config).items():
            if size // workers % group:
                raise UserError(
                    f"encoder.batch_norm_group={group} does not divide a worker's share of "
                    f"{counted(size // workers, 'image')} "
                    f"({name} = {size}, {workers} workers): change one of the three"
                )


def _check_shares(config: Config) -> None:
    sizes = batch_sizes(config)
    for workers in _possible_workers(config):
        for name, size in sizes.items():
            if size % workers:
                raise UserError(
                    f"{name} = {size} does not divide by {workers} workers: change it, or scaling.num_workers and "
                    "scaling.min_workers"
                )


def _check_images(config: Config, train: Split, source: Split | None) -> None:
    if len(train) < 2:
        raise UserError(
            f"{train.folder}: {len(train)} image to train on, and people are learnt from several images of each; "
            "give more images"
        )
    least = config.pseudo_labels.min_samples
    if len(train) < least and any(config.uses_pseudo_labels(stage) for stage in config.run.stages):
        raise UserError(
            f"{train.folder}: {len(train)} images to train on, and a cluster takes pseudo_labels.min_samples = "
            f"{least}; give more images, or lower it"
        )
    data, sizes = config.data, batch_sizes(config)
    limits = [("data.batch_size", data.batch_size, train)] if PAIRED in sizes else []
    for split in {id(split): split for split in _drawn_from(config, train, source)}.values():
        limits.append(("data.identities_per_batch", data.identities_per_batch, split))
        limits.append(("data.images_per_identity", data.images_per_identity, split))
    for name, number, split in limits:
        if number > max(len(split), REPEATED):
            raise UserError(f"{name}={number} is more than the {len(split):,} images of {split.folder}: lower it")


def _drawn_from(config: Config, train: Split, source: Split | None) -> list[Split]:
    """Of what the batches of identities are made."""
    stages = config.run.stages
    warm = ["warmup"] if "warmup" in stages and config.warmup.mode != "none" else []
    drawn = [train if source is None else source for _ in warm]
    return drawn + [train for stage in stages if stage == "joint" and not config.uses_generator(stage)]


def _check_batch_norm(config: Config) -> None:
    """The encoder's last batch norm is over images alone: one image has no deviation."""
    sizes = {}
    for stage in config.run.stages:
        if stage != "generation" and config.epochs_of(stage):
            name = _batch_of(config, stage)
            sizes[name] = batch_sizes(config)[name]
    for workers in _possible_workers(config):
        for name, size in sizes.items():
            if size // (1 if config.scaling.sync_batch_norm else workers) < 2:
                raise UserError(
                    f"{name} = {size} leaves 1 image to each of {workers} workers, and batch norm needs 2 or more: "
                    "raise it, lower scaling.num_workers, or set scaling.sync_batch_norm=true"
                    if workers > 1 and size > 1
                    else f"{name} = {size}: batch norm needs 2 images or more; raise it"
                )


def _batch_of(config: Config, stage: StageName) -> str:
    return PAIRED if config.uses_generator(stage) else DRAWN


def _check_cameras(config: Config, train: Split) -> None:
    labels, cameras = config.pseudo_labels, np.unique(train.cameras)
    labelling = any(stage != "warmup" or config.warmup.mode == "unsupervised" for stage in config.run.stages)
    if not labelling:
        return
    needing = [f"pseudo_labels.single_camera={labels.single_camera}"] if labels.single_camera != "keep" else []
    if labels.distance == "camera_aware_jaccard":
        needing.append(f"pseudo_labels.distance={labels.distance}")
    if needing and cameras.min() < 0:
        raise UserError(
            f"{needing[0]} needs the camera of each image, and {train.folder} does not tell it: use "
            "pseudo_labels.single_camera=keep, pseudo_labels.distance=jaccard, or a folder for each camera"
        )
    if config.uses_proxies and cameras.min() < 0:  # of one camera warn_of_one_camera has told
        logger.warning(
            "%s: images of unknown cameras, so nothing is learnt across cameras: clusters have no proxies in others "
            "(cluster_contrast.proxy_weight); a folder for each camera tells them",
            train.folder,
        )
    if labels.single_camera == "drop" and len(cameras) == 1:
        raise UserError(
            f"pseudo_labels.single_camera=drop: all {len(train):,} images of {train.folder} are of one camera, so "
            "every cluster would be dropped; use pseudo_labels.single_camera=keep"
        )


def _check_networks(config: Config) -> None:
    """Shapes alone: on the meta device nothing is computed."""
    height, width = config.data.height, config.data.width
    image = torch.empty(config.encoder.batch_norm_group or 2, 3, height, width, device="meta")
    size = f"data.height={height} data.width={width}"
    try:
        with torch.device("meta"):
            IdentityEncoder(config.encoder).train()(image)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{size}: too small for encoder.backbone={config.encoder.backbone} ({reason}); raise them"
        ) from None
    if draws(config) and not _is_judged(config, config.discriminator.scales, image):
        most = 0
        while _is_judged(config, most + 1, image):
            most += 1
        raise UserError(
            f"discriminator.scales={config.discriminator.scales}: images of {size} can be halved for {most} scales "
            "at most; lower it, or raise the size"
            if most
            else f"{size}: too small for the discriminator; raise them"
        )


def _check_losses(config: Config) -> None:
    learning = StepPlan.of(config.losses, contrasts=False).terms
    if "generation" in config.run.stages and not any(not name.startswith("discriminator_") for name in learning):
        raise UserError(
            "losses: the weights of all image_*, feature_* and adversarial_* terms are 0, so the generator has "
            "nothing to learn from; raise one, or leave the stage generation out of run.stages"
        )


def _is_judged(config: Config, scales: int, image: torch.Tensor) -> bool:
    shape = config.discriminator.model_copy(update={"scales": min(scales, 32), "width": 1})
    try:
        with torch.device("meta"):
            Discriminator(shape).with_input_gradient(image)
    except (RuntimeError, ValueError):
        return False
    return True
