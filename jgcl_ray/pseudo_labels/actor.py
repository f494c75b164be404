"""The clustering actor: pseudo labels on its own CPUs or GPU, away from the workers that train.

The actor is stateless. Where its process dies, Ray starts another and repeats the call, and only the log tells.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from jgcl_ray.batches import PseudoLabels, Tracks
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.distributed import rank, sum_over_workers
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels._rows import available_threads
from jgcl_ray.pseudo_labels.clustering import pseudo_labels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answer:
    found: PseudoLabels
    process: int


class _Clusterer:
    def __init__(self, config: PseudoLabelsConfig) -> None:
        self._config = config
        # Ray sets OMP_NUM_THREADS to 1 for actors of up to one CPU; one with none takes what the workers leave idle.
        self._threads = max(int(config.num_cpus), 1) if config.num_cpus else available_threads()
        torch.set_num_threads(self._threads)
        torch.set_float32_matmul_precision("highest")  # TF32 would lose neighbours

    def process(self) -> int:
        return os.getpid()

    def label(self, features: np.ndarray, cameras: np.ndarray | None, tracks: Tracks | None) -> _Answer:
        device = "cuda" if self._config.num_gpus else "cpu"
        return _Answer(pseudo_labels(features, self._config, cameras, self._threads, device, tracks), os.getpid())


def start_clustering_actor(config: PseudoLabelsConfig) -> ActorHandle:
    """A new actor with the resources of the configuration; for the driver, which passes the handle to its workers.

    UserError where the Ray cluster has too few CPUs or GPUs for it ever to start.
    """
    for resource, wanted in (("CPU", config.num_cpus), ("GPU", config.num_gpus)):
        there = ray.cluster_resources().get(resource, 0)
        if wanted > there:
            raise UserError(
                f"pseudo_labels.num_{resource.lower()}s={wanted:g}: the Ray cluster has {there:g} {resource}s in all"
            )
    clusterer: Any = ray.remote(_Clusterer)
    endless = {"max_restarts": -1, "max_task_retries": -1}
    # By itself an actor goes into its creator's placement group, and that of a sweep's driver has no room for it.
    anywhere = {"scheduling_strategy": "DEFAULT"}
    return clusterer.options(num_cpus=config.num_cpus, num_gpus=config.num_gpus, **endless, **anywhere).remote(config)


class ClusteringClient:
    """A worker's way to the actor: every worker has one, the first of them does the talking."""

    def __init__(self, actor: ActorHandle, config: PseudoLabelsConfig) -> None:
        self._actor, self._config = actor, config
        self._process: int | None = None
        self._pending: ray.ObjectRef | None = None

    def label(
        self, features: np.ndarray, cameras: np.ndarray | None = None, tracks: Tracks | None = None
    ) -> PseudoLabels:
        """Labels of all N rows, the same on every worker; a collective.

        features (N, D) float32, cameras (N,) and tracks travel through the object store; the actor reads them there.
        With `background` the labels are those of the features of the call before, which were clustered meanwhile; the
        first call waits for its own.
        """
        found = None
        if rank() == 0:
            submitted: ray.ObjectRef = self._actor.label.remote(ray.put(features), cameras, tracks)
            found = self._collect(self._pending or submitted)
            self._pending = submitted if self._config.background else None
        return _spread(found, len(features))

    def pending(self) -> PseudoLabels | None:
        """What the next call with `background` will return, waited for, so that a checkpoint can hold it; else None.

        Known to the first worker only.
        """
        return None if self._pending is None else self._collect(self._pending)

    def resume(self, pending: PseudoLabels | None) -> None:
        """Put back what `pending` gave."""
        self._pending = None if pending is None or rank() != 0 else ray.put(_Answer(pending, -1))

    def _collect(self, submitted: ray.ObjectRef) -> PseudoLabels:
        try:
            answer: _Answer = ray.get(submitted)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        if answer.process > 0:
            if self._process not in (None, answer.process):
                logger.warning("the clustering actor died; Ray started another and repeated the call")
            self._process = answer.process
        return answer.found


def _spread(found: PseudoLabels | None, num_rows: int) -> PseudoLabels:
    """The first worker's labels on all workers."""
    mine = found or PseudoLabels(np.zeros(num_rows, np.int64), 0.0, 0, 0, 0.0)
    weighted = mine.weights is not None
    counts = [mine.num_clusters, mine.num_outliers, mine.tracklets, mine.cut_tracklets, mine.cannot_links_split]
    numbers = torch.tensor([mine.eps, mine.recall, weighted, *counts], dtype=torch.float64)
    eps, recall, weighted, *counts = sum_over_workers(numbers).tolist()
    clusters, outliers, tracklets, cut, links = map(int, counts)
    labels = sum_over_workers(torch.from_numpy(np.array(mine.labels))).numpy()
    weights = None
    if weighted:
        weights = np.zeros(num_rows, np.float32) if mine.weights is None else np.array(mine.weights)
        weights = sum_over_workers(torch.from_numpy(weights)).numpy()
    return PseudoLabels(labels, eps, clusters, outliers, recall, weights, tracklets, cut, links)
