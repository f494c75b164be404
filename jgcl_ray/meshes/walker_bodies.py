"""The walkers' true bodies: which point of the body each pixel of a projection sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.gait import ARMS, Gait, joint_rotations
from jgcl_ray.meshes.projection_folders import TRUTH, VIEWS, FolderProjections, SplitName
from jgcl_ray.meshes.shading import see_reference
from jgcl_ray.meshes.walker_files import read_height, read_views

_PIVOT = np.zeros(3)  # the walkers turn about the vertical through the world's origin


@dataclass(frozen=True, eq=False)
class WalkersTruth:
    """Bodies and cameras of N photos, from the walkers' views.npz."""

    rows: dict[str, int]  # file name of a photo -> row
    shape: np.ndarray  # (N, 6) phenotypes
    gait: np.ndarray  # (N, 8): phase, stride, row of ARMS, lean, head_turn, head_nod, elbow, spread
    camera: dict[str, np.ndarray]  # fields of Camera, (N, ...), for pictures of `height` x `width`
    height: int
    width: int

    def body(self, row: int) -> Mesh:
        """The bare body, feet on z = 0."""
        phase, stride, arms, *others = self.gait[row].astype(float).tolist()
        body = anny_body()
        pose = joint_rotations(Gait(phase, stride, ARMS[int(arms)], *others), body)
        vertices = body.vertices(self.shape[row : row + 1], pose[None].astype(np.float32))[0]
        return Mesh(vertices - np.array([0.0, 0.0, vertices[:, 2].min()], np.float32), body.faces)

    def camera_of(self, row: int, height: int, width: int) -> Camera:
        """The camera of the photo, resized to height x width."""
        of_row: dict[str, Any] = {name: values[row].astype(float) for name, values in self.camera.items()}
        camera = Camera(
            of_row["rotation"],
            of_row["position"],
            float(of_row["focal"]),
            (float(of_row["center"][0]), float(of_row["center"][1])),
            float(of_row["stretch"]),
        )
        return camera.resized(height / self.height, width / self.width)


class WalkersProjections(FolderProjections):
    """The walkers' pictures in folders, and coordinates by their true bodies, drawn when they are asked for."""

    knows_bodies = True

    def __init__(
        self, root: Path, names: Sequence[str], split: SplitName, height: int, width: int, images: Path | None = None
    ) -> None:
        super().__init__(root, names, split, height / width, images)
        self._file = root.parent / TRUTH  # read when coordinates are first asked for: pictures do not need it
        self._bare_names = [PurePosixPath(name).name for name in names]
        self._height, self._width = height, width
        self._last: tuple[int, EmbreeMesh] | None = None

    def coordinates(self, row: int, view: int) -> np.ndarray:
        """See ProjectionSource. The last body stays ready."""
        VIEWS.index(view)
        truth = read_truth(self._file)
        of = truth.rows.get(self._bare_names[row])
        if of is None:
            raise UserError(f"{self._file} lists nothing of {self._bare_names[row]}: render the walkers again")
        if self._last is None or self._last[0] != row:
            self._last = row, EmbreeMesh(truth.body(of))
        _, prepared = self._last
        camera = truth.camera_of(of, self._height, self._width).turned(view, _PIVOT)
        fragments = prepared.fragments([camera], self._height, self._width)
        return see_reference(fragments, prepared.mesh, anny_body().reference)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}  # a search tree does not travel to another process


@lru_cache(maxsize=2)
def read_truth(file: Path) -> WalkersTruth:
    """The bodies in a views.npz; UserError where it, or walkers.json beside it, cannot be read."""
    cameras = ("rotation", "position", "focal", "center", "stretch")
    arrays, height = read_views(file, "shape", "gait", *cameras), read_height(file.parent)
    rows = {PurePosixPath(name).name: row for row, name in enumerate(arrays["names"].tolist())}
    camera = {key: arrays[key] for key in cameras}
    return WalkersTruth(rows, arrays["shape"], arrays["gait"], camera, height, height // 2)
