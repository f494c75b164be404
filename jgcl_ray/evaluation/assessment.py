"""One encoder on one labelled test set: features, ranking, and what a report is made of.

Letters: Q queries, M gallery images, D embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jgcl_ray.data.datasets import ReidDataset, Split
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.ranking import (
    JUNK,
    CameraPair,
    Distances,
    Labels,
    RankingResult,
    check_matches,
    euclidean,
    rank_by,
    rank_camera_pairs,
)
from jgcl_ray.evaluation.reranking import rerank
from jgcl_ray.models.encoder import IdentityEncoder

TOP = 50  # ranks of the CMC


class Embedder(Protocol):
    """What turns images into embeddings: jgcl_ray.Encoder."""

    module: IdentityEncoder
    height: int  # H and W of what the network takes
    width: int
    description: str

    def read(self, image: Path) -> np.ndarray:
        """A file as the network's uint8 (H, W, 3)."""
        ...

    def embed(self, images: Sequence[Path], batch_size: int = 64, progress: bool = False) -> np.ndarray:
        """n files -> (n, D) float32, rows of unit length."""
        ...


@dataclass(frozen=True)
class Assessment:
    """What was found; distances are re-ranked ones where that was asked for."""

    dataset: ReidDataset
    query_features: np.ndarray  # (Q, D) float32, rows of unit length
    gallery_features: np.ndarray  # (M, D) float32, rows of unit length
    labels: Labels
    distances: Distances
    result: RankingResult  # by these distances
    before_reranking: RankingResult | None  # by Euclidean distance; None where `result` is
    camera_pairs: list[CameraPair] | None  # None where not asked for
    seconds: dict[str, float]  # by part

    @property
    def query(self) -> Split:
        """The queries, Q images."""
        return labelled(self.dataset)[0]

    @property
    def gallery(self) -> Split:
        """The gallery, M images."""
        return labelled(self.dataset)[1]

    def document(self) -> dict[str, Any]:
        """The scores, ready for JSON (file contract: `mAP`, `cmc`, `queries`, `gallery`)."""
        document: dict[str, Any] = {
            **self.result.summary(),
            "cmc": self.result.cmc.tolist(),
            "queries": self.result.queries,
            "queries_without_match": len(self.query) - self.result.queries,
            "gallery": len(self.gallery),
            "reranked": self.before_reranking is not None,
            "data": {"name": self.dataset.name, "root": str(self.dataset.root)},
            "embedding": self.gallery_features.shape[1],
            "seconds": {part: round(seconds, 3) for part, seconds in self.seconds.items()},
        }
        if self.before_reranking is not None:
            before = self.before_reranking
            document["before_reranking"] = before.summary() | {"cmc": before.cmc.tolist()}
        if self.camera_pairs is not None:
            document["cross_camera"] = [asdict(pair) for pair in self.camera_pairs]
        return document

    def camera_lines(self) -> list[str]:
        """A line for each pair of cameras, for the terminal."""
        return [
            f"{self.camera_name(pair.query_camera)} -> {self.camera_name(pair.gallery_camera)}: mAP {pair.mAP:.4f} "
            f"rank-1 {pair.rank1:.4f} ({pair.queries} queries, {pair.gallery} photos)"
            for pair in self.camera_pairs or ()
        ]

    def camera_name(self, camera: int) -> str:
        """As the data set names it, or its number."""
        return self.dataset.camera_names.get(int(camera), f"camera {camera}")

    def shown_distances(self, query: int) -> np.ndarray:
        """(M,) of one query to the gallery: re-ranked ones, or Euclidean ones between 0 and 2."""
        if self.before_reranking is not None:
            return self.distances(slice(query, query + 1))[0]
        return np.sqrt(np.maximum(2 - 2 * self.gallery_features @ self.query_features[query], 0))

    def found(self, query: int, limit: int) -> np.ndarray:
        """Rows of the gallery, nearest to a query first, without those that the protocol leaves out."""
        labels, identity = self.labels, self.labels.query_identities[query]
        own = (labels.gallery_identities == identity) & (labels.gallery_cameras == labels.query_cameras[query])
        distances = self.distances(slice(query, query + 1))[0]
        distances[own | (labels.gallery_identities == JUNK)] = np.inf
        order = np.argsort(distances, kind="stable")[:limit]
        return order[np.isfinite(distances[order])]


def assess(
    encoder: Embedder,
    dataset: ReidDataset,
    *,
    batch_size: int = 64,
    reranked: bool = False,
    camera_pairs: bool = False,
    progress: bool = False,
) -> Assessment:
    """Embed queries and gallery, rank by the Market-1501 protocol; optionally by re-ranked distances.

    UserError where the data set has no identities, no gallery, or no query with a match.
    """
    query, gallery = labelled(dataset)
    assert query.identities is not None and gallery.identities is not None
    labels = Labels.of(query.identities, gallery.identities, query.cameras, gallery.cameras)
    check_matches(labels)  # before the hours that features may take
    clock = _Clock()
    with clock.timed("features"):
        of_query, of_gallery = (
            encoder.embed([split.path(row) for row in range(len(split))], batch_size, progress)
            for split in (query, gallery)
        )
    distances: Distances = euclidean(of_query, of_gallery)
    with clock.timed("ranking"), _bar("ranking", len(query), progress) as watched:
        result, before = rank_by(watched(distances), labels, TOP), None
    if reranked:
        with clock.timed("reranking"), _bar("re-ranking", len(query), progress) as watched:
            distances = rerank(of_query, of_gallery)
            result, before = rank_by(watched(distances), labels, TOP), result
    pairs = None
    if camera_pairs:
        with clock.timed("camera_pairs"), _bar("pairs of cameras", len(query), progress) as watched:
            pairs = rank_camera_pairs(watched(distances), labels)
    return Assessment(dataset, of_query, of_gallery, labels, distances, result, before, pairs, clock.seconds)


def labelled(dataset: ReidDataset) -> tuple[Split, Split]:
    """Query and gallery of a data set; UserError where there are none, or nobody labelled them."""
    query, gallery = dataset.query, dataset.gallery
    if query is None or gallery is None or query.identities is None or gallery.identities is None:
        raise UserError(
            f"{dataset.root}: a data set of kind {dataset.name!r} has no identities to score against; evaluate on a "
            "labelled one (--data market1501, msmt17, dukemtmc_reid or walkers), or look people up in it by "
            "python -m jgcl_ray.search"
        )
    return query, gallery


@contextmanager
def _bar(what: str, queries: int, shown: bool) -> Iterator[Callable[[Distances], Distances]]:
    """A bar on standard error, if that is a terminal, which moves as the distances of queries are asked for."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(what, total=queries)

        def watched(distances: Distances) -> Distances:
            def passed_on(rows: slice) -> np.ndarray:
                block = distances(rows)
                bar.update(task, completed=rows.stop)
                return block

            return passed_on

        yield watched


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start
