"""Calibration of the walkers: what a striped colour histogram scores on them, and what labels can teach an encoder.

    python benchmarks/bm_walkers.py [--preset demo] [--root DIR]

Prints one JSON object a line. The set is of use if the histogram is poor (below 0.45 mAP) and an encoder trained with
the labels of the train split, from random weights, far better.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from jgcl_ray.config import DataConfig, WalkersConfig
from jgcl_ray.data.datasets import ReidDataset, Split, open_dataset
from jgcl_ray.data.walkers import ensure_rendered
from jgcl_ray.evaluation.ranking import RankingResult, rank

STRIPES, BINS = 8, (8, 4, 4)  # hue, saturation, value


def striped_histogram(path: Path) -> np.ndarray:
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


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["demo", "full"], default="demo")
    parser.add_argument("--root", type=Path, help="a rendered set; the preset's cache when not given")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start = time.perf_counter()
    root = arguments.root or ensure_rendered(WalkersConfig(preset=arguments.preset, seed=arguments.seed))
    rendering = time.perf_counter() - start
    dataset = open_dataset(DataConfig(name="walkers", root=root))
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    start = time.perf_counter()

    def histograms(split: Split) -> np.ndarray:
        return np.stack([striped_histogram(split.path(row)) for row in range(len(split))])

    result = score(dataset, histograms)
    line = {"set": arguments.preset, "features": "striped colour histogram", **sizes, "mAP": round(result.mAP, 4)}
    line |= {"rank-1": round(float(result.cmc[0]), 4), "seconds": round(time.perf_counter() - start, 1)}
    line |= {"rendering_seconds": round(rendering, 1)}
    line |= {"peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
