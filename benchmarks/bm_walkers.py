"""Calibration of the walkers: what a striped colour histogram scores on them, and what labels can teach an encoder.

    python benchmarks/bm_walkers.py [--preset demo] [--root DIR] [--epochs 30]

Prints one JSON object a line. The set is of use if the histogram is poor (below 0.45 mAP) and an encoder trained with
the labels of the train split, from random weights, far better.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import DataConfig, EncoderConfig, WalkersConfig
from jgcl_ray.data.datasets import ReidDataset, Split, open_dataset
from jgcl_ray.data.loaders import ExtractionLoader, open_images, warm_up_loader
from jgcl_ray.data.samplers import Shard, identity_batches, share
from jgcl_ray.data.walkers import PRESETS, WalkersSize, ensure_rendered
from jgcl_ray.data.walkers.photos import Plan
from jgcl_ray.data.walkers.rendering import take_photo
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.evaluation.ranking import RankingResult, rank
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.pseudo_labels.extract import extract_features

STRIPES, BINS = 8, (8, 4, 4)  # hue, saturation, value


def striped_histogram(path: Path | io.BytesIO) -> np.ndarray:
    """Square root of the HSV histograms of eight horizontal stripes, (STRIPES * 128,) float32 of length 1."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((64, 128), Image.Resampling.BICUBIC).convert("HSV"))
    stripes = []
    for stripe in np.array_split(pixels, STRIPES):
        counts, _ = np.histogramdd(stripe.reshape(-1, 3), bins=BINS, range=[(0, 256)] * 3)
        stripes.append(np.sqrt(counts.ravel() / counts.sum()))
    features = np.concatenate(stripes).astype(np.float32)
    return features / np.linalg.norm(features)


def score(dataset: ReidDataset, describe: Callable[[Split], np.ndarray]) -> RankingResult:
    """The ranking of the test split by features `describe(split)`."""
    query, gallery = dataset.query, dataset.gallery
    return rank(
        describe(query),
        describe(gallery),
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
    )


def histogram_without_rendering(size: WalkersSize, seed: int) -> RankingResult:
    """The histogram's score on a set of which only the test photos are taken, in memory."""
    plan = _plan(size, seed)
    test = [row for row, photo in enumerate(plan.photos) if photo.split != "train"]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.map(partial(_histogram_of_photo, size, seed), np.array_split(test, 64))
        features = np.concatenate(list(found))
    photos = [plan.photos[row] for row in test]
    query = np.array([photo.split == "query" for photo in photos])
    identities, cameras = (np.array([getattr(photo, name) for photo in photos]) for name in ("identity", "camera"))
    columns = (features, identities, cameras)
    return rank(*(column[chosen] for column in columns for chosen in (query, ~query)))


@lru_cache(maxsize=1)
def _plan(size: WalkersSize, seed: int) -> Plan:
    return size.plan(seed)


def _histogram_of_photo(size: WalkersSize, seed: int, rows: np.ndarray) -> np.ndarray:
    torch.set_num_threads(1)
    plan = _plan(size, seed)
    return np.stack([striped_histogram(io.BytesIO(take_photo(plan, int(row)).jpeg)) for row in rows])


def train_with_labels(dataset: ReidDataset, epochs: int, seed: int) -> Callable[[Split], np.ndarray]:
    """Features of a resnet18 trained from random weights to name the training identities; 16 x 4 batches."""
    torch.manual_seed(seed)
    data = DataConfig(name="walkers", height=128, width=64, cache=True, loader_workers=0, crop_padding=6)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = IdentityEncoder(EncoderConfig(backbone="resnet18", weights="random")).to(device)
    names, labels = np.unique(dataset.train.identities, return_inverse=True)
    classify = torch.nn.Linear(encoder.embedding_width, len(names), bias=False).to(device)
    parameters = [*encoder.parameters(), *classify.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=5e-2)
    loader = warm_up_loader(open_images(dataset.train, data), data, seed)
    steps = [identity_batches(labels, 16, 4, seed, epoch) for epoch in range(epochs)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-3, total_steps=sum(len(batches) for batches in steps)
    )
    targets = torch.as_tensor(labels, device=device)
    for epoch, batches in enumerate(steps):
        for batch in loader.batches(share(batches, epoch, Shard())):
            with torch.autocast(device.type, dtype=torch.bfloat16):
                embedding = encoder(batch.image.to(device)).embedding
            cosine = functional.normalize(embedding) @ functional.normalize(classify.weight).T
            loss = functional.cross_entropy(16 * cosine, targets[batch.index], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()

    def describe(split: Split) -> np.ndarray:
        images = ExtractionLoader(open_images(split, data), data, batch_size=64)
        return extract_features(encoder, images, len(split)).numpy()

    return describe


def main() -> None:
    """Score and print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo")
    parser.add_argument("--root", type=Path, help="a rendered set; the preset's cache when not given")
    parser.add_argument("--seed", type=whole(0), default=1, help="of the set, and of the training")
    parser.add_argument("--epochs", type=whole(0), default=0, help="also train an encoder with labels this long")
    parser.add_argument("--in-memory", action="store_true", help="take the test photos only; the histogram alone")
    arguments = parser.parse_args()
    start = time.perf_counter()
    if arguments.in_memory:
        result = histogram_without_rendering(PRESETS[arguments.preset], arguments.seed)
        line = {
            "set": arguments.preset,
            "seed": arguments.seed,
            "features": "striped colour histogram",
            "queries": result.queries,
        }
        line |= {"mAP": round(result.mAP, 4), "rank-1": round(float(result.cmc[0]), 4)}
        print(json.dumps(line | {"seconds": round(time.perf_counter() - start, 1)}))
        return
    root = arguments.root or ensure_rendered(WalkersConfig(preset=arguments.preset, seed=arguments.seed))
    print(
        json.dumps(
            {
                "set": arguments.preset,
                "seed": arguments.seed,
                "rendering_seconds": round(time.perf_counter() - start, 1),
            }
        ),
        flush=True,
    )
    dataset = open_dataset(DataConfig(name="walkers", root=root))

    def histograms(split: Split) -> np.ndarray:
        return np.stack([striped_histogram(split.path(row)) for row in range(len(split))])

    methods = {"striped colour histogram": lambda: histograms}
    if arguments.epochs:
        methods["encoder trained with labels"] = lambda: train_with_labels(dataset, arguments.epochs, arguments.seed)
    for features, make in methods.items():
        start = time.perf_counter()
        describe = make()
        result = score(dataset, describe)
        line = {"set": arguments.preset, "seed": arguments.seed, "features": features}
        line |= {name: len(split) for name, split in dataset.splits.items()}
        line |= {"mAP": round(result.mAP, 4), "rank-1": round(float(result.cmc[0]), 4)}
        line |= {"seconds": round(time.perf_counter() - start, 1)}
        line |= {"peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
