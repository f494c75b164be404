"""What the stages share: data, networks, memory, and how labels come about. One on every worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from jgcl_ray.batches import PseudoLabels, Tracks
from jgcl_ray.camera_means import without_camera_means
from jgcl_ray.config import Config
from jgcl_ray.data.datasets import ReidDataset, Split
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.loaders import ExtractionLoader
from jgcl_ray.data.samplers import Shard
from jgcl_ray.distributed import average_buffers, broadcast_module, rank
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.projections import ProjectionSource
from jgcl_ray.models.networks import Networks
from jgcl_ray.pseudo_labels.clustering import advice
from jgcl_ray.pseudo_labels.extract import CodeMoments, extract_features
from jgcl_ray.pseudo_labels.quality import measure
from jgcl_ray.training.optim import Optimisers
from jgcl_ray.training.precision import autocast
from jgcl_ray.wording import counted

logger = logging.getLogger(__name__)


class Clusterer(Protocol):
    """Who turns features into labels: the actor's client, or a plain call in the same process."""

    def label(
        self, features: np.ndarray, cameras: np.ndarray | None = None, tracks: Tracks | None = None
    ) -> PseudoLabels:
        """Labels of all N rows, equal on every worker."""
        ...

    def pending(self) -> PseudoLabels | None:
        """A labelling under way, for the checkpoint."""
        ...

    def resume(self, pending: PseudoLabels | None) -> None:
        """Put back what `pending` gave."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """The images of a run, on one worker."""

    dataset: ReidDataset
    images: ImageStore  # of dataset.train
    projections: ProjectionSource | None  # None where no stage draws
    source: ReidDataset | None = None  # labelled, for warmup.mode=source
    source_images: ImageStore | None = None
    unsure: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # rows that stage 2 leaves out
    listing: bytes = b""  # image_listing.pack of dataset.train and source.train


@dataclass(frozen=True)
class _Extracted:
    step: int  # after which it was extracted
    features: torch.Tensor  # (N, D)
    codes: CodeMoments | None  # of this worker's shard; None where G does not standardise


@dataclass
class Session:
    """A run in the making, on one worker. The stages change it; a checkpoint is made of it."""

    config: Config
    data: TrainingData
    networks: Networks
    optimisers: Optimisers
    clusterer: Clusterer
    device: torch.device
    shard: Shard
    labels: PseudoLabels | None = None  # of the epoch under way
    seconds: dict[str, float] = field(default_factory=dict)  # of this epoch, by part
    _extracted: _Extracted | None = None  # by the last pass over the training images

    def features(self, step: int) -> torch.Tensor:
        """Embeddings of ALL training images, (N, D) float32 normalised on the CPU, as of `step`. A collective.

        Averaged with those of the mirror images where `pseudo_labels.mirrored` is set.
        """
        return self._extracted_at(step).features

    def extract(self, images: ImageStore, codes: CodeMoments | None = None) -> torch.Tensor:
        """Embeddings (N, D) of all rows of a split, each worker its shard. A collective."""
        batches = ExtractionLoader(images, self.config.data, self.config.eval.batch_size, self.shard)
        with autocast(self.config.precision, self.device):
            return extract_features(
                self.networks.encoder, batches, len(images), codes, self.config.pseudo_labels.mirrored
            )

    def standardise_codes(self, step: int) -> None:
        """Tell G the mean and deviation of the appearance codes of all training images as of `step`. A collective.

        Nothing, unless generator.standardise_codes is set.
        """
        if self.networks.generator.standardises:
            codes = self._extracted_at(step).codes
            assert codes is not None
            self.networks.generator.standardise(*codes.statistics())

    def encoder_unchanged(self, step: int) -> None:
        """Features that were extracted before count as of `step` too: the steps since then left the encoder alone."""
        if self._extracted is not None:
            self._extracted = replace(self._extracted, step=step)

    def _extracted_at(self, step: int) -> _Extracted:
        if self._extracted is None or self._extracted.step != step:
            codes = None
            if self.networks.generator.standardises:
                codes = CodeMoments(self.networks.encoder.code_width, self.device)
            with self.timed("features"):
                self._extracted = _Extracted(step, self.extract(self.data.images, codes), codes)
        return self._extracted

    def label_anew(self, step: int, needed: bool = True) -> Mapping[str, float]:
        """Cluster the features of all training images into pseudo labels; the labelling's quality in numbers.

        needed: whether the stage cannot do without clusters; UserError where there is none.
        """
        train = self.data.dataset.train
        cameras = train.cameras if (train.cameras >= 0).all() else None
        features = self.features(step).numpy()
        before = None if self.labels is None else self.labels.labels
        with self.timed("labels"):
            if self.config.pseudo_labels.camera_means and cameras is not None:
                features = without_camera_means(features, cameras)
            self.labels = self.clusterer.label(features, cameras, tracks_of(train))
            quality = measure(self.labels, before, train.identities, cameras)
        words = advice(self.labels, self.config.pseudo_labels)
        if needed and self.labels.num_clusters == 0:
            raise UserError(words or "no cluster: nothing to train on")
        if words is not None and rank() == 0:
            logger.warning("pseudo labels: %s", words)
        return quality.metrics()

    def trust(self, index: torch.Tensor) -> torch.Tensor | None:
        """How far the labels of rows `index` (B,) are trusted, (B,) in [0, 1] on their device; None: all alike."""
        if self.labels is None or self.labels.weights is None:
            return None
        return torch.from_numpy(self.labels.weights[index.cpu().numpy()]).to(index.device)

    def equalise(self) -> None:
        """One encoder on all workers: before features, evaluation and checkpoints. A collective.

        Running statistics are the first worker's; where batch norm counts in groups, the mean over the workers, as
        one worker with all groups has it.
        """
        if self.config.encoder.batch_norm_group is not None:
            average_buffers(self.networks.encoder)
        broadcast_module(self.networks.encoder)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add to the seconds of a part of the epoch."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def state(self) -> dict[str, Any]:
        """Optimisers, labels and random state, for a checkpoint."""
        pending = self.clusterer.pending()
        return {
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.named()},
            "labels": _labels_state(self.labels),
            "pending_labels": _labels_state(pending),
            "random": torch.get_rng_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """What `state` gave. UserError where it is of another number of images."""
        for name, optimiser in self.optimisers.named():
            optimiser.load_state_dict(state["optimisers"][name])
        self.labels, pending = _labels_from(state["labels"]), _labels_from(state["pending_labels"])
        for labels in (self.labels, pending):
            if labels is not None and len(labels.labels) != len(self.data.images):
                raise UserError(
                    f"the checkpoint's labels are of {counted(len(labels.labels), 'image')}, and "
                    f"{self.data.dataset.train.folder} holds {len(self.data.images):,}: bring back the images as "
                    "they were, or start a new run from its weights alone by run.init_from and another run.name"
                )
        self.clusterer.resume(pending)
        torch.set_rng_state(state["random"])


def tracks_of(split: Split) -> Tracks | None:
    """What is known of the tracks of a split; None where nobody tracked."""
    return None if split.tracklets is None else Tracks(split.tracklets, split.times, split.tracklet_spans)


def _labels_state(labels: PseudoLabels | None) -> dict[str, Any] | None:
    if labels is None:
        return None
    weights = None if labels.weights is None else torch.from_numpy(np.array(labels.weights))
    return {**vars(labels), "labels": torch.from_numpy(np.array(labels.labels)), "weights": weights}


def _labels_from(state: Mapping[str, Any] | None) -> PseudoLabels | None:
    if state is None:
        return None
    weights = None if state["weights"] is None else state["weights"].numpy()
    return PseudoLabels(**{**state, "labels": state["labels"].numpy(), "weights": weights})
