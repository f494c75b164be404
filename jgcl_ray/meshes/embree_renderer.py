"""The Embree renderer, for CPUs: builds a tree over a mesh once and traces any number of views through it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.shading import Fragments, Light, Rendering, Scene, render_grey


class EmbreeMesh:
    """A mesh in Embree's search tree; one ray a pixel."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._box = np.stack([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)])
        self._tree = EmbreeScene()
        TriangleMesh(self._tree, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))

    def fragments(self, cameras: Sequence[Camera], height: int, width: int) -> Fragments:
        """See PreparedMesh."""
        windows = [_window(self._box, camera, height, width) for camera in cameras]
        rays = [camera.rays(height, width, window) for camera, window in zip(cameras, windows, strict=True)]
        directions = np.concatenate([ray.reshape(-1, 3) for ray in rays])
        counts = [ray.shape[0] * ray.shape[1] for ray in rays]
        origins = np.repeat(np.stack([camera.position for camera in cameras]).astype(np.float32), counts, axis=0)
        seen = Fragments(
            face=np.full((len(cameras), height, width), -1, np.int32),
            barycentric=np.zeros((len(cameras), height, width, 3), np.float32),
            depth=np.full((len(cameras), height, width), np.inf, np.float32),
        )
        if not len(directions):
            return seen
        hits = self._tree.run(origins, directions, output=True)
        ends = np.cumsum(counts)
        for view, window in enumerate(windows):
            face, u, v, depth = (
                hits[name][ends[view] - counts[view] : ends[view]].reshape(rays[view].shape[:2])
                for name in ("primID", "u", "v", "tfar")
            )
            hit = face >= 0
            seen.face[view][window] = face
            seen.depth[view][window][hit] = depth[hit]
            seen.barycentric[view][window][hit] = np.stack([1 - u - v, u, v], axis=-1)[hit]
        return seen


class EmbreeRenderer:
    """Rays through Embree's tree, one mesh after the other, on the CPU."""

    def prepare(self, mesh: Mesh) -> EmbreeMesh:
        """See Renderer."""
        return EmbreeMesh(mesh)

    def render(self, scenes: Sequence[Scene], height: int, width: int, light: Light | None = None) -> list[Rendering]:
        """See Renderer."""
        return [render_grey(EmbreeMesh(scene.mesh), scene.cameras, height, width, light) for scene in scenes]


def _window(box: np.ndarray, camera: Camera, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns outside of which this camera cannot see anything in the box (2, 3)."""
    corners = camera.project(np.stack(np.meshgrid(*box.T), axis=-1).reshape(8, 3))
    if corners[:, 2].min() <= 1e-6:
        return slice(0, height), slice(0, width)
    low, high = np.floor(corners[:, :2].min(axis=0)) - 1, np.ceil(corners[:, :2].max(axis=0)) + 1
    (left, top), (right, bottom) = np.clip([low, high], 0, [width, height]).astype(int)
    return slice(top, bottom), slice(left, right)
