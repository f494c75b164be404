"""Loading on one core: image check, images alone, paired samples (image + two projections), with and without cache.

Made images of Market-1501's size (JPEG, 128 x 64) and projections as PNG, 256 x 128. One JSON object a line: median
seconds of an epoch, images or paired samples per second, peak memory in MiB (with the cache: of all rows).
`processes` 0 loads in the measuring process with one thread; `per_core_second` is then its rate by processor time.

    python benchmarks/bm_loading.py [--images 1024] [--repeats 5] [--processes 0 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import Split, open_dataset
from jgcl_ray.data.image_check import find_broken
from jgcl_ray.data.loaders import ExtractionLoader, open_images, paired_loader, warm_up_loader
from jgcl_ray.data.samplers import Shard, identity_batches, share, shuffled_batches
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.meshes.projection_folders import VIEWS, FolderProjections, view_folder

HEIGHT, WIDTH = 256, 128
CAMERAS = 6
SEED = 1


def make_images(root: Path, count: int) -> None:
    """`count` crops below root/images and their projections below root/meshes."""
    random = np.random.default_rng(SEED)
    for row in range(count):
        coarse = random.integers(0, 255, (32, 16, 3), dtype=np.uint8)  # as much detail as Market-1501's: 3 KB a file
        path = root / "images" / f"cam{row % CAMERAS}" / f"{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((64, 128), Image.Resampling.BICUBIC).save(path, quality=90)
        for view in VIEWS:
            path = view_folder(root / "meshes", "train", view) / f"cam{row % CAMERAS}" / f"{row:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shaded_figure(random)).save(path)


def shaded_figure(random: np.random.Generator) -> np.ndarray:
    """uint8 (256, 128): a shaded ellipsoid as large as a body on a plain background."""
    down, right = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j] / np.array([0.95, 0.4]).reshape(2, 1, 1)
    depth = np.sqrt(np.clip(1 - down**2 - right**2, 0, None))
    light = random.normal(size=3)
    shade = (down * light[0] + right * light[1] + depth * light[2]) / np.linalg.norm(light)
    return np.where(depth > 0, 150 + 100 * shade, 128).clip(0, 255).astype(np.uint8)


def measure(case: str, root: Path, processes: int, cache: bool, repeats: int) -> dict[str, Any]:
    """One case in this process: an epoch for the caches, then the median of `repeats`."""
    torch.set_num_threads(1)
    data = DataConfig(
        name="folder", root=root / "images", height=HEIGHT, width=WIDTH, loader_workers=processes, cache=cache
    )
    split = open_dataset(data).train
    epoch = epochs(case, split, root, data)
    drawn = epoch(0)
    seconds, cpu_seconds = [], []
    for number in range(1, repeats + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        drawn = epoch(number)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    median, cpu_median = statistics.median(seconds), statistics.median(cpu_seconds)
    return {
        "case": case,
        "images": len(split),
        "height": HEIGHT,
        "width": WIDTH,
        "processes": processes,
        "cache": cache,
        "seconds": round(median, 4),
        "per_second": round(drawn / median),
        # What the core did for others in the meantime does not count; loader processes are not seen.
        "per_core_second": None if processes else round(drawn / cpu_median),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def epochs(case: str, split: Split, root: Path, data: DataConfig) -> Callable[[int], int]:
    """A function that loads one epoch of a case and returns how many images or samples that were."""
    if case == "check":
        return lambda _: len(split) - len(find_broken(split, threads=1))
    images = open_images(split, data)
    rows = np.arange(len(split))
    if case == "images":
        extraction = ExtractionLoader(images, data, batch_size=64)
        return lambda _: sum(len(batch.index) for batch in extraction)
    if case == "augmented images":
        warm_up = warm_up_loader(images, data, SEED)
        return lambda number: sum(
            len(batch.index)
            for batch in warm_up.batches(share(identity_batches(rows // 16, 16, 4, SEED, number), number, Shard()))
        )
    projections = FolderProjections(root / "meshes", split.paths, "train", HEIGHT / WIDTH)
    paired = paired_loader(images, projections, data, SEED)
    return lambda number: sum(
        len(batch.index) for batch in paired.batches(share(shuffled_batches(rows, 16, SEED, number), number, Shard()))
    )


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=whole(1), default=1024)
    parser.add_argument("--repeats", type=whole(1), default=5)
    parser.add_argument("--processes", type=whole(1), nargs="+", default=[0, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_images(root, arguments.images)
        cases = [("check", 0, False)]
        for processes in arguments.processes:
            for cache in (False, True):
                cases += [(case, processes, cache) for case in ("images", "augmented images", "paired samples")]
        for case, processes, cache in cases:
            # A process of its own for each case: the peak of memory is the process's.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                record = pool.submit(measure, case, root, processes, cache, arguments.repeats).result()
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
