"""The three stages of the method (GCL 3.3; METHOD "Stages").

Each says what an epoch starts with, which batches it has, and what is learnt from one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from jgcl_ray.batches import ImageBatch, PairedBatch, PseudoLabels, ViewedBatch
from jgcl_ray.config import ClusterContrastConfig, ContrastSchedule, StageName
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.loaders import Loader, paired_loader, viewed_loader, warm_up_loader
from jgcl_ray.data.samplers import EpochShare, identity_batches, share, shuffled_batches
from jgcl_ray.data.surface_views import ViewedImages
from jgcl_ray.losses.cluster_terms import EmbeddedImages, cluster_terms, weighted_cluster_terms
from jgcl_ray.losses.joint import Terms
from jgcl_ray.memories.centroids import CentroidMemory
from jgcl_ray.memories.instances import MemoryBank, build_memory_bank
from jgcl_ray.memories.proxies import CameraProxies
from jgcl_ray.models.batch_norm import share_statistics
from jgcl_ray.training.optim import set_learning_rate
from jgcl_ray.training.precision import autocast, laid_out
from jgcl_ray.training.seen_photos import SeenPhotos
from jgcl_ray.training.session import Session, TrainingData
from jgcl_ray.training.step import descend, generator_step, joint_step


class Stage(Protocol):
    """One stage on one worker."""

    epochs: int
    trains_encoder: bool
    images: ImageStore  # the rows of its batches
    surface_views: ViewedImages | None  # what it learns views from that no generator draws

    def begin(self, step: int) -> None:
        """Once, before the first epoch; not when a run is resumed within the stage."""
        ...

    def begin_epoch(self, epoch: int, step: int) -> Mapping[str, float]:
        """Labels and memory of an epoch; numbers for the log. Not when a run is resumed within the epoch."""
        ...

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """This worker's batches of an epoch from the `first` on."""
        ...

    def num_batches(self, epoch: int) -> int:
        """Batches of an epoch."""
        ...

    def decay(self, epoch: int) -> float:
        """The encoder's learning rate over that of the first epoch."""
        ...

    def step(self, batch: Any, epoch: int, step: int) -> Terms:
        """Learn from one batch; its loss terms, of this worker."""
        ...

    def state(self) -> dict[str, Any]:
        """The stage's memory, for a checkpoint."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """What `state` gave."""
        ...


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The labelled images of warmup.mode=source."""

    images: ImageStore
    labels: np.ndarray  # (N,) int64, 0 .. identities - 1

    @classmethod
    def of(cls, data: TrainingData) -> SourceImages:
        """Those of a run."""
        assert data.source is not None and data.source.train.identities is not None and data.source_images is not None
        labels = np.unique(data.source.train.identities, return_inverse=True)[1].astype(np.int64)
        return cls(data.source_images, labels)


class ClusterContrast:
    """E_id alone, by contrast against the centroids of clusters (Cluster-Contrast, arXiv 2103.11568, algorithm 1).

    Or, where `source` is given, of a labelled source set's identities. Beyond the published step: proxies of clusters
    in other cameras, and views of people from other sides, compared with the same memories, which they do not move.
    """

    trains_encoder = True

    def __init__(
        self,
        session: Session,
        epochs: int,
        schedule: ContrastSchedule,
        optimiser: torch.optim.Optimizer,
        source: SourceImages | None = None,
        extensions: ClusterContrastConfig | None = None,
    ) -> None:
        """extensions: what to add to the published step: camera proxies, surface views."""
        self.session, self.config, self.epochs = session, session.config, epochs
        self.schedule, self.optimiser, self.source = schedule, optimiser, source
        self.images = session.data.images if source is None else source.images
        self.extensions = extensions or ClusterContrastConfig()
        self._cameras = torch.from_numpy(self.images.split.cameras)
        self._unsure = torch.from_numpy(session.data.unsure)
        self._loader = self._open_loader()
        batches_from = self._loader.source
        self.surface_views: ViewedImages | None = batches_from if isinstance(batches_from, ViewedImages) else None
        self.memory: CentroidMemory | None = None
        self.proxies: CameraProxies | None = None

    def begin(self, step: int) -> None:
        """See Stage."""

    def begin_epoch(self, epoch: int, step: int) -> Mapping[str, float]:
        """See Stage: clusters of all training images, and one centroid for each."""
        if self.source is not None:
            features, numbers = self.session.extract(self.images), {}
        else:
            features, numbers = self.session.features(step), dict(self.session.label_anew(step))
        labels = torch.from_numpy(self._labels())
        self.memory = CentroidMemory(features, labels, self.config.centroid_memory, self.session.device)
        self.proxies = self._new_proxies(features)
        return numbers

    def batches(self, epoch: int, first: int) -> Iterator[ImageBatch]:
        """See Stage: P identities x K images, augmented, and views of some of them."""
        return self._loader.batches(_from(self._share(epoch), first))

    def num_batches(self, epoch: int) -> int:
        """See Stage."""
        return len(self._share(epoch))

    def decay(self, epoch: int) -> float:
        """See Stage."""
        return 0.1 ** (epoch // self.schedule.decay_every)

    def step(self, batch: ImageBatch, epoch: int, step: int) -> Terms:
        """See Stage: InfoNCE against the centroids; then the centroids move."""
        assert self.memory is not None
        E_id = self.session.networks.encoder.train()
        with autocast(self.config.precision, self.session.device):
            f = E_id(laid_out(batch.image, self.config.precision)).embedding
            f_view = None
            if isinstance(batch, ViewedBatch):
                f_view = E_id(laid_out(batch.view, self.config.precision), "generated").embedding
        y, cameras = self._labels_of_rows(batch.index), self._cameras[batch.index.cpu()].to(f.device)
        terms = self._contrasts(f, y, cameras, batch.index)
        total = weighted_cluster_terms(terms, self.extensions)
        if isinstance(batch, ViewedBatch) and f_view is not None:
            unsure = torch.isin(batch.view_index, self._unsure.to(f.device))  # of what side is not known
            y_view = torch.where(unsure, -1, self._labels_of_rows(batch.view_index))
            losses = self._contrasts(f_view, y_view, batch.view_camera, batch.view_index)
            total = total + self.extensions.view_weight * weighted_cluster_terms(losses, self.extensions)
            terms |= {f"view_{name}": loss for name, loss in losses.items()}
        set_learning_rate(self.optimiser, self.schedule.lr * self.decay(epoch))
        descend(total, terms, [self.optimiser], batch, step)
        self.memory.update(y, f.detach())
        if self.proxies is not None:
            self.proxies.update(batch.index, f.detach())
        return {name: value.detach() for name, value in terms.items()}

    def state(self) -> dict[str, Any]:
        """See Stage."""
        memories = {"centroids": self.memory, "proxies": self.proxies}
        return {name: memory.state_dict() for name, memory in memories.items() if memory is not None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See Stage."""
        rows = state["centroids"]["rows"]
        self.memory = CentroidMemory(rows, torch.arange(len(rows)), self.config.centroid_memory, self.session.device)
        self.memory.load_state_dict(state["centroids"])
        self.proxies = self._new_proxies(torch.zeros(len(self.images), rows.shape[1]))
        if self.proxies is not None:
            self.proxies.load_state_dict(state["proxies"])

    def _contrasts(self, f: torch.Tensor, y: torch.Tensor, cameras: torch.Tensor, index: torch.Tensor) -> Terms:
        """Of embeddings f (B, D) with the memories, by name; y (B,) clusters, cameras (B,), index (B,) rows."""
        assert self.memory is not None
        trust = None if self.source is not None else self.session.trust(index)
        images, temperature = EmbeddedImages(f, y, cameras, trust), self.config.centroid_memory.temperature
        return cluster_terms(images, self.memory, self.proxies, temperature, self.extensions)

    def _labels_of_rows(self, index: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._labels())[index.cpu()].to(index.device)

    def _open_loader(self) -> Loader[ImageBatch] | Loader[ViewedBatch]:
        data, config = self.session.data, self.config
        if self.source is not None or not self.extensions.views_every:
            return warm_up_loader(self.images, config.data, config.run.seed)
        assert data.projections is not None
        return viewed_loader(self.images, data.projections, config.data, self.extensions, config.run.seed)

    def _new_proxies(self, features: torch.Tensor) -> CameraProxies | None:
        if not self.extensions.proxy_weight:
            return None
        cameras, settings = self.images.split.cameras, self.config.centroid_memory
        return CameraProxies(features, self._labels(), cameras, settings, self.session.device)

    def _labels(self) -> np.ndarray:
        return _labels_of(self.session).labels if self.source is None else self.source.labels

    def _share(self, epoch: int) -> EpochShare:
        data, split = self.config.data, self.images.split
        drawn = identity_batches(
            self._labels(),
            data.identities_per_batch,
            data.images_per_identity,
            self.config.run.seed,
            epoch,
            self.schedule.batches_per_epoch,
            split.cameras if data.other_cameras_first else None,
            None if self.config.pseudo_labels.tracklets == "off" else split.tracklets,
        )
        return share(drawn, epoch, self.session.shard)


class _Paired(ABC):
    """What stages 2 and 3 have in common: images with projections."""

    epochs: int
    surface_views: ViewedImages | None = None
    most_batches: int | None = None  # of an epoch; None: all rows

    def __init__(self, session: Session) -> None:
        self.session, self.config = session, session.config
        assert session.data.projections is not None
        self.images = session.data.images
        official = self.config.losses.formulation == "official"
        seed = self.config.run.seed
        self.loader = paired_loader(self.images, session.data.projections, self.config.data, seed, official=official)

    def batches(self, epoch: int, first: int) -> Iterator[PairedBatch]:
        """See Stage."""
        return self.loader.batches(_from(self._share(epoch), first))

    def num_batches(self, epoch: int) -> int:
        """See Stage."""
        return len(self._share(epoch))

    def decay(self, epoch: int) -> float:
        """See Stage."""
        return 1.0

    @abstractmethod
    def _rows(self) -> np.ndarray:
        """Rows that an epoch goes through, (M,) int64."""

    def _share(self, epoch: int) -> EpochShare:
        drawn = shuffled_batches(self._rows(), self.config.data.batch_size, self.config.run.seed, epoch)
        return share(drawn[: self.most_batches], epoch, self.session.shard)


class Generation(_Paired):
    """Stage 2: E_str, G and D on all images, but for unsure bodies with meshes.skip_unsure; E_id is frozen."""

    trains_encoder = False

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.epochs = self.config.epochs_of("generation")
        self._seen = SeenPhotos(len(self.images))

    def begin(self, step: int) -> None:
        """See Stage."""
        share_statistics(self.session.networks.encoder)
        self.session.features(step)
        self.session.standardise_codes(step)

    def begin_epoch(self, epoch: int, step: int) -> Mapping[str, float]:
        """See Stage: labels, where no stage before made any, to see whether views keep the person."""
        return self.session.label_anew(step, needed=False) if self.session.labels is None else {}

    def step(self, batch: PairedBatch, epoch: int, step: int) -> Terms:
        """See Stage."""
        networks, optimisers = self.session.networks, self.session.optimisers
        return dict(generator_step(networks, optimisers, batch, self.config, step, self._seen).terms)

    def state(self) -> dict[str, Any]:
        """See Stage."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See Stage."""

    def _rows(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.session.data.images)), self.session.data.unsure)


class Joint(_Paired):
    """Stage 3: everything learns, on clustered images; labels and memory anew each epoch."""

    trains_encoder = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.epochs, self.most_batches = self.config.epochs_of("joint"), self.config.joint.batches_per_epoch
        self.bank: MemoryBank | None = None

    def begin(self, step: int) -> None:
        """See Stage."""

    def decay(self, epoch: int) -> float:
        """See Stage."""
        return 0.1 if epoch >= self.config.joint.decay_at else 1.0

    def begin_epoch(self, epoch: int, step: int) -> Mapping[str, float]:
        """See Stage: labels of all training images, and their features as the memory's rows."""
        numbers = self.session.label_anew(step)
        self.session.standardise_codes(step)
        labels = torch.from_numpy(_labels_of(self.session).labels)
        self.bank = build_memory_bank(
            self.session.features(step), labels, self.config.memory_bank, self.session.device
        )
        return numbers

    def step(self, batch: PairedBatch, epoch: int, step: int) -> Terms:
        """See Stage."""
        assert self.bank is not None
        networks, optimisers, joint = self.session.networks, self.session.optimisers, self.config.joint
        set_learning_rate(optimisers.encoder, self.config.optim.encoder_lr * self.decay(epoch))
        set_learning_rate(optimisers.generator, joint.generator_lr or self.config.optim.generator_lr)
        trust = self.session.trust(batch.index)
        return dict(joint_step(networks, optimisers, self.bank, batch, self.config, step, trust).terms)

    def state(self) -> dict[str, Any]:
        """See Stage."""
        return {} if self.bank is None else {"bank": self.bank.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See Stage."""
        labels = torch.from_numpy(_labels_of(self.session).labels)
        self.bank = build_memory_bank(state["bank"]["rows"], labels, self.config.memory_bank, self.session.device)
        self.bank.load_state_dict(state["bank"])

    def _rows(self) -> np.ndarray:
        return np.flatnonzero(_labels_of(self.session).labels >= 0)


def build_stage(name: StageName, session: Session) -> Stage:
    """A stage of the run on this worker."""
    config, optimisers = session.config, session.optimisers
    epochs = config.epochs_of(name)
    if name == "warmup":
        source = SourceImages.of(session.data) if config.warmup.mode == "source" else None
        return ClusterContrast(session, epochs, config.warmup, optimisers.warmup, source)
    if name == "generation":
        return Generation(session)
    if config.joint.recipe == "cluster_contrast":
        contrast = config.cluster_contrast
        return ClusterContrast(session, epochs, contrast, optimisers.encoder, extensions=contrast)
    return Joint(session)


def _labels_of(session: Session) -> PseudoLabels:
    assert session.labels is not None
    return session.labels


def _from(whole: EpochShare, first: int) -> EpochShare:
    return replace(whole, rows=whole.rows[first:], repetitions=whole.repetitions[first:])
