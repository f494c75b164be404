"""Backbones on CPUs: images a second, and what each learns in equal minutes.

    python benchmarks/bm_backbones.py speed [--backbones A,B] [--threads 1,2] [--steps 3]
    python benchmarks/bm_backbones.py training [--backbones A,B] [--minutes 4] [--root MARKET_FOLDER]

One JSON object a line, each measured in a process of its own. `speed`: the encoder's forward pass in evaluation, and
forward and backward pass in training, of random images, float32; `cpu_seconds` is of all threads, which on a busy
machine is the steadier number. `training`: the warm-up of `walkers.yaml` on labelled source walkers (96 x 48, P x K =
16 x 4, Adam) for so many minutes of one thread's processor time, loading and augmentation included, the learning
rate at a tenth in the last quarter; then mAP on the walkers' test split of preset `medium`, or on --root. Weights
are random; NAME:imagenet starts from ImageNet's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jgcl_ray.arguments import Parser, positive, whole
from jgcl_ray.config import Config, load_config
from jgcl_ray.data.datasets import Split, open_dataset
from jgcl_ray.data.loaders import ExtractionLoader, open_images, warm_up_loader
from jgcl_ray.data.samplers import Shard, identity_batches, share
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.evaluation.evaluator import evaluate
from jgcl_ray.losses.cluster_contrast import cluster_contrast
from jgcl_ray.memories.centroids import CentroidMemory
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import build_encoder
from jgcl_ray.pseudo_labels.extract import extract_features

BACKBONES = "resnet18,osnet_x0_25,osnet_x0_5,osnet_x1_0,efficientnet_lite0"
SIZES = {"96x48": (96, 48, 64), "256x128": (256, 128, 16)}  # height, width, images in a batch


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "training"))
    parser.add_argument("--backbones", default=BACKBONES)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=whole(1), default=3)
    parser.add_argument("--minutes", type=positive, default=4)
    parser.add_argument("--root", type=Path, help="a labelled data set in Market-1501's folders, to score on")
    parser.add_argument("--seed", type=whole(0), default=1)
    parser.add_argument("--here", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    names = arguments.backbones.split(",")
    if arguments.here:
        measured = speed(names[0], arguments) if arguments.part == "speed" else training(names[0], arguments)
        print(json.dumps({"benchmark": f"backbones_{arguments.part}", "backbone": names[0]} | measured), flush=True)
        return
    for name in names:
        for threads in arguments.threads.split(",") if arguments.part == "speed" else ["1"]:
            command = [sys.executable, __file__, *sys.argv[1:], "--here", "--backbones", name, "--threads", threads]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": threads})


def make_encoder(name: str) -> IdentityEncoder:
    backbone, _, weights = name.partition(":")
    torch.manual_seed(1)
    overrides = [f"encoder.backbone={backbone}", f"encoder.weights={weights or 'random'}"]
    return build_encoder(load_config(None, overrides).encoder)


def speed(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(int(arguments.threads))
    encoder, found = make_encoder(name), {}
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for size, (height, width, batch) in SIZES.items():
        image = torch.randn(batch, 3, height, width).contiguous(memory_format=torch.channels_last)

        def forward() -> None:
            with torch.inference_mode():
                encoder.eval()(image)  # noqa: B023

        def both() -> None:
            encoder.train().zero_grad()
            output = encoder(image)  # noqa: B023
            (output.embedding.sum() + output.code.sum()).backward()

        found[size] = {
            "forward": timed(forward, batch, arguments.steps),
            "training": timed(both, batch, arguments.steps),
        }
    parameters = sum(parameter.numel() for parameter in encoder.backbone.parameters())
    return {"threads": torch.get_num_threads(), "backbone_parameters": parameters, **found}


def timed(function: Callable[[], None], images: int, steps: int) -> dict[str, float]:
    """Medians over `steps`, after one that warms up."""
    seconds, cpu_seconds = [], []
    for step in range(steps + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        function()
        if step:
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
    wall, cpu = statistics.median(seconds), statistics.median(cpu_seconds)
    return {
        "images": images,
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "images_per_second": round(images / wall, 1),
        "images_per_cpu_second": round(images / cpu, 1),
    }


def training(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    overrides = ["walkers.preset=medium", f"run.seed={arguments.seed}"]
    if arguments.root is not None:
        overrides += ["data.name=market1501", f"data.root={arguments.root}"]
    config = load_config("walkers", overrides)
    walkers = config.walkers.model_copy(update={"preset": "source", "seed": config.warmup.source_seed})
    source = open_dataset(load_config("walkers").data, walkers).train
    test = open_dataset(config.data, config.walkers)
    assert source.identities is not None and test.query is not None and test.gallery is not None
    encoder = make_encoder(name)
    images, budget = warm_up(encoder, source, config, 60 * arguments.minutes)
    start = time.process_time()
    scores = evaluate(encoder, test.query, test.gallery, batches(test.query, config), batches(test.gallery, config))
    return {
        "minutes": arguments.minutes,
        "cpu_seconds": round(budget, 1),
        "images": images,
        "scored_on": config.data.name
        if arguments.root is not None
        else f"walkers medium, seed {config.walkers.seed}",
        "mAP": round(scores.mAP, 4),
        "rank-1": round(scores.rank1, 4),
        "queries": scores.queries,
        "scoring_cpu_seconds": round(time.process_time() - start, 1),
    }


def batches(split: Split, config: Config) -> ExtractionLoader:
    return ExtractionLoader(open_images(split, config.data), config.data, config.eval.batch_size)


def warm_up(encoder: IdentityEncoder, source: Split, config: Config, seconds: float) -> tuple[int, float]:
    """Train until `seconds` of processor time are used; images through the backward pass, and the time."""
    assert source.identities is not None
    labels = np.unique(source.identities, return_inverse=True)[1].astype(np.int64)
    images, targets = open_images(source, config.data), torch.from_numpy(labels)
    loader = warm_up_loader(images, config.data, config.run.seed)
    for row in range(len(images)):  # decoded once for all: not what is compared
        images.load(row)
    warmup, temperature = config.warmup, config.centroid_memory.temperature
    optimiser = torch.optim.Adam(encoder.parameters(), warmup.lr, weight_decay=warmup.weight_decay, fused=True)
    start, done, epoch = time.process_time(), 0, 0

    def used() -> float:
        return time.process_time() - start

    while used() < seconds:
        features = extract_features(encoder, ExtractionLoader(images, config.data, 64), len(images))
        memory = CentroidMemory(features, targets, config.centroid_memory)
        P, K = config.data.identities_per_batch, config.data.images_per_identity
        drawn = identity_batches(labels, P, K, config.run.seed, epoch, warmup.batches_per_epoch)
        for batch in loader.batches(share(drawn, epoch, Shard())):
            if used() >= seconds:
                break
            for group in optimiser.param_groups:
                group["lr"] = warmup.lr * (1 if used() < 0.75 * seconds else 0.1)
            embedding, y = encoder.train()(batch.image).embedding, targets[batch.index]
            loss = cluster_contrast(embedding, y, memory, temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            memory.update(y, embedding.detach())
            done += len(y)
        epoch += 1
    return done, used()


if __name__ == "__main__":
    with exit_on_user_error():
        main()
