"""A run before it starts, in words: data, stages, devices, where its record is, and the memory it will need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config
from jgcl_ray.data.datasets import Split
from jgcl_ray.losses.joint import StepPlan
from jgcl_ray.mlflow_mirror import Mirror, tracking_uri
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training.best import chooser
from jgcl_ray.training.checkpoint import read_manifest
from jgcl_ray.training.limits import DRAWN, PAIRED, batch_sizes
from jgcl_ray.training.precision import autocast, laid_out, prepare
from jgcl_ray.training.prepare import UNSURE, Plan, estimated
from jgcl_ray.training.step import generator_terms, translate
from jgcl_ray.wording import counted

LIBRARIES = 600 * 2**20  # resident memory of a process that has imported torch, Ray, faiss and scikit-learn
LABELLING = 8 * 2**10  # of the clustering actor for each image, besides features (benchmarks/bm_pseudo_labels.py)


def describe(plan: Plan, devices: str) -> Mapping[str, str]:
    """Title and line, in the order to be shown. devices: of the workers, in words."""
    config, lines = plan.config, {"run": f"{plan.folder}, {_start(plan)}"}
    lines["data"] = _dataset(plan)
    if plan.source is not None:
        lines["source"] = f"{plan.source.name}, {_split(plan.source.train)}, labelled"
    if config.needs_bodies:
        lines["bodies"] = _bodies(plan)
    lines["stages"] = ", ".join(_stages(plan))
    workers = config.scaling.num_workers if not config.run.local else 1
    sizes = list(batch_sizes(config).values())
    each = f", {' and '.join(f'{size / workers:g}' for size in sizes)} on each of {workers} workers"
    said = counted(sizes[0], "image") + (f", in the warm-up {sizes[1]}" if len(sizes) > 1 else "")
    lines["batch"] = f"{said}{each if workers > 1 else ''}; precision {config.precision.dtype}"
    lines["devices"] = devices
    lines["best"] = selection(plan)
    lines["record"] = f"{plan.folder / 'metrics.jsonl'}; MLflow: {_page(config, plan.folder)}"
    return lines


def memory(plan: Plan) -> Mapping[str, int]:
    """Bytes by part: of each worker, of its GPU's share, of the clustering actor. Activations are measured.

    One image goes through the forward pass here, then two: what autograd keeps grows by as much for each further
    image. Of the encoder's batches and the generator's, those count that keep more.
    """
    config, images = plan.config, len(plan.dataset.train)
    workers = 1 if config.run.local else config.scaling.num_workers
    networks = prepare(build_networks(_without_downloads(config)), config.precision)
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in networks.named()}
    activations, batch = max(_activations(networks, config, workers))
    width = networks.encoder.embedding_width
    # Weights and gradients, and Adam's two moments; the encoder has the SGD momentum of the joint stage besides.
    states = 4 * 4 * sum(parameters.values()) + 4 * parameters["encoder"]
    cached = 3 * images * config.data.height * config.data.width if config.data.cache else 0
    features = 2 * 4 * images * width
    return {
        "networks, gradients, optimisers": states,
        f"activations of {batch} images": activations,
        f"features and memory bank, {images} x {width}": features,
        "images in memory (data.cache)": cached,
        "libraries": LIBRARIES,
        "clustering actor": LIBRARIES + 4 * images * width + LABELLING * images,
    }


def aligned(lines: Mapping[str, str]) -> Iterator[str]:
    """The lines for a terminal, titles in a column."""
    width = max(map(len, lines))
    return (f"{title:>{width}}  {line}" for title, line in lines.items())


def memory_lines(parts: Mapping[str, int]) -> Iterator[str]:
    """The memory for a terminal, with what one worker needs in all."""
    worker = {name: size for name, size in parts.items() if name != "clustering actor" and size}
    yield f"memory of each worker, about {_bytes(sum(worker.values()))}:"
    yield from (f"  {_bytes(size):>8}  {name}" for name, size in worker.items())
    yield f"memory of the clustering actor, about {_bytes(parts['clustering actor'])}"


def _start(plan: Plan) -> str:
    checkpoint = plan.newest_checkpoint()
    if checkpoint is None:
        given = plan.config.run.init_from
        return "new" if given is None else f"new, networks of {given}"
    position = read_manifest(checkpoint).position
    return f"going on after step {position.step}, from {checkpoint.name}"


def _dataset(plan: Plan) -> str:
    dataset = plan.dataset
    said = f"{dataset.description}: train {_split(dataset.train)}"
    if dataset.query is None or dataset.gallery is None:
        return f"{said}; no labels, so no mAP"
    return (
        f"{said}; test {counted(len(dataset.query), 'query', 'queries')} in {counted(len(dataset.gallery), 'image')}"
    )


def _split(split: Split) -> str:
    known = split.cameras[split.cameras >= 0]
    cameras = len(set(known.tolist()))
    return f"{counted(len(split), 'image')}, {counted(cameras, 'camera')}"


def _bodies(plan: Plan) -> str:
    meshes, found = plan.config.meshes, estimated(plan)
    if meshes.source != "estimated":
        return f"meshes.source={meshes.source}"
    if found is None:
        return "estimated when the run begins"
    unsure = len(found.unsure(meshes.unsure_above))
    left_out = ", left out of the generation stage" if meshes.skip_unsure else ""
    return f"estimated, {unsure:,} of {len(found.names):,} unsure ({plan.folder / UNSURE}){left_out}"


def _stages(plan: Plan) -> Iterator[str]:
    config = plan.config
    across = len(np.unique(plan.dataset.train.cameras)) > 1
    for stage in config.run.stages:
        if stage == "warmup":
            warmup = config.warmup
            mode = {"unsupervised": "by pseudo labels", "source": f"on {warmup.source}", "none": ""}[warmup.mode]
            yield "no warm-up" if warmup.mode == "none" else f"warm-up {mode}, {counted(warmup.epochs, 'epoch')}"
        else:
            contrast = "Cluster-Contrast"
            contrast += " with camera proxies" if config.uses_proxies and across else ""
            contrast += " and surface views" if config.learns_surface_views else ""
            by = f" by {contrast}" if stage == "joint" and not config.uses_generator(stage) else ""
            yield f"{stage}{by}, {counted(config.epochs_of(stage), 'epoch')}"


def selection(plan: Plan) -> str:
    """What chooses the best checkpoint, in words."""
    chosen_by = chooser(plan.config, plan.dataset.validation is not None)
    return {
        "mAP": "the checkpoint of the highest mAP on the test split (eval.select_on=test)",
        "validation_mAP": "the checkpoint of the highest validation mAP, on the data set's own validation list",
        None: "the last checkpoint: without labels no score is known that follows the truth",
    }[chosen_by]


def _page(config: Config, folder: Path) -> str:
    return Mirror(folder, tracking_uri(config)).page if config.tracking.enabled else "off"


def _without_downloads(config: Config) -> Config:
    return config.model_copy(update={"encoder": config.encoder.model_copy(update={"weights": "random"})})


def _activations(networks: Networks, config: Config, workers: int) -> Iterator[tuple[int, int]]:
    """(bytes, images) of a worker's share of each kind of batch."""
    for name, size in batch_sizes(config).items():
        images = -(-size // workers)
        if name == DRAWN and config.learns_surface_views:
            images += -(-images // config.cluster_contrast.views_every)
        one, two = (_kept_for_backward(networks, config, number, name == PAIRED) for number in (1, 2))
        yield one + (images - 1) * (two - one), images


def _kept_for_backward(networks: Networks, config: Config, images: int, draws: bool) -> int:
    """Bytes of the tensors that an update keeps between its forward and its backward pass.

    Of the generator's, where it `draws`, else of the encoder's alone.
    """
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    size = (config.data.height, config.data.width)
    mesh, rows = torch.zeros(images, 1, *size), torch.arange(images)
    batch = PairedBatch(torch.zeros(images, 3, *size), mesh, mesh, torch.zeros_like(rows), rows)
    networks.encoder.eval()  # batch norm of one image has no statistics
    with torch.autograd.graph.saved_tensors_hooks(keep, _same):
        if draws:
            plan = StepPlan.of(config.losses, contrasts=True)
            outputs = translate(networks, batch, config, plan)
            results = [*generator_terms(networks, outputs, batch, config, plan).values()]
        else:
            with autocast(config.precision, batch.image.device):
                results = [networks.encoder(laid_out(batch.image, config.precision)).embedding]
    size_in_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del results
    return size_in_bytes


def _same(tensor: Any) -> Any:
    return tensor


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
