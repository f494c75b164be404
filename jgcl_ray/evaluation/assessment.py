"""One encoder on one labelled test set: features, ranking, and what a report is made of.

Letters: Q queries, M gallery images, D embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from jgcl_ray.data.datasets import ReidDataset, Split
from jgcl_ray.data.datasets.reid_dataset import RankingProtocol
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.bootstrap import (
    RESAMPLES,
    SEED,
    Interval,
    grouped_intervals,
    mean_interval,
)
from jgcl_ray.evaluation.corrections import (
    PLAIN,
    Corrected,
    MeansOf,
    embed_all_ways,
    score_corrected,
    splits_needed,
)
from jgcl_ray.evaluation.embedder import Embedder
from jgcl_ray.evaluation.query_scores import QueryScores
from jgcl_ray.evaluation.ranking import (
    CameraPair,
    CameraScores,
    Distances,
    Labels,
    RankingResult,
    check_matches,
    euclidean,
    rank_by,
    score_cameras,
)
from jgcl_ray.evaluation.reranking import rerank
from jgcl_ray.evaluation.viewpoints import BINS, read_yaws, viewpoint_precisions
from jgcl_ray.progress import bars
from jgcl_ray.wording import counted

TOP = 50  # ranks of the CMC


@dataclass(frozen=True)
class Assessment:
    """What was found; distances are re-ranked ones where that was asked for."""

    dataset: ReidDataset
    query_features: np.ndarray  # (Q, D) float32, rows of unit length
    gallery_features: np.ndarray  # (M, D) float32, rows of unit length
    labels: Labels  # with the protocol
    distances: Distances
    result: RankingResult  # by these distances
    before_reranking: RankingResult | None  # by Euclidean distance; None where `result` is
    camera_scores: CameraScores | None  # None where not asked for
    viewpoint_precisions: np.ndarray | None  # (Q, V) by difference of viewpoint; None where bodies are not known
    corrected: tuple[Corrected, ...]
    means_of: MeansOf | None  # of the camera means among the corrections
    seconds: dict[str, float] = field(default_factory=dict)  # by part

    @property
    def query(self) -> Split:
        """The queries, Q images."""
        return labelled(self.dataset)[0]

    @property
    def gallery(self) -> Split:
        """The gallery, M images."""
        return labelled(self.dataset)[1]

    @cached_property
    def interval(self) -> Interval:
        """95 % interval of mAP, by bootstrap over people."""
        return mean_interval(self.result.average_precisions, self.labels.query_identities)

    @property
    def people(self) -> int:
        """On the queries with a match."""
        return len(np.unique(self.labels.query_identities[self.result.first_matches > 0]))

    @cached_property
    def camera_pairs(self) -> list[CameraPair] | None:
        """Means of each pair of cameras; None where not asked for."""
        return None if self.camera_scores is None else self.camera_scores.pairs(self.labels.query_cameras)

    @cached_property
    def by_viewpoint(self) -> list[tuple[tuple[int, int], int, Interval]]:
        """(degrees from and to, queries, their mAP) for each bin that any query has; empty where not known."""
        if self.viewpoint_precisions is None:
            return []
        queries, columns = np.nonzero(~np.isnan(self.viewpoint_precisions))
        kinds, groups, numbers = np.unique(columns, return_inverse=True, return_counts=True)
        values, people = self.viewpoint_precisions[queries, columns], self.labels.query_identities[queries]
        intervals = grouped_intervals(values, people, groups, len(kinds))
        return [(BINS[kind], int(n), found) for kind, n, found in zip(kinds, numbers, intervals, strict=True)]

    def query_scores(self) -> QueryScores:
        """By query; `camera_pairs` must have been asked for."""
        assert self.camera_scores is not None
        return QueryScores(
            files=self.query.paths,
            identities=self.labels.query_identities,
            cameras=self.labels.query_cameras,
            average_precisions=self.result.average_precisions,
            first_matches=self.result.first_matches,
            gallery_cameras=self.camera_scores.cameras,
            by_camera=self.camera_scores.average_precisions,
            by_viewpoint=self.viewpoint_precisions,
        )

    def document(self) -> dict[str, Any]:
        """The scores, ready for JSON (file contract: `mAP`, `cmc`, `queries`, `gallery`, `interval`, `protocol`)."""
        document: dict[str, Any] = {
            **self.result.summary(),
            "interval": self.interval.bounds,
            "interval_seed": SEED,
            "resamples": RESAMPLES,
            "people": self.people,
            "protocol": self.labels.protocol,
            "cmc": self.result.cmc.tolist(),
            "queries": self.result.queries,
            "queries_without_match": len(self.query) - self.result.queries,
            "gallery": len(self.gallery),
            "left_out": dict(self.dataset.left_out),
            "reranked": self.before_reranking is not None,
            "data": {"name": self.dataset.name, "root": str(self.dataset.root)},
            "embedding": self.gallery_features.shape[1],
            "seconds": {part: round(seconds, 3) for part, seconds in self.seconds.items()},
        }
        if self.before_reranking is not None:
            before = self.before_reranking
            document["before_reranking"] = before.summary() | {"cmc": before.cmc.tolist()}
        if self.corrected:
            document["corrected"] = {one.name: one.document() for one in self.corrected}
            document["means_of"] = self.means_of
        if self.by_viewpoint:
            document["by_viewpoint"] = [
                {"degrees": list(limits), "queries": queries, "mAP": found.mean, "interval": found.bounds}
                for limits, queries, found in self.by_viewpoint
            ]
        if self.camera_pairs is not None:
            document["cross_camera"] = [asdict(pair) for pair in self.camera_pairs]
            document["by_query"] = self.query_scores().document()
        return document

    def camera_lines(self) -> list[str]:
        """A line for each pair of cameras, for the terminal."""
        return [
            f"{self.camera_name(pair.query_camera)} -> {self.camera_name(pair.gallery_camera)}: mAP {pair.mAP:.4f} "
            f"rank-1 {pair.rank1:.4f} ({counted(pair.queries, 'query', 'queries')}, {counted(pair.gallery, 'photo')})"
            for pair in self.camera_pairs or ()
        ]

    def lines(self) -> list[str]:
        """Corrections, and last the interval, for the terminal."""
        lines = [
            f"{one.name}: mAP {one.result.mAP:.4f} {one.interval.words()} rank-1 {one.result.cmc[0]:.4f}, mAP "
            f"{one.difference.mean:+.4f} {one.difference.words('+')} to the plain score"
            for one in self.corrected
        ]
        how = f"bootstrap over {self.people:,} people, {RESAMPLES:,} resamples, seed {SEED}"
        protocol = f"protocol {self.labels.protocol}"
        lines += [
            f"scored without {count:,} of {count + len(self.dataset.splits[name]):,} {name} images, unreadable ones"
            for name, count in self.dataset.left_out.items()
            if name != "train"
        ]
        return [
            *lines,
            f"mAP {self.result.mAP:.4f} {self.interval.words()} (95 % interval, {how}; {protocol})",
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
        distances = self.distances(slice(query, query + 1))[0]
        distances[self.labels.left_out(query)] = np.inf
        order = np.argsort(distances, kind="stable")[:limit]
        return order[np.isfinite(distances[order])]


def assess(
    encoder: Embedder,
    dataset: ReidDataset,
    *,
    protocol: RankingProtocol | None = None,
    batch_size: int = 64,
    reranked: bool = False,
    camera_pairs: bool = False,
    flip: bool = False,
    camera_means: MeansOf | None = None,
    progress: bool = False,
) -> Assessment:
    """Embed queries and gallery, rank them by `protocol` (None: the data set's); optionally by re-ranked distances.

    flip, camera_means: corrections to score besides, each alone and both together, by the same kind of distances.
    UserError where the data set has no identities, no gallery, or no query with a match, and for a camera without
    images to take a mean of.
    """
    labels = labels_of(dataset, protocol)
    check_matches(labels)  # before the hours that features may take
    yaws = read_yaws(dataset)
    query, gallery = labelled(dataset)
    splits = splits_needed(query, gallery, dataset.train, camera_means)
    clock = _Clock()
    with clock.timed("features"):
        ways = embed_all_ways(encoder, splits, flip, camera_means, batch_size, progress)
    plain = ways.pop(PLAIN)

    def ranked(name: str, by: Distances) -> RankingResult:
        with clock.timed(name), _bar(name, len(query), progress) as watched:
            return rank_by(watched(by), labels, TOP)

    distances: Distances = euclidean(plain["query"], plain["gallery"])
    result, before = ranked("ranking", distances), None
    if reranked:
        with clock.timed("reranking"):
            distances = rerank(plain["query"], plain["gallery"])
        result, before = ranked("reranking", distances), result
    corrected = []
    for way, parts in ways.items():
        with clock.timed(way):
            by = (rerank if reranked else euclidean)(parts["query"], parts["gallery"])
        corrected.append(score_corrected(way, ranked(way, by), result, labels))
    cameras = None
    if camera_pairs:
        with clock.timed("camera_pairs"), _bar("pairs of cameras", len(query), progress) as watched:
            cameras = score_cameras(watched(distances), labels)
    return Assessment(
        dataset,
        plain["query"],
        plain["gallery"],
        labels,
        distances,
        result,
        before,
        cameras,
        None if yaws is None else viewpoint_precisions(result.matches, *yaws),
        tuple(corrected),
        camera_means,
        clock.seconds,
    )


def labels_of(dataset: ReidDataset, protocol: RankingProtocol | None = None) -> Labels:
    """Of query and gallery, with the given protocol or the data set's own; UserError where there are none."""
    query, gallery = labelled(dataset)
    assert query.identities is not None and gallery.identities is not None
    arrays = (query.identities, gallery.identities, query.cameras, gallery.cameras)
    return Labels.of(*arrays, protocol=protocol or dataset.protocol)


def labelled(dataset: ReidDataset) -> tuple[Split, Split]:
    """Query and gallery of a data set; UserError where there are none, or nobody labelled them."""
    query, gallery = dataset.query, dataset.gallery
    if (query is None or gallery is None) and dataset.train.identities is not None:
        raise UserError(
            f"{dataset.root}: all of it is to be trained on, and nobody is left to be searched for; lower "
            "data.train_share, or give the folders of queries and gallery"
        )
    if query is None or gallery is None or query.identities is None or gallery.identities is None:
        raise UserError(
            f"{dataset.root}: a data set of kind {dataset.name!r} has no identities to score against; evaluate on a "
            "labelled one (--data market1501, msmt17, dukemtmc_reid or walkers), or look people up in it by "
            "python -m jgcl_ray.search"
        )
    return query, gallery


@contextmanager
def _bar(what: str, queries: int, shown: bool) -> Iterator[Callable[[Distances], Distances]]:
    """A bar, which moves as the distances of queries are asked for."""
    with bars(shown=shown) as add:
        moved = add(what, queries)

        def watched(distances: Distances) -> Distances:
            def passed_on(rows: slice) -> np.ndarray:
                block = distances(rows)
                moved(min(rows.stop, queries), queries)
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
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start
