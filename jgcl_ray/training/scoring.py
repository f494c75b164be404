"""Scores of the encoder as it is during a run: on the test split where it has labels, on training images without."""

from __future__ import annotations

import numpy as np

from jgcl_ray.batches import PseudoLabels
from jgcl_ray.data.datasets import Split
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.loaders import ExtractionLoader, open_images
from jgcl_ray.evaluation.evaluator import Scores, evaluate, validate
from jgcl_ray.evaluation.unlabelled import split_half, tracklet_ends
from jgcl_ray.training.precision import autocast
from jgcl_ray.training.session import Session, tracks_of


class Scorer:
    """Of one run, on one worker; every call is a collective, with the same numbers on all workers."""

    def __init__(self, session: Session) -> None:
        self.session, self.config = session, session.config
        self.ends = tracklet_ends(tracks_of(session.data.dataset.train))
        # Of query and gallery: with data.cache they are read at the first evaluation.
        self._stores: dict[Split, ImageStore] = {}

    def score(self, step: int) -> dict[str, float]:
        """By the names of the run log, of the encoder as of `step`."""
        dataset = self.session.data.dataset
        numbers: dict[str, float] = {}
        test = self.on_test()
        if test is not None:
            numbers |= test.metrics()
        own, train = dataset.validation, dataset.train
        if own is not None and own.identities is not None:
            people, identities = np.unique(own.identities, return_inverse=True)
            labels = PseudoLabels(identities, float("nan"), len(people), 0)
            numbers |= _metrics(
                validate(self.session.features(step)[_rows_of(own, train)], labels, own.cameras), "validation_"
            )
        if self.ends is not None:
            numbers |= split_half(self.session.features(step), self.ends).metrics("validation_tracklets_")
        if self.session.labels is not None:
            numbers |= _metrics(
                validate(self.session.features(step), self.session.labels, train.cameras), "label_agreement_"
            )
        return numbers

    def on_test(self) -> Scores | None:
        """On query and gallery, by the data set's protocol; None where these have no labels."""
        dataset, encoder = self.session.data.dataset, self.session.networks.encoder
        query, gallery = dataset.query, dataset.gallery
        if query is None or gallery is None:
            return None
        of_query, of_gallery = self._batches_of(query), self._batches_of(gallery)
        with autocast(self.config.precision, self.session.device):
            return evaluate(encoder, query, gallery, of_query, of_gallery, dataset.protocol)

    def _batches_of(self, split: Split) -> ExtractionLoader:
        """This worker's shard of a split."""
        data, size = self.config.data, self.config.eval.batch_size
        if split not in self._stores:
            self._stores[split] = open_images(split, data)
        return ExtractionLoader(self._stores[split], data, size, self.session.shard)


def _metrics(scores: Scores | None, prefix: str) -> dict[str, float]:
    """None where nothing could be scored."""
    return {} if scores is None else scores.metrics(prefix)


def _rows_of(part: Split, whole: Split) -> np.ndarray:
    """Rows of `whole` that hold the images of `part`, in its order: (len(part),) int64."""
    place = {path: row for row, path in enumerate(whole.paths)}
    return np.array([place[path] for path in part.paths], np.int64)
