"""The mesh estimator on walkers that it was not trained on: how far its answers are from the truth, and how fast.

One JSON object a line: `quality` of all photos, by the height of the crop, and of all photos shrunk; `true
parameters` in place of estimated ones, the best that a weak-perspective camera and the light body can reach; `speed`
over processes of one thread each, from image files to one drawn view, by the clock and by processor time, which a
busy machine spoils less. Errors in degrees; `front_back`: share of photos whose yaw is wrong by more than 90 degrees;
`silhouette`: mean intersection over union of the drawn body and the true one's projection, `silhouette_turned` the
same after a quarter turn; peak memory in MiB.

    python benchmarks/bm_estimator.py [--preset demo] [--seed 1] [--weights FILE] [--processes 2] [--images 1000]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import WalkersConfig
from jgcl_ray.data.walkers import ensure_rendered
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.estimator_training.truth import read_truth
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.body_parameters import BodyParameters, read_body_parameters, write_body_parameters
from jgcl_ray.meshes.drawing import Bodies, ParameterProjections
from jgcl_ray.meshes.embree_renderer import EmbreeRenderer
from jgcl_ray.meshes.estimator import UNSURE_ABOVE, BodyEstimates, BodyEstimator
from jgcl_ray.meshes.projection_folders import view_folder

HEIGHT, WIDTH = 128, 64  # of the drawn projections
BACKGROUND = 128
CHUNK = 32  # bodies that are posed at once


def overlaps(root: Path, parameters: BodyParameters, view: int) -> np.ndarray:
    """Intersection over union with the walkers' own projections, (N,)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bodies.npz"
        write_body_parameters(parameters, file)
        read_body_parameters.cache_clear()
        drawn = ParameterProjections(file, None, parameters.names, HEIGHT, WIDTH, light=True)
        found = np.empty(len(parameters.names))
        for row, name in enumerate(parameters.names):
            split = "train" if name.startswith("bounding_box_train") else "test"
            true = Image.open(view_folder(root / "meshes", split, view) / f"{Path(name).stem}.png")
            body = np.asarray(true.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)) != BACKGROUND
            mine = drawn.load(row, view) != BACKGROUND
            found[row] = (body & mine).sum() / (body | mine).sum()
    return found


def quality(root: Path, found: BodyEstimates, truth: BodyEstimates, heights: np.ndarray) -> list[dict[str, Any]]:
    """A line for all photos, then one for each range of heights."""
    error = np.abs((found.yaw - truth.yaw + 180) % 360 - 180)
    silhouette, turned = (overlaps(root, found.to_parameters(), view) for view in (0, 90))
    sure = ~found.unsure()
    lines = []
    for low, high in ((0, 1000), (0, 80), (80, 110), (110, 140), (140, 1000)):
        chosen = (heights >= low) & (heights < high)
        if not chosen.any():
            continue
        lines.append(
            {
                "crop_height": "all" if (low, high) == (0, 1000) else f"{low}-{min(high, int(heights.max()) + 1)}",
                "images": int(chosen.sum()),
                "yaw_error_median": round(float(np.median(error[chosen])), 2),
                "yaw_error_mean": round(float(error[chosen].mean()), 2),
                "front_back": round(float((error[chosen] > 90).mean()), 4),
                "unsure": round(float((~sure[chosen]).mean()), 4),
                "front_back_of_sure": round(float((error[chosen & sure] > 90).mean()), 4),
                "silhouette": round(float(silhouette[chosen].mean()), 4),
                "silhouette_turned": round(float(turned[chosen].mean()), 4),
            }
        )
    return lines


def shrunk(root: Path, names: Sequence[str], height: int, out: Path) -> list[str]:
    """The photos as a camera farther away would have taken them: `height` pixels, stored as JPEG."""
    written = []
    for name in names:
        with Image.open(root / name) as image:
            small = image.resize((round(image.width * height / image.height), height), Image.Resampling.BICUBIC)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(out / name, quality=80)
        written.append(name)
    return written


def work(job: tuple[Path, list[str], Path | None]) -> tuple[float, float]:
    """Estimate and draw one view of each; seconds by the clock and of the processor, a start not counted."""
    root, names, weights = job
    torch.set_num_threads(1)
    estimator = BodyEstimator(weights)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bodies.npz"

        def estimate_and_draw(chosen: list[str]) -> None:
            write_body_parameters(estimator.estimate(root, chosen).to_parameters(), file)
            read_body_parameters.cache_clear()
            bodies = Bodies.open(file, None, light=True)
            for start in range(0, len(chosen), CHUNK):
                rows = list(range(start, min(start + CHUNK, len(chosen))))
                EmbreeRenderer().render(bodies.scenes(rows, [[0]] * len(rows), HEIGHT, WIDTH), HEIGHT, WIDTH)

        estimate_and_draw(names[:16])
        start, core = time.perf_counter(), time.process_time()
        estimate_and_draw(names)
        return time.perf_counter() - start, time.process_time() - core


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["tiny", "demo", "full"], default="demo")  # projections of every photo
    parser.add_argument("--seed", type=whole(0), default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--processes", type=whole(1), default=2)
    parser.add_argument("--images", type=whole(1), default=1000, help="for the speed")
    given = parser.parse_args()
    root = ensure_rendered(WalkersConfig(preset=given.preset, seed=given.seed))
    truth = read_truth(root, anny_body())
    estimator = BodyEstimator(given.weights)
    said = {"bench": "estimator", "set": f"walkers {given.preset}, seed {given.seed}"}
    found = estimator.estimate(root, truth.names)
    for line in quality(root, found, truth, found.size[:, 0]):
        print(json.dumps({**said, "what": "quality", "unsure_above": UNSURE_ABOVE, **line}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for height in (50, 30):
            names = shrunk(root, truth.names, height, Path(folder))
            small = estimator.estimate(Path(folder), names)
            line = quality(root, small, truth, small.size[:, 0])[0]
            print(json.dumps({**said, "what": "quality", **line, "crop_height": f"shrunk to {height}"}), flush=True)
    best = [float(overlaps(root, truth.to_parameters(), view).mean()) for view in (0, 90)]
    print(json.dumps({**said, "what": "true parameters", "silhouette": round(best[0], 4),
                      "silhouette_turned": round(best[1], 4)}), flush=True)  # fmt: skip

    names = list(np.resize(np.array(truth.names), given.images))
    names = [str(name) for name in names]
    shares = [(root, names[part :: given.processes], given.weights) for part in range(given.processes)]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        taken = pool.map(work, shares, chunksize=1)
    seconds, cores = max(wall for wall, _ in taken), sum(core for _, core in taken)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {
                **said,
                "what": "speed",
                "images": len(names),
                "processes": given.processes,
                "size": f"{HEIGHT}x{WIDTH}",
                "seconds": round(seconds, 3),
                "images_per_second": round(len(names) / seconds, 1),
                "images_per_core_second": round(len(names) / cores, 1),
                "peak_mib": round(peak / 1024),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
