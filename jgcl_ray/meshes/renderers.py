"""Renderers: a mesh and cameras in, which triangle each pixel sees out; the shading is common to all of them.

Embree (CPU) builds a tree over the mesh once and traces any number of views through it. PyTorch3D (GPU) rasterises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from jgcl_ray.meshes.cameras import Camera, Mesh

BACKGROUND_GREY = 0.5  # of the projections; the generator sees it as 0


@dataclass(frozen=True)
class Fragments:
    """What each pixel of V views sees of one mesh."""

    face: np.ndarray  # (V, H, W) int32, row of Mesh.faces, -1 where the ray misses
    barycentric: np.ndarray  # (V, H, W, 3) float32, weights of the triangle's corners
    depth: np.ndarray  # (V, H, W) float32, metres along the camera's forward axis, inf where the ray misses

    @property
    def mask(self) -> np.ndarray:
        """(V, H, W) bool."""
        return self.face >= 0


@dataclass(frozen=True)
class Light:
    """A lamp far away that turns with the camera, and light from everywhere."""

    direction: tuple[float, float, float] = (-0.3, -0.5, -1.0)  # towards the lamp, in the camera's axes
    ambient: float = 0.35  # grey of a surface that faces away
    diffuse: float = 0.6  # added where the surface faces the lamp


@dataclass(frozen=True)
class Rendering:
    """Grey pictures of one mesh from V views."""

    grey: np.ndarray  # (V, H, W) float32 in [0, 1]; BACKGROUND_GREY where the ray misses
    mask: np.ndarray  # (V, H, W) bool
    depth: np.ndarray  # (V, H, W) float32, metres, inf where the ray misses


class PreparedMesh(Protocol):
    """A mesh made ready by a renderer: prepared once, seen from many views."""

    mesh: Mesh

    def fragments(self, cameras: Sequence[Camera], height: int, width: int) -> Fragments:
        """What each pixel sees, for each of V cameras."""
        ...


class EmbreeMesh:
    """A mesh in Embree's search tree; one ray a pixel."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._tree = EmbreeScene()
        TriangleMesh(self._tree, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))

    def fragments(self, cameras: Sequence[Camera], height: int, width: int) -> Fragments:
        """See PreparedMesh."""
        directions = np.stack([camera.rays(height, width) for camera in cameras])
        origins = np.stack([camera.position for camera in cameras]).astype(np.float32)
        origins = np.broadcast_to(origins[:, None, None], directions.shape)
        hits = self._tree.run(np.ascontiguousarray(origins.reshape(-1, 3)), directions.reshape(-1, 3), output=True)
        shape = (len(cameras), height, width)
        u, v = hits["u"], hits["v"]
        miss = hits["primID"] < 0
        barycentric = np.stack([1 - u - v, u, v], axis=-1)
        barycentric[miss] = 0
        return Fragments(
            face=hits["primID"].reshape(shape),
            barycentric=barycentric.reshape(*shape, 3),
            depth=np.where(miss, np.inf, hits["tfar"]).astype(np.float32).reshape(shape),
        )


def interpolate(fragments: Fragments, mesh: Mesh, attribute: np.ndarray) -> np.ndarray:
    """An attribute of the vertices (V, C) at the pixels that see the mesh: (hits, C) float32, rows as in `mask`."""
    mask = fragments.mask
    corners = attribute[mesh.faces[fragments.face[mask]]]
    return np.einsum("hk,hkc->hc", fragments.barycentric[mask], corners, dtype=np.float32)


def lambert(
    fragments: Fragments, mesh: Mesh, cameras: Sequence[Camera], light: Light, normals: np.ndarray | None = None
) -> np.ndarray:
    """Brightness of a white matt surface with smooth normals, (hits,) float32 in [0, 1], rows as in `mask`.

    `normals`: (hits, 3) in the world instead of the mesh's own.
    """
    if normals is None:
        normals = interpolate(fragments, mesh, mesh.normals)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    towards = np.asarray(light.direction) / np.linalg.norm(light.direction)
    in_world = np.stack([towards @ camera.rotation for camera in cameras]).astype(np.float32)
    view = np.nonzero(fragments.mask)[0]
    facing = np.einsum("hc,hc->h", normals, in_world[view])
    return np.clip(light.ambient + light.diffuse * np.maximum(facing, 0.0), 0.0, 1.0).astype(np.float32)


def render_grey(
    prepared: PreparedMesh, cameras: Sequence[Camera], height: int, width: int, light: Light | None = None
) -> Rendering:
    """Shaded grey pictures of the mesh before a plain background, one for each camera."""
    fragments = prepared.fragments(cameras, height, width)
    grey = np.full(fragments.face.shape, BACKGROUND_GREY, np.float32)
    grey[fragments.mask] = lambert(fragments, prepared.mesh, cameras, light or Light())
    return Rendering(grey, fragments.mask, fragments.depth)
