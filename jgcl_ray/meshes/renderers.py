"""Renderers: a mesh and cameras in, which triangle each pixel sees out; the shading is common to all of them.

Embree (CPU) builds a tree over the mesh once and traces any number of views through it. PyTorch3D (GPU) rasterises
many views of many meshes at once (pytorch3d_renderer.py).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.cameras import Camera, Mesh

BACKGROUND_GREY = 0.5  # of the projections; the generator sees it as 0


@dataclass(frozen=True)
class Fragments:
    """What each pixel of V views sees of one mesh."""

    face: np.ndarray  # (V, H, W) int32, row of Mesh.faces, -1 where the ray misses
    barycentric: np.ndarray  # (V, H, W, 3) float32, weights of the triangle's corners, 0 where the ray misses
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

    def towards(self, cameras: Sequence[Camera]) -> np.ndarray:
        """Unit direction towards the lamp in the world, for each of V cameras, (V, 3) float32."""
        direction = np.asarray(self.direction) / np.linalg.norm(self.direction)
        return np.stack([direction @ camera.rotation for camera in cameras]).astype(np.float32)


@dataclass(frozen=True)
class Rendering:
    """Grey pictures of one mesh from V views."""

    grey: np.ndarray  # (V, H, W) float32 in [0, 1]; BACKGROUND_GREY where the ray misses
    mask: np.ndarray  # (V, H, W) bool
    depth: np.ndarray  # (V, H, W) float32, metres, inf where the ray misses


@dataclass(frozen=True)
class Scene:
    """A mesh and the V cameras that look at it."""

    mesh: Mesh
    cameras: Sequence[Camera]


class PreparedMesh(Protocol):
    """A mesh made ready by a renderer: prepared once, seen from many views."""

    mesh: Mesh

    def fragments(self, cameras: Sequence[Camera], height: int, width: int) -> Fragments:
        """What each pixel sees, for each of V cameras."""
        ...


class Renderer(Protocol):
    """Something that draws meshes."""

    def prepare(self, mesh: Mesh) -> PreparedMesh:
        """The mesh made ready to be seen from many views."""
        ...

    def render(self, scenes: Sequence[Scene], height: int, width: int, light: Light | None = None) -> list[Rendering]:
        """Shaded grey pictures of every scene before a plain background."""
        ...


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


def shade(normals: Any, towards: Any, light: Light) -> Any:
    """Brightness in [0, 1] of a white matt surface (Lambert).

    `normals` (hits, 3) of any length, `towards` (hits, 3) unit directions to the lamp -> (hits,); NumPy arrays and
    PyTorch tensors alike.
    """
    (x, y, z), (to_x, to_y, to_z) = normals.T, towards.T
    facing = (x * to_x + y * to_y + z * to_z) / ((x * x + y * y + z * z) ** 0.5).clip(min=1e-12)
    return (light.ambient + light.diffuse * facing.clip(min=0.0)).clip(0.0, 1.0)


def interpolate(fragments: Fragments, mesh: Mesh, attribute: np.ndarray) -> np.ndarray:
    """An attribute of the vertices (V, C) at the pixels that see the mesh: (hits, C) float32, rows as in `mask`."""
    mask = fragments.mask
    corners = attribute[mesh.faces[fragments.face[mask]]]
    return np.einsum("hk,hkc->hc", fragments.barycentric[mask], corners, dtype=np.float32)


def see_reference(fragments: Fragments, mesh: Mesh, reference: np.ndarray) -> np.ndarray:
    """Which point of the body of reference each pixel sees: (V, H, W, 3) float16, metres, NaN where it sees none.

    `reference` (vertices, 3): BodyModel.reference. float16 holds it to half a millimetre.
    """
    seen = np.full((*fragments.face.shape, 3), np.nan, np.float16)
    seen[fragments.mask] = interpolate(fragments, mesh, reference)
    return seen


def lambert(
    fragments: Fragments, mesh: Mesh, cameras: Sequence[Camera], light: Light, normals: np.ndarray | None = None
) -> np.ndarray:
    """Brightness of a white matt surface with smooth normals, (hits,) float32 in [0, 1], rows as in `mask`.

    `normals`: (hits, 3) in the world instead of the mesh's own.
    """
    if normals is None:
        normals = interpolate(fragments, mesh, mesh.normals)
    view = np.nonzero(fragments.mask)[0]
    brightness: np.ndarray = shade(normals, light.towards(cameras)[view], light).astype(np.float32)
    return brightness


def render_grey(
    prepared: PreparedMesh, cameras: Sequence[Camera], height: int, width: int, light: Light | None = None
) -> Rendering:
    """Shaded grey pictures of the mesh before a plain background, one for each camera."""
    fragments = prepared.fragments(cameras, height, width)
    grey = np.full(fragments.face.shape, BACKGROUND_GREY, np.float32)
    grey[fragments.mask] = lambert(fragments, prepared.mesh, cameras, light or Light())
    return Rendering(grey, fragments.mask, fragments.depth)


def to_uint8(grey: np.ndarray) -> np.ndarray:
    """Grey in [0, 1] as it is written to files and given to the loader."""
    return np.rint(grey * 255.0).astype(np.uint8)


def _pytorch3d() -> Renderer:
    from jgcl_ray.meshes.pytorch3d_renderer import PyTorch3DRenderer

    return PyTorch3DRenderer()


RENDERERS: dict[str, Callable[[], Renderer]] = {"embree": EmbreeRenderer, "pytorch3d": _pytorch3d}


def resolve_renderer(name: str) -> str:
    """`auto` becomes `pytorch3d` where there is a GPU and it is installed, else `embree`; other names stay."""
    if name != "auto":
        return name
    with_gpu = torch.cuda.is_available() and importlib.util.find_spec("pytorch3d") is not None
    return "pytorch3d" if with_gpu else "embree"


def open_renderer(name: str = "auto") -> Renderer:
    """The renderer of this name: `embree`, `pytorch3d`, or `auto` (resolve_renderer)."""
    if name != "auto" and name not in RENDERERS:
        raise UserError(f"no renderer {name!r}: known are auto, {', '.join(RENDERERS)}")
    return RENDERERS[resolve_renderer(name)]()


def _window(box: np.ndarray, camera: Camera, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns outside of which this camera cannot see anything in the box (2, 3)."""
    corners = camera.project(np.stack(np.meshgrid(*box.T), axis=-1).reshape(8, 3))
    if corners[:, 2].min() <= 1e-6:
        return slice(0, height), slice(0, width)
    low, high = np.floor(corners[:, :2].min(axis=0)) - 1, np.ceil(corners[:, :2].max(axis=0)) + 1
    (left, top), (right, bottom) = np.clip([low, high], 0, [width, height]).astype(int)
    return slice(top, bottom), slice(left, right)
