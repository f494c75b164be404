"""Upright walkers for images of whose bodies nothing is known (`meshes.source: upright`).

Each image is given one of a few Anny bodies in the middle of a walk, seen from a drawn side. Pose and side are a
guess that the image has no part in, so the generator learns where a person stands in a crop and which colours are
where, and only roughly what turning does: nothing tells it which side a photo shows. They are there so that all
stages run on any images, with no licence and no estimator. Where faithful views matter, give the projections of
estimated bodies (sources `parameters` and `folders`).
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.cache import cache_folder
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.gait import Gait, joint_rotations
from jgcl_ray.meshes.projection_folders import VIEWS
from jgcl_ray.meshes.shading import render_grey, see_reference, to_uint8
from jgcl_ray.stored_files import UNREADABLE, in_short

REVISION = 1  # of the pictures: raised when the same size gives others
STEP = 15  # degrees between two sides
SIDES = 360 // STEP

# Anny's phenotypes: gender, age, muscle, weight, height, proportions.
BUILDS = (
    (0.92, 0.70, 0.45, 0.40, 0.50, 0.5),
    (0.08, 0.70, 0.55, 0.40, 0.50, 0.5),
    (0.20, 0.85, 0.45, 0.75, 0.45, 0.5),
)
# Phase of the walk, radians, and how long the strides are; the first stands.
INSTANTS = ((0.0, 0.05), (0.0, 0.7), (math.pi / 2, 0.7), (math.pi, 0.7), (3 * math.pi / 2, 0.7))
BODIES = len(BUILDS) * len(INSTANTS)

# A person detector's box: its width over its height, and the share of its height above the head and below the feet.
_BOX, _MARGIN = 0.45, 0.03
_EYE = np.array([0.0, -9.0, 2.5])  # of the camera, metres from the feet: a body faces -y, z is up


class UprightProjections:
    """One of BODIES from one of SIDES for each image, drawn by the image's name: the same wherever that is asked.

    The eight views are that body turned by 0, 45, ... 315 degrees before the same camera.
    """

    knows_bodies = True

    def __init__(self, names: Sequence[str], height: int, width: int) -> None:
        self._height, self._width = height, width
        self._pictures = upright_pictures(height, width)
        self._drawn = np.array([_draw(name) for name in names], np.int64).reshape(-1, 2)

    def load(self, row: int, view: int) -> np.ndarray:
        """See ProjectionSource."""
        VIEWS.index(view)
        body, side = self._drawn[row]
        return np.asarray(self._pictures[body, (side + view // STEP) % SIDES])

    def coordinates(self, row: int, view: int) -> np.ndarray:
        """See ProjectionSource."""
        VIEWS.index(view)
        body, side = self._drawn[row]
        return np.asarray(upright_coordinates(self._height, self._width)[body, (side + view // STEP) % SIDES])


@lru_cache(maxsize=2)
def upright_pictures(height: int, width: int) -> np.ndarray:
    """Every body from every side, (BODIES, SIDES, H, W) uint8 grey; drawn on first use into the cache, read-only."""
    file = cache_folder() / f"upright-{height}x{width}-r{REVISION}.npy"
    return _kept(file, draw_pictures, np.dtype(np.uint8), (BODIES, SIDES, height, width))


@lru_cache(maxsize=2)
def upright_coordinates(height: int, width: int) -> np.ndarray:
    """The point of the body of reference that each of those pixels sees, (BODIES, SIDES, H, W, 3) float16."""
    file = cache_folder() / f"upright-coordinates-{height}x{width}-r{REVISION}.npy"
    return _kept(file, draw_coordinates, np.dtype(np.float16), (BODIES, SIDES, height, width, 3))


def _kept(
    file: Path, make: Callable[[int, int], np.ndarray], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray:
    if not file.is_file():
        _write(make(shape[2], shape[3]), file)
    try:
        kept: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)  # one copy for all processes
        if kept.dtype != dtype or kept.shape != shape:
            raise ValueError(f"it holds {kept.dtype} {kept.shape}")
    except UNREADABLE as error:
        raise UserError(f"{file}: damaged ({in_short(error)}); delete it, it will be drawn again") from None
    return kept


def draw_pictures(height: int, width: int) -> np.ndarray:
    """What `upright_pictures` keeps; takes seconds."""
    pictures = np.empty((BODIES, SIDES, height, width), np.uint8)
    for picture, body in zip(pictures, _upright_bodies(), strict=True):
        cameras = _cameras(body, height, width)
        picture[:] = to_uint8(render_grey(EmbreeMesh(body), cameras, height, width).grey)
    return pictures


def draw_coordinates(height: int, width: int) -> np.ndarray:
    """What `upright_coordinates` keeps; takes seconds."""
    seen = np.empty((BODIES, SIDES, height, width, 3), np.float16)
    for of_body, body in zip(seen, _upright_bodies(), strict=True):
        fragments = EmbreeMesh(body).fragments(_cameras(body, height, width), height, width)
        of_body[:] = see_reference(fragments, body, anny_body().reference)
    return seen


def _upright_bodies() -> Iterator[Mesh]:
    """Each of BODIES, its feet on z = 0."""
    body = anny_body()
    shapes = np.repeat(np.array(BUILDS, np.float32), len(INSTANTS), axis=0)
    poses = np.tile(_poses(), (len(BUILDS), 1, 1, 1))
    for vertices in body.vertices(shapes, poses):
        yield Mesh(vertices - np.array([0, 0, vertices[:, 2].min()], np.float32), body.faces)


def _poses() -> np.ndarray:
    """Rotations of Anny's joints at each of INSTANTS, (len(INSTANTS), J, 3, 3)."""
    gaits = [
        Gait(phase, stride, arms="swing", lean=0.04, head_turn=0.0, head_nod=0.1, elbow=0.3, spread=0.16)
        for phase, stride in INSTANTS
    ]
    return np.stack([joint_rotations(gait, anny_body()) for gait in gaits]).astype(np.float32)


def _cameras(body: Mesh, height: int, width: int) -> list[Camera]:
    """A camera for each side; all frame the body alike, as high as the box that holds it from every side."""
    tall = float(body.vertices[:, 2].max())
    ahead = Camera.look_at(_EYE, np.array([0, 0, tall / 2]), focal=1.0, center=(0.0, 0.0))
    around = [ahead.turned(side * STEP, np.zeros(3)) for side in range(SIDES)]
    rows = np.concatenate([camera.project(body.vertices)[:, 1] for camera in around])
    box = (rows.max() - rows.min()) / (1 - 2 * _MARGIN)  # its height, of which focal length 1 makes 1 a unit
    top = rows.min() - _MARGIN * box
    return [
        Camera(camera.rotation, camera.position, 1.0, (_BOX * box / 2, -top)).resized(
            height / box, width / (_BOX * box)
        )
        for camera in around
    ]


def _draw(name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return divmod(int.from_bytes(digest, "big") % (BODIES * SIDES), SIDES)


def _write(pictures: np.ndarray, file: Path) -> None:
    """The file is whole as soon as it bears its name: other processes may draw it at the same time."""
    begun = file.with_name(f".{file.stem}-{uuid.uuid4().hex}.npy")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.save(begun, pictures, allow_pickle=False)
            begun.replace(file)
        finally:
            begun.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {file.parent} ({error.strerror}): set JGCL_RAY_CACHE to a folder that can be written to"
        ) from None
