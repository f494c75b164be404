"""Each image with its person's mesh at the image's own view and turned to a drawn one (GCL 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from jgcl_ray.batches import NOVEL_VIEWS, PairedBatch
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.samplers import VIEW, Draw
from jgcl_ray.data.transforms import normalise_images, normalise_meshes
from jgcl_ray.image_files import resize
from jgcl_ray.meshes.projections import ProjectionSource

OFFICIAL_VIEWS = NOVEL_VIEWS[:-1]  # the authors' implementation never draws 315


@dataclass(frozen=True, eq=False)
class PairedSample:
    """One row as pixels."""

    image: np.ndarray  # uint8 (H, W, 3) RGB
    mesh: np.ndarray  # uint8 (H, W) grey
    mesh_novel: np.ndarray  # uint8 (H, W) grey
    view: int  # degrees
    row: int


class PairedViews:
    """Batches of images and projections.

    The view of a draw follows from (seed, epoch, row, repetition), whichever process draws it.
    flip_probability: how often image and meshes are mirrored together; the view turns round with them.
    official: views as the authors' implementation draws them, 315 never.
    """

    batch_type = PairedBatch

    def __init__(
        self,
        store: ImageStore,
        projections: ProjectionSource,
        seed: int = 0,
        flip_probability: float = 0.0,
        official: bool = False,
    ) -> None:
        self.store = store
        self.projections = projections
        self.seed = seed
        self.flip_probability = flip_probability
        self.views = OFFICIAL_VIEWS if official else NOVEL_VIEWS

    def sample(self, draw: Draw) -> PairedSample:
        """The image of a draw and its two projections, all resized to the image's size."""
        random = draw.generator(self.seed, VIEW)
        view = self.views[random.integers(len(self.views))]
        flip = random.random() < self.flip_probability
        # The mirror image of a body turned by `view` is the mirrored body turned by the opposite.
        image = self.store.load(draw.row)
        mesh, mesh_novel = self._mesh(draw.row, 0), self._mesh(draw.row, 360 - view if flip else view)
        if flip:
            image, mesh, mesh_novel = image[:, ::-1], mesh[:, ::-1], mesh_novel[:, ::-1]
        return PairedSample(image, mesh, mesh_novel, view, draw.row)

    def batch(self, draws: Sequence[Draw]) -> PairedBatch:
        """The samples of B draws, in their order."""
        samples = [self.sample(draw) for draw in draws]
        return PairedBatch(
            image=normalise_images([sample.image for sample in samples]),
            mesh=normalise_meshes([sample.mesh for sample in samples]),
            mesh_novel=normalise_meshes([sample.mesh_novel for sample in samples]),
            view=torch.tensor([sample.view for sample in samples]),
            index=torch.tensor([sample.row for sample in samples]),
        )

    def _mesh(self, row: int, view: int) -> np.ndarray:
        grey = self.projections.load(row, view)
        if grey.shape == (self.store.height, self.store.width):
            return grey
        return resize(Image.fromarray(grey), self.store.height, self.store.width)
