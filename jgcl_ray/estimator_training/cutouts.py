"""People rendered once, alone and from known sides: what pictures are pasted together from in all pre-trainings.

Kept in shards under the cache, so that an interrupted rendering goes on and the next training finds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.atomic import replacing
from jgcl_ray.cache import cache_folder
from jgcl_ray.data.walkers.figure import Figure, dress
from jgcl_ray.data.walkers.people import Appearance
from jgcl_ray.data.walkers.photographer import Shot, cut_out
from jgcl_ray.data.walkers.scenes import Scene, draw_scenes
from jgcl_ray.data.walkers.wardrobe import creased, draw_street
from jgcl_ray.estimator_training.skeleton import JOINTS
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.cameras import Camera
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.gait import ARMS, draw_gait, joint_rotations
from jgcl_ray.meshes.shading import see_reference
from jgcl_ray.meshes.walking_pose import MOVED, rotation_vectors
from jgcl_ray.places import check_folder
from jgcl_ray.ray_map import map_over_cluster
from jgcl_ray.stored_files import read_arrays

HEIGHT, WIDTH = 112, 80  # pixels of a cut-out
MARGIN = 3  # pixels around the walker
FIGURES = 60  # of a shard
POSES = 2  # of each figure, in clothes that are creased anew
SIDES = 4  # of each pose, each from its own distance and elevation
CUTOUTS = POSES * SIDES  # of each figure, one after the other
REVISION = 2  # raised when the same arguments draw other cut-outs
PATCH = (128, 64)  # pixels of a backdrop
SCENE_PATCHES = 8  # of each camera's background

_ARRAYS = {  # of Cutouts, as read_arrays has them
    "layers": f"u N 5 {HEIGHT} {WIDTH}",
    "surface": f"u N 3 {HEIGHT} {WIDTH}",
    "box": "f N 4",
    "joints": f"f N {len(JOINTS)} 2",
    "yaw": "f N",
    "pitch": "f N",
    "pose": f"f N {len(MOVED)} 3",
    "phenotypes": "f N 6",
    "backdrops": f"u P 3 {PATCH[0]} {PATCH[1]}",
}
SURFACE_STEP = 0.0075  # metres between two codes of `Cutouts.surface`
_FIRST_SEED = 7_000_000  # far from the seeds of walkers' sets, so that no measured person is trained on


@dataclass(frozen=True, eq=False)
class Cutouts:
    """N walkers before no background, and P backdrops; positions in pixels of the cut-out."""

    layers: np.ndarray  # (N, 5, HEIGHT, WIDTH) uint8: premultiplied sRGB, alpha, the bare body's mask
    surface: np.ndarray  # (N, 3, HEIGHT, WIDTH) uint8: the bare body's points (surface_places)
    box: np.ndarray  # (N, 4) float32: left, top, right, bottom of the dressed walker
    joints: np.ndarray  # (N, len(JOINTS), 2) float32, x and y; the first is the root
    yaw: np.ndarray  # (N,) float32, radians; 0 faces the camera, counter-clockwise seen from above
    pitch: np.ndarray  # (N,) float32, radians by which the camera looks down
    pose: np.ndarray  # (N, M, 3) float32, axis times angle (walking_pose.MOVED)
    phenotypes: np.ndarray  # (N, 6) float32
    backdrops: np.ndarray  # (P, 3, *PATCH) uint8 sRGB

    def __len__(self) -> int:
        return len(self.yaw)


def surface_codes(places: np.ndarray) -> np.ndarray:
    """Points of the body of reference, metres, any shape, NaN for none, as uint8; 0 is none."""
    return np.where(np.isnan(places), 0, np.clip(np.round(places / SURFACE_STEP) + 128, 1, 255)).astype(np.uint8)


def surface_places(codes: np.ndarray) -> np.ndarray:
    """What `surface_codes` coded, float32, to half a step."""
    return np.where(codes == 0, np.nan, (codes.astype(np.float32) - 128) * SURFACE_STEP).astype(np.float32)


def ensure_cutouts(figures: int, seed: int, workers: int | None = None) -> Cutouts:
    """Cut-outs of `figures` people or a few more, from the cache or rendered into it over a Ray cluster.

    Those of a figure, CUTOUTS of them, follow each other. `workers`: see ray_map.map_over_cluster.
    """
    folder = cache_folder() / f"street-cutouts-seed{seed}-r{REVISION}"
    check_folder(folder, "cache (JGCL_RAY_CACHE)")
    folder.mkdir(parents=True, exist_ok=True)
    shards = [folder / f"{number:04d}.npz" for number in range(-(-figures // FIGURES))]
    missing = [number for number, shard in enumerate(shards) if not shard.is_file()]
    map_over_cluster(partial(_render, folder, seed), missing, chunk_size=1, workers=workers, title="walkers")
    return joined([read_shard(shard) for shard in shards])


def read_shard(path: Path) -> Cutouts:
    """What `render_shard` made; UserError where the file is damaged."""
    return Cutouts(**read_arrays(path, _ARRAYS, "delete it, its walkers are rendered again"))


def joined(shards: list[Cutouts]) -> Cutouts:
    """All of them as one."""
    return Cutouts(
        **{field.name: np.concatenate([getattr(s, field.name) for s in shards]) for field in fields(Cutouts)}
    )


def render_shard(seed: int, number: int, figures: int = FIGURES) -> Cutouts:
    """`figures` people of their own, in the light of scenes of their own; a pure function."""
    rng = np.random.default_rng(np.random.SeedSequence([_FIRST_SEED + seed, number]))
    scenes = draw_scenes(rng)
    people = draw_street(rng, figures)
    rows = [row for person in people for row in _cut_outs_of(person, scenes, rng)]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Cutouts(**arrays, backdrops=np.stack([_patch(s, rng) for s in scenes for _ in range(SCENE_PATCHES)]))


def _render(folder: Path, seed: int, numbers: list[int]) -> None:
    for number in numbers:
        shard = render_shard(seed, number)
        with replacing(folder / f"{number:04d}.npz") as partial_file:
            np.savez(
                partial_file,
                allow_pickle=False,
                **{field.name: getattr(shard, field.name) for field in fields(shard)},
            )


def _cut_outs_of(person: Appearance, scenes: list[Scene], rng: np.random.Generator) -> list[dict[str, Any]]:
    return [row for _ in range(POSES) for row in _cut_outs_of_pose(creased(person, rng), scenes, rng)]


def _cut_outs_of_pose(person: Appearance, scenes: list[Scene], rng: np.random.Generator) -> list[dict[str, Any]]:
    body = anny_body()
    # Carriers carry now, but some seconds later they do not: an image does not say who is a carrier.
    gait = draw_gait(rng, person.arms if rng.random() < 0.5 else str(rng.choice(ARMS)))
    figure = dress(person, gait)
    dressed, bare = EmbreeMesh(figure.dressed), EmbreeMesh(figure.body)
    shape = np.array([person.shape], np.float32)
    heads = body.joint_positions(shape, joint_rotations(gait, body)[None])[0]
    ground = body.vertices(shape, joint_rotations(gait, body)[None])[0, :, 2].min()
    joints = heads[[body.joints[joint] for joint in JOINTS]] - np.array([0, 0, ground])
    known = {
        "pose": rotation_vectors(gait, body).astype(np.float32),
        "phenotypes": np.array(person.shape, np.float32),
    }
    found = []
    for _ in range(SIDES):
        yaw, pitch = rng.uniform(-math.pi, math.pi), math.radians(48 * rng.beta(1.2, 2.2) - 4)
        shot = _shot(figure, yaw, pitch, rng)
        layer = cut_out(dressed, figure, person, _lit(scenes[rng.integers(len(scenes))], rng), shot)
        fragments = bare.fragments([shot.camera], HEIGHT, WIDTH)
        picture = np.concatenate([layer.color, layer.alpha, fragments.mask[0][..., None]], axis=2)
        places = see_reference(fragments, bare.mesh, body.reference)[0].astype(np.float32)
        seen = shot.camera.project(figure.dressed.vertices)[:, :2]
        found.append(
            {
                **known,
                "layers": np.round(picture.transpose(2, 0, 1) * 255).astype(np.uint8),
                "surface": surface_codes(places.transpose(2, 0, 1)),
                "box": np.concatenate([seen.min(axis=0), seen.max(axis=0)]).astype(np.float32),
                "joints": shot.camera.project(joints)[:, :2].astype(np.float32),
                "yaw": np.float32(yaw),
                "pitch": np.float32(pitch),
            }
        )
    return found


def _shot(figure: Figure, yaw: float, pitch: float, rng: np.random.Generator) -> Shot:
    """The walker fills the cut-out, seen from afar or near by a camera that is hardly ever quite level."""
    distance = math.exp(rng.uniform(math.log(4.5), math.log(30)))
    middle = np.array([0, 0, figure.dressed.vertices[:, 2].max() / 2])
    eye = middle + distance * np.array([0, -math.cos(pitch), math.sin(pitch)])
    camera = Camera.look_at(eye, middle, focal=1.0, center=(0.0, 0.0))
    roll = math.radians(rng.normal(0, 1.5))
    tilt = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    camera = replace(camera, rotation=tilt @ camera.rotation).turned(math.degrees(yaw), np.zeros(3))
    seen = camera.project(figure.dressed.vertices)[:, :2]
    (left, top), (right, bottom) = seen.min(axis=0), seen.max(axis=0)
    focal = min((HEIGHT - 2 * MARGIN) / (bottom - top), (WIDTH - 2 * MARGIN) / (right - left))
    center = (WIDTH / 2 - focal * (left + right) / 2, HEIGHT / 2 - focal * (top + bottom) / 2)
    return Shot(replace(camera, focal=focal, center=center), HEIGHT, WIDTH, math.degrees(yaw))


def _lit(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene's light from another side, often hardly any lamp at all: an overcast day."""
    lamp = rng.uniform(0.1, 0.7)
    towards = (rng.uniform(-1.4, 1.4), rng.uniform(-1.6, -0.4), rng.uniform(-1.2, 0.8))
    tint = np.array([1 + rng.uniform(-0.05, 0.08), 1.0, 1 - rng.uniform(-0.05, 0.08)])
    return replace(
        scene,
        light_direction=towards,
        light_color=tuple(lamp * tint),
        ambient_color=tuple((1.05 - 0.75 * lamp) * rng.uniform(0.7, 1.05) / tint),
    )


def _patch(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A piece of a background, its lower part ground as often as not."""
    canvas_height, canvas_width, _ = scene.background.shape
    height = int(rng.integers(70, canvas_height))
    width = min(int(height * rng.uniform(0.35, 0.7)), canvas_width)
    top, left = rng.integers(canvas_height - height + 1), rng.integers(canvas_width - width + 1)
    rows = np.linspace(top, top + height - 1, PATCH[0]).astype(int)
    columns = np.linspace(left, left + width - 1, PATCH[1]).astype(int)
    return np.round(scene.background[np.ix_(rows, columns)] * 255).astype(np.uint8).transpose(2, 0, 1)
