"""Images alone, as the warm-up, feature extraction and evaluation take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jgcl_ray.batches import ImageBatch
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.samplers import AUGMENTATION, Draw
from jgcl_ray.data.transforms import Augmentation, normalise_images


class Images:
    """Batches of images, augmented or as they are.

    The augmentation of a draw follows from (seed, epoch, row, repetition), whichever process makes it.
    """

    batch_type = ImageBatch

    def __init__(self, store: ImageStore, augmentation: Augmentation | None = None, seed: int = 0) -> None:
        self.store = store
        self.augmentation = augmentation
        self.seed = seed

    def batch(self, draws: Sequence[Draw]) -> ImageBatch:
        """The images of B draws, in their order."""
        images = [self.store.load(draw.row) for draw in draws]
        if self.augmentation is not None:
            generators = [draw.generator(self.seed, AUGMENTATION) for draw in draws]
            images = [self.augmentation(*pair) for pair in zip(images, generators, strict=True)]
        return ImageBatch(image=normalise_images(images), index=torch.tensor([draw.row for draw in draws]))
