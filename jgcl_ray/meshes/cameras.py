"""Meshes and the pinhole camera that looks at them.

World: metres, right-handed; the walkers' z axis points up and an unturned body faces -y.
Camera: x to the right, y down, z forward (as in OpenCV); pixel (i, j) has its centre at x = j + 0.5, y = i + 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh. Treat the arrays as read-only: the normals are computed once."""

    vertices: np.ndarray  # (V, 3) float32, metres
    faces: np.ndarray  # (F, 3) int32, counter-clockwise seen from outside

    @cached_property
    def normals(self) -> np.ndarray:
        """Area-weighted unit normal of each vertex, (V, 3) float32."""
        corners = self.vertices[self.faces]
        face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        flat, count = self.faces.T.ravel(), len(self.vertices)
        summed = np.stack(
            [np.bincount(flat, np.tile(face_normals[:, axis], 3), minlength=count) for axis in range(3)], axis=1
        )
        return (summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera."""

    rotation: np.ndarray  # (3, 3); rows are the camera's right, down and forward axes in the world
    position: np.ndarray  # (3,) centre of projection in the world, metres
    focal: float  # pixels
    center: tuple[float, float]  # principal point (x, y), pixels
    stretch: float = 1.0  # focal length along x over that along y: pictures resized out of proportion

    @classmethod
    def look_at(
        cls,
        position: np.ndarray,
        target: np.ndarray,
        focal: float,
        center: tuple[float, float],
        up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    ) -> Camera:
        """The camera at `position` whose forward axis runs through `target`, level with respect to `up`."""
        forward = np.asarray(target, float) - np.asarray(position, float)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        return cls(np.stack([right, np.cross(forward, right), forward]), np.asarray(position, float), focal, center)

    @classmethod
    def weak_perspective(
        cls, scale: float, shift: tuple[float, float], height: int, width: int, focal: float = 5000.0
    ) -> Camera:
        """The camera of HMR and its kin: `scale` and `shift` (tx, ty) relative to half of the image's longer side.

        HMR (Kanazawa et al., CVPR 2018, 3.1) projects x -> scale * (x + shift) into a square crop whose half side is
        one. It is drawn, as there, by a pinhole of long focal length at the depth that gives the same scale.
        """
        side = max(height, width)
        depth = 2.0 * focal / (side * scale)
        return cls(np.eye(3), np.array([-shift[0], -shift[1], -depth]), focal, (width / 2.0, height / 2.0))

    def turned(self, degrees: float, pivot: np.ndarray, axis: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Camera:
        """What this camera would see were the body turned by `degrees` about `axis` through `pivot`.

        Counter-clockwise seen from the tip of the axis. The camera turns the other way: the mesh, and any search tree
        built over it, stays as it is.
        """
        x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
        angle = math.radians(-degrees)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
        pivot = np.asarray(pivot, float)
        return replace(self, rotation=self.rotation @ turn.T, position=turn @ (self.position - pivot) + pivot)

    def resized(self, vertical: float, horizontal: float) -> Camera:
        """This camera's picture enlarged by the two factors: (H, W) becomes (vertical * H, horizontal * W)."""
        return replace(
            self,
            focal=self.focal * vertical,
            center=(self.center[0] * horizontal, self.center[1] * vertical),
            stretch=self.stretch * horizontal / vertical,
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> (..., 3): x and y in pixels, depth along the forward axis in metres."""
        local = (np.asarray(points, float) - self.position) @ self.rotation.T
        depth = local[..., 2:]
        focal = self.focal * np.array([self.stretch, 1.0])
        return np.concatenate([local[..., :2] / depth * focal + np.asarray(self.center), depth], axis=-1)

    def rays(self, height: int, width: int, window: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """Direction of each pixel's ray in the world, (H, W, 3) float32, of length 1 along the forward axis.

        The distance travelled along such a ray is therefore the depth. `window`: only these rows and columns.
        """
        x = (np.arange(width)[window[1]] + 0.5 - self.center[0]) / (self.focal * self.stretch)
        y = (np.arange(height)[window[0]] + 0.5 - self.center[1]) / self.focal
        right, down, forward = self.rotation.astype(np.float32)
        along_x = x.astype(np.float32)[:, None] * right + forward
        return along_x[None] + (y.astype(np.float32)[:, None] * down)[:, None]
