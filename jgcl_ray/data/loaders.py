"""Loader processes around the three uses of images: warm-up, paired views, extraction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from jgcl_ray.batches import ImageBatch, PairedBatch, ViewedBatch
from jgcl_ray.config import ClusterContrastConfig, DataConfig
from jgcl_ray.data.datasets import Split
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.images import Images
from jgcl_ray.data.paired_views import PairedViews
from jgcl_ray.data.samplers import Draw, DrawBatches, Shard, sequential_batches, shard_rows
from jgcl_ray.data.surface_views import SurfaceLayers, ViewedImages
from jgcl_ray.data.transforms import Augmentation
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.projections import ProjectionSource

Batch = TypeVar("Batch", bound=ImageBatch | PairedBatch)


class BatchSource(Protocol[Batch]):
    """What makes a batch from draws: a pure function of them."""

    batch_type: type[Batch]

    def batch(self, draws: Sequence[Draw]) -> Batch: ...


class Loader(Generic[Batch]):
    """Batches made by loader processes, which stay from epoch to epoch.

    The order and the contents of the batches depend on the draws alone, not on how many processes there are.
    """

    def __init__(self, source: BatchSource[Batch], processes: int) -> None:
        self.source = source
        self._epoch = _Epoch()
        self._loader = DataLoader(
            _WorkerSide(source),
            batch_sampler=self._epoch,
            collate_fn=_as_it_is,
            num_workers=processes,
            persistent_workers=processes > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else each epoch takes a number from torch's own random state
        )

    def batches(self, draws: DrawBatches) -> Iterator[Batch]:
        """The batches of one epoch, one for each list of draws. A UserError of a loader process is raised here."""
        self._epoch.draws = draws
        for fields in self._loader:
            if isinstance(fields, UserError):
                raise fields
            yield self.source.batch_type(**fields)


def open_images(split: Split, data: DataConfig) -> ImageStore:
    """The images of a split, for all loaders over it: with `data.cache` they are kept once, not once per loader."""
    return ImageStore(split, data.height, data.width, keep=data.cache)


def warm_up_loader(images: ImageStore, data: DataConfig, seed: int) -> Loader[ImageBatch]:
    """Augmented training images (stage 1); give `batches` a worker's share of `identity_batches`."""
    augmentation = Augmentation(data.flip_probability, data.crop_padding, data.erasing_probability)
    return Loader(Images(images, augmentation, seed), data.loader_workers)


def paired_loader(
    images: ImageStore,
    projections: ProjectionSource,
    data: DataConfig,
    seed: int,
    flip_probability: float = 0.0,
    official: bool = False,
) -> Loader[PairedBatch]:
    """Images with projections (stages 2 and 3); give `batches` a worker's share of `shuffled_batches`."""
    return Loader(PairedViews(images, projections, seed, flip_probability, official), data.loader_workers)


def viewed_loader(
    images: ImageStore, projections: ProjectionSource, data: DataConfig, contrast: ClusterContrastConfig, seed: int
) -> Loader[ViewedBatch]:
    """Augmented training images and views of some of them; give `batches` a worker's share of `identity_batches`."""
    augmentation = Augmentation(data.flip_probability, data.crop_padding, data.erasing_probability)
    layers = SurfaceLayers(images, projections, data.cache)
    views = ViewedImages(layers, augmentation, seed, contrast.views_every, contrast.view_camera)
    return Loader(views, data.loader_workers)


class ExtractionLoader:
    """A worker's contiguous part of a split in the data set's order, as often as it is iterated over.

    The parts of all workers, gathered in their order, are the split: row i of what was gathered is row i.
    """

    def __init__(self, images: ImageStore, data: DataConfig, batch_size: int, shard: Shard | None = None) -> None:
        self.rows = shard_rows(len(images), shard or Shard())
        self._draws = sequential_batches(self.rows, batch_size)
        self._loader = Loader(Images(images), data.loader_workers)

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Iterator[ImageBatch]:
        return self._loader.batches(self._draws)


class _Epoch:
    def __init__(self) -> None:
        self.draws: DrawBatches = ()

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.draws)


class _WorkerSide(Dataset[Any]):
    # What crosses to the training process is a dict of tensors, since the loader pins those, or a UserError, since
    # raised in a loader process it would arrive wrapped in that process's traceback.
    def __init__(self, source: BatchSource[Any]) -> None:
        self.source = source

    def __getitems__(self, draws: list[Draw]) -> dict[str, torch.Tensor] | UserError:
        try:
            return dict(vars(self.source.batch(draws)))
        except UserError as error:
            return error


def _as_it_is(fields: Any) -> Any:
    return fields
