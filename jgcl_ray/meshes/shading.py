"""What a renderer gives (Fragments), and the shading that is common to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

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
