"""Memory and time of labelling tracklets beside as many single images: ten times the crops, no more memory.

Features of people with five tracklets each, each with a mean of its own, ten crops around it. Each case has
a process of its own and prints a JSON object: seconds, and peak memory in MiB above the features (Linux).

    python benchmarks/bm_tracklet_memory.py [--tracklets 100000] [--crops 10] [--width 64]
"""

from __future__ import annotations

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from bm_pseudo_labels import memory

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.batches import Tracks
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.pseudo_labels._rows import available_threads
from jgcl_ray.pseudo_labels.clustering import pseudo_labels

TRACKLETS = 5  # of a person, each by a camera of its own
BLOCK = 8192


def crops_of(people: np.ndarray, tracklets: int, crops: int) -> np.ndarray:
    """Features float32 (tracklets * crops, D), unit rows; those of a tracklet one after the other."""
    random, width = np.random.default_rng(0), people.shape[1]
    features = np.empty((tracklets * crops, width), np.float32)
    for start in range(0, tracklets, BLOCK):
        rows = np.arange(start, min(start + BLOCK, tracklets))
        means = people[rows % len(people)] + 0.35 * random.standard_normal((len(rows), width), dtype=np.float32)
        noise = 0.25 * random.standard_normal((len(rows), crops, width), dtype=np.float32)
        block = (means[:, None] + noise).reshape(-1, width)
        features[start * crops : rows[-1] * crops + crops] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return features


def measure(tracklets: int, crops: int, width: int) -> None:
    """One case; crops 1: single images, without tracklets."""
    people = np.random.default_rng(1).standard_normal((-(-tracklets // TRACKLETS), width), dtype=np.float32)
    features = crops_of(people, tracklets, crops)
    of_crop = np.arange(tracklets).repeat(crops)
    cameras = (of_crop // len(people)).astype(np.int64)
    times = (of_crop * 2 * crops + np.tile(np.arange(crops), tracklets)).astype(np.float64)  # nobody overlaps
    tracks = None if crops == 1 else Tracks(of_crop, times, None)
    config = PseudoLabelsConfig(k1=20, k2=6, eps=0.5, tracklet_k1=5, tracklet_k2=2)
    pseudo_labels(features[: 200 * crops], config, cameras[: 200 * crops], 1)  # compiles, starts threads
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, since = memory("VmRSS"), time.perf_counter()
    found = pseudo_labels(features, config, cameras, available_threads(), tracks=tracks)
    record = {
        "case": "images" if tracks is None else "tracklets",
        "images": len(features),
        "tracklets": found.tracklets,
        "width": width,
        "threads": available_threads(),
        "seconds": round(time.perf_counter() - since, 1),
        "features_mib": round(features.nbytes / 2**20),
        "peak_mib": round(memory("VmHWM") - before),
        "clusters": found.num_clusters,
        "cut_tracklets": found.cut_tracklets,
    }
    print(json.dumps(record), flush=True)


def main() -> None:
    """Both cases."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=whole(1), default=100_000)
    parser.add_argument("--crops", type=whole(1), default=10, help="of each")
    parser.add_argument("--width", type=whole(1), default=64)
    given = parser.parse_args()
    for crops in (1, given.crops):
        process = get_context("spawn").Process(target=measure, args=(given.tracklets, crops, given.width))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
