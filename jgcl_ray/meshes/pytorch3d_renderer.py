"""The PyTorch3D renderer: all views of many meshes rasterised at once, on a GPU where there is one.

The only file that imports pytorch3d. The cameras are the project's own: vertices are projected here and handed to the
rasteriser in its normalised coordinates (x to the left, y up, the shorter side of the picture from -1 to 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.shading import BACKGROUND_GREY, Fragments, Light, Rendering, Scene, shade

try:
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes
except ImportError as error:
    raise UserError(
        f"PyTorch3D cannot be imported ({error}): it has no wheel for Linux on PyPI; clone "
        "https://github.com/facebookresearch/pytorch3d and there run `pip install iopath fvcore` and "
        "`pip install --no-build-isolation --no-deps .`, or choose meshes.renderer=embree"
    ) from error

NEAR = 0.01  # metres; triangles nearer to a camera are cut off there
SCENES_AT_ONCE = 8  # of eight views each: they fill a GPU, and the rasteriser's bins stay below 1 GB


@dataclass(frozen=True)
class _Raster:
    """Fragments of one scene, on the renderer's device."""

    face: torch.Tensor  # (V, H, W) int64, row of Mesh.faces, -1 where nothing is seen
    barycentric: torch.Tensor  # (V, H, W, 3) float32
    depth: torch.Tensor  # (V, H, W) float32, inf where nothing is seen


class PyTorch3DRenderer:
    """Rasterises on `device`: a CUDA device by default where there is one."""

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def prepare(self, mesh: Mesh) -> PyTorch3DMesh:
        """See Renderer."""
        return PyTorch3DMesh(mesh, self)

    @torch.no_grad()
    def render(self, scenes: Sequence[Scene], height: int, width: int, light: Light | None = None) -> list[Rendering]:
        """See Renderer. SCENES_AT_ONCE are rasterised together."""
        renderings: list[Rendering] = []
        for start in range(0, len(scenes), SCENES_AT_ONCE):
            batch = scenes[start : start + SCENES_AT_ONCE]
            rasters = self.rasterize(batch, height, width)
            renderings += [self._shade(*pair, light or Light()) for pair in zip(batch, rasters, strict=True)]
        return renderings

    def rasterize(self, scenes: Sequence[Scene], height: int, width: int) -> list[_Raster]:
        """What each pixel of each view sees, scene by scene."""
        vertices: list[torch.Tensor] = []
        faces: list[torch.Tensor] = []
        for scene in scenes:
            vertices += self._normalised(scene, height, width).unbind()
            faces += [torch.as_tensor(scene.mesh.faces, dtype=torch.int64, device=self.device)] * len(scene.cameras)
        meshes = Meshes(vertices, faces)
        face, depth, barycentric, _ = rasterize_meshes(
            meshes,
            image_size=(height, width),
            blur_radius=0.0,
            faces_per_pixel=1,
            # By default a bin drops triangles above 10,000, and a small head holds as many.
            max_faces_per_bin=max(len(view) for view in faces),
            perspective_correct=True,
            z_clip_value=NEAR if float(meshes.verts_packed()[:, 2].min()) < NEAR else None,
        )
        first = meshes.mesh_to_faces_packed_first_idx()[:, None, None]
        face = torch.where(face[..., 0] >= 0, face[..., 0] - first, -1)
        depth = torch.where(face >= 0, depth[..., 0], torch.inf)
        barycentric = torch.where(face[..., None] >= 0, barycentric[..., 0, :], 0.0)
        views = [len(scene.cameras) for scene in scenes]
        split = zip(face.split(views), barycentric.split(views), depth.split(views), strict=True)
        return [_Raster(*parts) for parts in split]

    def _normalised(self, scene: Scene, height: int, width: int) -> torch.Tensor:
        """Vertices as the rasteriser wants them, for each camera: (V, vertices, 3) float32."""
        cameras = scene.cameras
        rotation = self._tensor(np.stack([camera.rotation for camera in cameras]))
        position = self._tensor(np.stack([camera.position for camera in cameras]))
        focal = self._tensor(np.array([[camera.focal * camera.stretch, camera.focal] for camera in cameras]))
        offset = self._tensor(np.array([camera.center for camera in cameras]) - [width / 2, height / 2])
        relative = self._tensor(scene.mesh.vertices) - position[:, None]
        # Not a matrix product: those may be set to TF32, whose error at a weak-perspective distance is centimetres.
        local = (relative[:, :, None] * rotation[:, None]).sum(dim=-1)
        depth = local[..., 2:]
        away_from_zero = torch.where(depth.abs() < 1e-6, 1e-6, depth)
        pixels = local[..., :2] / away_from_zero * focal[:, None] + offset[:, None]
        return torch.cat([pixels * (-2.0 / min(height, width)), away_from_zero], dim=-1)

    def _shade(self, scene: Scene, raster: _Raster, light: Light) -> Rendering:
        mask = raster.face >= 0
        faces = torch.as_tensor(scene.mesh.faces, dtype=torch.int64, device=self.device)
        corners = self._tensor(scene.mesh.normals)[faces[raster.face[mask]]]
        normals = (raster.barycentric[mask][..., None] * corners).sum(dim=1)
        grey = torch.full(raster.face.shape, BACKGROUND_GREY, device=self.device)
        towards = self._tensor(light.towards(scene.cameras))
        grey[mask] = shade(normals, towards[mask.nonzero()[:, 0]], light)
        return Rendering(grey.cpu().numpy(), mask.cpu().numpy(), raster.depth.cpu().numpy())

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array, np.float32), device=self.device)


class PyTorch3DMesh:
    """One mesh on the renderer's device."""

    def __init__(self, mesh: Mesh, renderer: PyTorch3DRenderer) -> None:
        self.mesh = mesh
        self._renderer = renderer

    @torch.no_grad()
    def fragments(self, cameras: Sequence[Camera], height: int, width: int) -> Fragments:
        """See PreparedMesh."""
        (raster,) = self._renderer.rasterize([Scene(self.mesh, cameras)], height, width)
        return Fragments(
            face=raster.face.to(torch.int32).cpu().numpy(),
            barycentric=raster.barycentric.cpu().numpy(),
            depth=raster.depth.cpu().numpy(),
        )
