"""Projections on one core: persons x 8 views a second with each renderer, alone and from parameters to PNG files.

Bodies of varied shape and pose (Anny), 27,420 triangles each, as large in the picture as in a detector's crop. One
JSON object a line: `seconds` is the median of a person, `persons_per_core_second` by processor time of all threads
(which a busy machine does not spoil; on a GPU `persons_per_second` by the clock counts), peak memory in MiB.

    python benchmarks/bm_projections.py [--persons 40] [--size 256x128] [--pytorch3d-persons 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.meshes.body_models import AnnyBody, anny_body
from jgcl_ray.meshes.body_parameters import read_body_parameters
from jgcl_ray.meshes.cameras import Mesh
from jgcl_ray.meshes.drawing import Bodies, DrawJob, draw
from jgcl_ray.meshes.embree_renderer import EmbreeRenderer
from jgcl_ray.meshes.projection_folders import VIEWS, FolderProjections
from jgcl_ray.meshes.shading import Renderer, Scene, to_uint8

SEED = 1
INTO_CAMERA = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # z up, facing -y -> y down, facing the camera
PYTORCH3D_BATCH = 8  # persons at once


def about(axis: str, radians: np.ndarray) -> np.ndarray:
    """Rotation matrices (persons, 3, 3) about one axis."""
    return Rotation.from_euler(axis, radians[:, None]).as_matrix()


def make_parameters(path: Path, body: AnnyBody, persons: int) -> None:
    """An npz of walkers who fill nine tenths of the picture's height."""
    random = np.random.default_rng(SEED)
    pose = np.tile(np.eye(3), (persons, body.num_joints, 1, 1))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        swing = sign * random.uniform(-0.6, 0.6, size=persons)
        for joint, share in (("upperleg01", 1.0), ("shoulder01", -0.5), ("lowerleg01", 0.5)):
            pose[:, body.joints[f"{joint}.{side}"]] = about("x", share * swing)
    pose[:, 0] = np.array(INTO_CAMERA) @ about("z", random.uniform(0, 2 * np.pi, size=persons))
    shape = random.uniform(0.25, 0.75, size=(persons, len(body.PHENOTYPES)))
    shape[:, 1] = 0.67
    vertical = body.vertices(shape, pose)[..., 1]
    low, high = vertical.min(axis=1), vertical.max(axis=1)
    camera = np.stack([1.8 / (high - low), np.zeros(persons), -(low + high) / 2], axis=1)
    names = np.array([f"{person:06d}.jpg" for person in range(persons)])
    np.savez(path, names=names, pose=pose.astype(np.float32), phenotypes=shape.astype(np.float32), camera=camera)


def measure(work: Callable[[int], object], items: Sequence[int], persons_each: int = 1) -> dict[str, Any]:
    """Times of `work` on each item, after one that does not count."""
    work(items[0])
    walls, cores = [], []
    for item in items:
        wall, core = time.perf_counter(), time.process_time()
        work(item)
        walls.append((time.perf_counter() - wall) / persons_each)
        cores.append((time.process_time() - core) / persons_each)
    wall, core = statistics.median(walls), statistics.median(cores)
    return {
        "seconds": round(wall, 5),
        "persons_per_second": round(1 / wall, 2),
        "persons_per_core_second": round(1 / core, 2),
    }


def rendering(renderer: Renderer, scenes: Sequence[Scene], height: int, width: int) -> None:
    """Grey pictures of new meshes: nothing that an earlier picture computed is used again."""
    fresh = [Scene(Mesh(scene.mesh.vertices, scene.mesh.faces), scene.cameras) for scene in scenes]
    for result in renderer.render(fresh, height, width):
        to_uint8(result.grey)


def report(name: str, size: tuple[int, int], persons: int, figures: dict[str, Any]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"name": name, "persons": persons, "views": len(VIEWS), "height": size[0], "width": size[1]}
    print(json.dumps({**line, **figures, "peak_mib": round(peak)}), flush=True)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=whole(1), default=40)
    parser.add_argument("--size", default="256x128")
    parser.add_argument(
        "--pytorch3d-persons", type=whole(0), default=1, help="on a CPU, where a person takes half a minute"
    )
    given = parser.parse_args()
    height, width = (int(length) for length in given.size.split("x"))
    size = height, width
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        parameters = Path(folder) / "parameters.npz"
        make_parameters(parameters, anny_body(), given.persons)
        bodies = Bodies.open(parameters, None)
        everyone = list(range(given.persons))
        scenes = bodies.scenes(everyone, [VIEWS] * given.persons, height, width)
        embree = EmbreeRenderer()
        report(
            "embree: mesh to grey pictures",
            size,
            given.persons,
            measure(lambda person: rendering(embree, [scenes[person]], height, width), everyone),
        )
        out = Path(folder) / "out"
        job = DrawJob(parameters, None, out, "train", height, width, "embree")
        report(
            "embree: parameters to PNG files",
            size,
            given.persons,
            measure(
                lambda person: draw(job, "embree", out / "unfinished", [(person, list(VIEWS))]),
                everyone,
            ),
        )
        names = read_body_parameters(parameters).names
        report(
            "folders: check and load 8 views",
            size,
            given.persons,
            measure(
                lambda _: [
                    source.load(row, view)
                    for source in [FolderProjections(out, names, "train", height / width)]
                    for row in everyone
                    for view in VIEWS
                ],
                range(5),
                persons_each=given.persons,
            ),
        )

    if importlib.util.find_spec("pytorch3d") is None:
        print(json.dumps({"name": "pytorch3d", "skipped": "not installed"}))
        return
    from jgcl_ray.meshes.pytorch3d_renderer import PyTorch3DRenderer

    pytorch3d = PyTorch3DRenderer()
    on_gpu = pytorch3d.device.type == "cuda"
    batch = min(PYTORCH3D_BATCH, given.persons) if on_gpu else 1
    starts = range(0, given.persons - batch + 1, batch) if on_gpu else range(given.persons)[: given.pytorch3d_persons]
    if on_gpu:
        figures = measure(
            lambda start: rendering(pytorch3d, scenes[start : start + batch], height, width),
            starts,
            persons_each=batch,
        )
    else:  # no warm-up: there is nothing to warm, and it takes half a minute
        begun = time.process_time()
        for person in starts:
            rendering(pytorch3d, [scenes[person]], height, width)
        core = (time.process_time() - begun) / len(starts)
        figures = {"seconds": round(core, 3), "persons_per_core_second": round(1 / core, 4)}
    report(f"pytorch3d on {pytorch3d.device.type}: mesh to grey pictures", size, len(starts) * batch, figures)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
