"""Draws the projections of per-image body parameters: one on demand, or all ahead into folders."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jgcl_ray.atomic import room_for
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_kinds import BODY_KINDS
from jgcl_ray.meshes.body_models import BodyModel
from jgcl_ray.meshes.body_parameters import BodyParameters, read_body_parameters
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.projection_folders import VIEWS, SplitName, listing, view_folder
from jgcl_ray.meshes.renderers import open_renderer, resolve_renderer
from jgcl_ray.meshes.shading import PreparedMesh, Renderer, Scene, render_grey, see_reference, to_uint8
from jgcl_ray.ray_map import map_over_cluster

UP = (0.0, -1.0, 0.0)  # the image's vertical axis in the camera's axes


@dataclass(frozen=True)
class Bodies:
    """Body parameters and the body model that they are for."""

    parameters: BodyParameters
    model: BodyModel

    @classmethod
    def open(cls, parameters: Path, smpl: Path | None, light: bool = False) -> Bodies:
        """Both from their files; UserError where they do not belong together. `light`: few triangles will do."""
        read = read_body_parameters(parameters)
        kind, count = BODY_KINDS[read.body], read.shape.shape[1]
        if not kind.needs_file and smpl is not None:
            raise UserError(
                f"{parameters} holds {kind.shape_key}, which are {kind.title}'s: leave the SMPL file {smpl} out"
            )
        if kind.needs_file and smpl is None:
            raise UserError(
                f"{parameters} holds {kind.shape_key}: give the {kind.title} file that they are for (meshes.smpl, or "
                "--smpl)"
            )
        model = kind.load(smpl, light)
        if count > model.num_shapes:
            raise UserError(f"{parameters} holds {count} {kind.shape_key}, {smpl} has {model.num_shapes}")
        return cls(read, model)

    def scenes(self, rows: Sequence[int], views: Sequence[Sequence[int]], height: int, width: int) -> list[Scene]:
        """The body of each row, and the image's camera turned about the vertical through the root."""
        posed = self.model.posed(self.parameters.shape[rows], self.parameters.pose[rows])
        cameras = [self.parameters.camera_of(row, height, width) for row in rows]
        axes = [UP] * len(rows) if self.parameters.up is None else self.parameters.up[rows]
        return [
            Scene(Mesh(vertices, self.model.faces), [camera.turned(view, root, tuple(up)) for view in turns])
            for vertices, root, camera, turns, up in zip(
                posed.vertices, posed.root, cameras, views, axes, strict=True
            )
        ]


class ParameterProjections:
    """Projections of per-image body parameters, drawn when they are asked for.

    `renderer` auto is Embree here: one body at a time, in loader processes that must not open the GPU. `light`: a
    body of fewer triangles (light_body.py), drawn several times faster.
    """

    def __init__(
        self,
        parameters: Path,
        smpl: Path | None,
        names: Sequence[str],
        height: int,
        width: int,
        renderer: str = "auto",
        light: bool = False,
    ) -> None:
        self._bodies = Bodies.open(parameters, smpl, light)
        self._rows = self._bodies.parameters.rows_of(names, parameters)
        self._renderer = open_renderer("embree" if renderer == "auto" else renderer)
        self._height, self._width = height, width
        self._last: tuple[int, PreparedMesh, list[Camera]] | None = None

    knows_bodies = True

    def load(self, row: int, view: int) -> np.ndarray:
        """See ProjectionSource. The last body stays ready: its other views come without building its tree again."""
        prepared, camera = self._ready(row, view)
        return to_uint8(render_grey(prepared, [camera], self._height, self._width).grey[0])

    def coordinates(self, row: int, view: int) -> np.ndarray:
        """See ProjectionSource."""
        prepared, camera = self._ready(row, view)
        fragments = prepared.fragments([camera], self._height, self._width)
        return see_reference(fragments, prepared.mesh, self._bodies.model.reference)[0]

    def _ready(self, row: int, view: int) -> tuple[PreparedMesh, Camera]:
        column = VIEWS.index(view)
        if self._last is None or self._last[0] != row:
            (scene,) = self._bodies.scenes([self._rows[row]], [VIEWS], self._height, self._width)
            self._last = row, self._renderer.prepare(scene.mesh), list(scene.cameras)
        _, prepared, cameras = self._last
        return prepared, cameras[column]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}  # a search tree does not travel to another process


@dataclass(frozen=True)
class DrawJob:
    """What to draw ahead, and where to."""

    parameters: Path
    smpl: Path | None
    out: Path
    split: SplitName
    height: int
    width: int
    renderer: str

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What the pictures follow from: kept beside them, so that pictures of two origins never mix."""
        return {
            "parameters": _digest(self.parameters),
            "smpl": self.smpl and _digest(self.smpl),
            "height": self.height,
            "width": self.width,
        }

    def path(self, picture: str, view: int) -> Path:
        """Where the projection of an image goes; picture: of BodyParameters.pictures."""
        return view_folder(self.out, self.split, view) / picture


def draw_ahead(job: DrawJob, workers: int | None = None) -> tuple[int, int]:
    """Draw every projection that is not there yet, over a Ray cluster; how many were drawn, and how many kept.

    A picture appears under its name only when it is whole, so whatever is there is kept.
    """
    bodies = Bodies.open(job.parameters, job.smpl)
    _claim(job)
    folders = {(view, str(Path(name).parent)) for name in bodies.parameters.names for view in VIEWS}
    there = {(view, parent): listing(view_folder(job.out, job.split, view) / parent) for view, parent in folders}
    absent = [
        [view for view in VIEWS if Path(picture).name not in there[view, str(Path(picture).parent)]]
        for picture in bodies.parameters.pictures
    ]
    rows = [row for row, views in enumerate(absent) if views]
    renderer = resolve_renderer(job.renderer)
    unfinished = job.out / job.split / f".unfinished-{uuid.uuid4().hex}"
    try:
        drawn = map_over_cluster(
            partial(draw, job, renderer, unfinished),
            [(row, absent[row]) for row in rows],
            workers=workers,
            use_gpus=renderer == "pytorch3d",
            title="projections",
        )
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sum(drawn), len(VIEWS) * len(absent) - sum(drawn)


def draw(job: DrawJob, renderer: str, unfinished: Path, chunk: list[tuple[int, list[int]]]) -> int:
    """Draw the named views of the named rows; how many pictures were written."""
    bodies = Bodies.open(job.parameters, job.smpl)
    rows, views = [row for row, _ in chunk], [turns for _, turns in chunk]
    scenes = bodies.scenes(rows, views, job.height, job.width)
    for row, turns, rendering in zip(
        rows, views, _renderer(renderer).render(scenes, job.height, job.width), strict=True
    ):
        for view, grey in zip(turns, to_uint8(rendering.grey), strict=True):
            write_atomically(grey, job.path(bodies.parameters.pictures[row], view), unfinished)
    return sum(len(turns) for turns in views)


def write_atomically(grey: np.ndarray, path: Path, unfinished: Path) -> None:
    """A PNG that is whole as soon as it bears its name; `unfinished` is a folder of the same file system."""
    unfinished.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = unfinished / f"{uuid.uuid4().hex}.png"
    with room_for(path):
        Image.fromarray(grey).save(begun, compress_level=1)
        begun.replace(path)


@lru_cache(maxsize=1)
def _renderer(name: str) -> Renderer:
    return open_renderer(name)


def _claim(job: DrawJob) -> None:
    """Note what the pictures follow from; UserError where those that are there follow from something else."""
    note = job.out / job.split / "drawn_from.json"
    text = json.dumps(job.origin, indent=1)
    if note.is_file() and note.read_bytes() != text.encode():
        raise UserError(
            f"{note.parent} holds projections of other parameters, another body or another size (drawn_from.json): "
            "give another --out, or delete them"
        )
    folders = [] if note.is_file() else [view_folder(job.out, job.split, view) for view in VIEWS]
    if there := next((path for folder in folders for path in folder.rglob("*.png")), None):
        raise UserError(f"{there}: a picture that this command did not draw; give another --out, or delete it")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write to {note.parent}: {error.strerror}; give another --out") from None


@lru_cache(maxsize=4)
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
