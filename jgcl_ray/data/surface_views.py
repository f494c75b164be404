"""Training people seen from another side and by another camera: their photos' own pixels, moved along their bodies.

A view is a person's layer (jgcl_ray.meshes.correspondence) before a backdrop. In another camera the layer takes that
camera's colours by mean and deviation of each channel (Reinhard et al., Color Transfer between Images, 2001), and the
backdrop is that of one of its photos, filled in where the person stood. Letters: N images, V views in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jgcl_ray.batches import NOVEL_VIEWS, ViewedBatch
from jgcl_ray.config import ViewCamera
from jgcl_ray.data.image_store import SHARED_MEMORY, ImageStore, free_bytes
from jgcl_ray.data.samplers import AUGMENTATION, VIEW, VIEW_AUGMENTATION, Draw
from jgcl_ray.data.transforms import Augmentation, normalise_images
from jgcl_ray.meshes.correspondence import see_surface
from jgcl_ray.meshes.projections import ProjectionSource

SAMPLED = 256  # images of a camera that its colours are measured on
SHARE_OF_MEMORY = 0.25  # of the free shared memory that layers may be kept in


@dataclass(frozen=True, eq=False)
class PersonLayers:
    """One photo's person from all sides, and what is behind."""

    layers: np.ndarray  # uint8 (len(NOVEL_VIEWS), H, W, 4): colour times cover, cover
    backdrop: np.ndarray  # uint8 (H, W, 3): the photo, filled in where the person stood


class SurfaceLayers:
    """The layers of N training images, drawn when they are first asked for.

    keep: hold them in shared memory, (4 * 7 + 3) * H * W bytes for each image, where a quarter of what is free there
    has room for all; else they are drawn each time, and then only the views that are asked for.
    """

    def __init__(self, images: ImageStore, projections: ProjectionSource, keep: bool) -> None:
        self.images, self.projections = images, projections
        height, width, count = images.height, images.width, len(images)
        self._filled: torch.Tensor | None = None
        size = count * height * width * (4 * len(NOVEL_VIEWS) + 3)
        if keep and size <= SHARE_OF_MEMORY * free_bytes(SHARED_MEMORY):
            shape = (count, len(NOVEL_VIEWS), height, width, 4)
            self._layers = torch.empty(shape, dtype=torch.uint8).share_memory_()
            self._backdrops = torch.empty((count, height, width, 3), dtype=torch.uint8).share_memory_()
            self._filled = torch.zeros(count, dtype=torch.bool).share_memory_()

    @property
    def kept(self) -> bool:
        """Whether layers are drawn once."""
        return self._filled is not None

    def of(self, row: int, view: int) -> np.ndarray:
        """uint8 (H, W, 4): the person's colour times cover, and cover; view: a place in NOVEL_VIEWS."""
        if self._filled is None:
            return self._drawn(row, [view]).layers[view]
        self._fill(row)
        return self._layers[row, view].numpy()

    def backdrop(self, row: int) -> np.ndarray:
        """uint8 (H, W, 3): a photo, filled in where its person stood."""
        if self._filled is None:
            return self._drawn(row, []).backdrop
        self._fill(row)
        return self._backdrops[row].numpy()

    def _fill(self, row: int) -> None:
        assert self._filled is not None
        if not self._filled[row]:
            drawn = self._drawn(row, range(len(NOVEL_VIEWS)))
            # Two processes may both fill a row: alike, and the mark comes after it.
            self._layers[row].numpy()[:] = drawn.layers
            self._backdrops[row].numpy()[:] = drawn.backdrop
            self._filled[row] = True

    @torch.no_grad()
    def _drawn(self, row: int, views: Sequence[int]) -> PersonLayers:
        # One photo at a time: voxels are laid around all that are seen together, and a draw must depend on its own
        # photo alone. It takes no longer.
        photo = self.images.load(row)
        picture = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        surface = see_surface(picture, self._coordinates(row, 0), torch.zeros_like(picture))
        layers = np.zeros((len(NOVEL_VIEWS), *photo.shape[:2], 4), np.uint8)
        for view in views:
            draft = surface.draw(self._coordinates(row, NOVEL_VIEWS[view]))
            layers[view] = _bytes(torch.cat([draft.picture, draft.cover[:, None]], 1))
        return PersonLayers(layers, _bytes(surface.filled))

    def _coordinates(self, row: int, degrees: int) -> torch.Tensor:
        return torch.from_numpy(self.projections.coordinates(row, degrees))[None]


@dataclass(frozen=True, eq=False)
class CameraColours:
    """Mean and deviation of the channels of each camera's images, in uint8 levels."""

    rows: dict[int, np.ndarray]  # of each camera's images
    mean: dict[int, np.ndarray]  # (3,) float32
    deviation: dict[int, np.ndarray]  # (3,) float32, at least 1

    @classmethod
    def of(cls, images: ImageStore) -> CameraColours:
        """Of all cameras, each measured on at most SAMPLED of its images."""
        cameras = images.split.cameras
        rows = {int(camera): np.flatnonzero(cameras == camera) for camera in np.unique(cameras)}
        mean, deviation = {}, {}
        for camera, own in rows.items():
            sample = own[np.linspace(0, len(own) - 1, min(SAMPLED, len(own))).astype(int)]
            pixels = np.concatenate([images.load(int(row)).reshape(-1, 3) for row in sample])
            mean[camera] = pixels.mean(0, dtype=np.float64).astype(np.float32)
            deviation[camera] = np.maximum(pixels.std(0, dtype=np.float64), 1).astype(np.float32)
        return cls(rows, mean, deviation)

    def moved(self, premultiplied: np.ndarray, cover: np.ndarray, before: int, after: int) -> np.ndarray:
        """Colours (H, W, 3) times their cover (H, W, 1) in [0, 1], as another camera shows them."""
        gain = self.deviation[after] / self.deviation[before]
        return premultiplied * gain + cover * (self.mean[after] - self.mean[before] * gain)


class ViewedImages:
    """Batches of augmented photos, and of a view of every so many-th of them.

    All of a draw follows from (seed, epoch, row, repetition), whichever process makes it.
    """

    batch_type = ViewedBatch

    def __init__(
        self,
        layers: SurfaceLayers,
        augmentation: Augmentation,
        seed: int,
        every: int,
        camera: ViewCamera,
    ) -> None:
        """every: 2 for a view of each second photo; camera: whose backdrop and colours the views have."""
        self.images, self.layers, self.augmentation = layers.images, layers, augmentation
        self.seed, self.every, self.camera = seed, every, camera
        self.colours = CameraColours.of(layers.images)

    def batch(self, draws: Sequence[Draw]) -> ViewedBatch:
        """The photos of B draws in their order, and V = ceil(B / every) views."""
        photos = [
            self.augmentation(self.images.load(draw.row), draw.generator(self.seed, AUGMENTATION)) for draw in draws
        ]
        viewed = draws[:: self.every]
        views, cameras = self.views(viewed)
        augmented = [
            self.augmentation(view, draw.generator(self.seed, VIEW_AUGMENTATION))
            for view, draw in zip(views, viewed, strict=True)
        ]
        return ViewedBatch(
            image=normalise_images(photos),
            index=torch.tensor([draw.row for draw in draws]),
            view=normalise_images(augmented),
            view_index=torch.tensor([draw.row for draw in viewed]),
            view_camera=torch.tensor(cameras),
        )

    def views(self, draws: Sequence[Draw]) -> tuple[list[np.ndarray], list[int]]:
        """A view of each draw, uint8 (H, W, 3), and the camera that it is shown by."""
        generators = [draw.generator(self.seed, VIEW) for draw in draws]
        rows = [draw.row for draw in draws]
        sides = [int(random.integers(len(NOVEL_VIEWS))) for random in generators]
        shown_by = list(map(self._camera_of, rows, generators))
        behind = list(map(self._backdrop_of, rows, shown_by, generators))
        views = []
        for i, row in enumerate(rows):
            own, body = self._own_camera(row), self.layers.of(row, sides[i])
            if body[..., 3].any():
                view = self._composed(body, self.layers.backdrop(behind[i]), own, shown_by[i])
            else:  # a photo on which no body is known is learnt from as it is
                view, shown_by[i] = self.images.load(row), own
            views.append(view)
        return views, shown_by

    def _own_camera(self, row: int) -> int:
        return int(self.images.split.cameras[row])

    def _camera_of(self, row: int, random: np.random.Generator) -> int:
        own = self._own_camera(row)
        others = [camera for camera in self.colours.rows if camera != own]
        return own if self.camera == "own" or not others else others[int(random.integers(len(others)))]

    def _backdrop_of(self, row: int, camera: int, random: np.random.Generator) -> int:
        rows = self.colours.rows[camera]
        return row if camera == self._own_camera(row) else int(rows[random.integers(len(rows))])

    def _composed(self, layer: np.ndarray, backdrop: np.ndarray, own: int, camera: int) -> np.ndarray:
        color, cover = layer[..., :3].astype(np.float32), layer[..., 3:].astype(np.float32) / 255
        if camera != own:
            color = self.colours.moved(color, cover, own, camera)
        return np.clip(np.rint(color + (1 - cover) * backdrop), 0, 255).astype(np.uint8)


def _bytes(pictures: torch.Tensor) -> np.ndarray:
    """(1, C, H, W) in [0, 1] -> uint8 (H, W, C)."""
    return (pictures[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
