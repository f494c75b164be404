"""Two encoders on the same queries: by how much one is better, how sure that is, and whose photos profit.

Letters: Q queries, C cameras of the gallery, V bins of viewpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jgcl_ray.data.datasets import Split
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.bootstrap import Interval, grouped_intervals, paired_difference
from jgcl_ray.evaluation.query_scores import QueryScores, ScoresFile
from jgcl_ray.evaluation.viewpoints import BINS
from jgcl_ray.wording import counted

SHOWN = 12  # pairs of cameras on the terminal and the page; all are in the JSON


@dataclass(frozen=True)
class Share:
    """The difference where one kind of pair of photos is looked at alone."""

    kind: tuple[int, int]  # cameras of query and gallery, or degrees from and to
    queries: int
    people: int
    difference: Interval

    def words(self) -> str:
        """The difference and what it is of."""
        counts = f"{counted(self.queries, 'query', 'queries')} of {counted(self.people, 'person', 'people')}"
        return f"{self.difference.mean:+.4f} {self.difference.words('+')} ({counts})"

    def document(self, name: str) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            name: list(self.kind),
            "queries": self.queries,
            "people": self.people,
            "difference": self.difference.mean,
            "difference_interval": self.difference.bounds,
        }


@dataclass(frozen=True)
class Comparison:
    """This encoder less the other, in mAP, over the queries that both have."""

    other: ScoresFile
    difference: Interval
    queries: int
    people: int
    only_here: int  # queries that the other has not
    only_there: int
    by_camera_pair: tuple[Share, ...]
    by_viewpoint: tuple[Share, ...]  # empty where not known on both sides

    def document(self) -> dict[str, Any]:
        """Ready for JSON (file contract: `difference`, `difference_interval`)."""
        return {
            "difference": self.difference.mean,
            "difference_interval": self.difference.bounds,
            "against": {
                "path": str(self.other.path),
                "mAP": self.other.mAP,
                "checkpoint": self.other.checkpoint,
                "queries": self.queries,
                "people": self.people,
                "only_here": self.only_here,
                "only_there": self.only_there,
                "by_camera_pair": [share.document("cameras") for share in self.by_camera_pair],
                "by_viewpoint": [share.document("degrees") for share in self.by_viewpoint],
            },
        }

    def lines(self, camera_name: Callable[[int], str]) -> list[str]:
        """For the terminal: who profits, and last the difference."""
        lines = [
            f"{camera_name(share.kind[0])} -> {camera_name(share.kind[1])}: mAP {share.words()}"
            for share in most_changed(self.by_camera_pair)
        ]
        lines += [f"{turned(share.kind)}: mAP {share.words()}" for share in self.by_viewpoint]
        unpaired = self.only_here + self.only_there
        others = f"; {self.only_here:,} only here and {self.only_there:,} only there are left out" if unpaired else ""
        return [
            *lines,
            f"mAP {self.difference.mean:+.4f} {self.difference.words('+')} against {self.other.path} "
            f"({self.other.mAP:.4f}; {counted(self.queries, 'query', 'queries')} of "
            f"{counted(self.people, 'person', 'people')} in pairs{others})",
        ]


def most_changed(shares: Sequence[Share]) -> list[Share]:
    """All of a few; of many, those that gain most and those that lose most, by two people or more, in that order."""
    if len(shares) <= SHOWN:
        return list(shares)
    known = [share for share in shares if share.people > 1]
    ordered = sorted(known, key=lambda share: -share.difference.mean)
    return ordered if len(ordered) <= SHOWN else ordered[: SHOWN // 2] + ordered[-SHOWN // 2 :]


def turned(degrees: tuple[int, int]) -> str:
    """A bin of viewpoints in words."""
    return f"seen from sides {degrees[0]} to {degrees[1]} degrees apart"


def check_comparable(other: ScoresFile, query: Split, gallery: int, protocol: str, reranked: bool) -> None:
    """UserError where differences to `other` would mean nothing: nothing is computed for it yet.

    query: those to be scored. gallery: its number of photos. reranked: whether they are to be re-ranked.
    """
    if other.reranked != reranked:
        how, remedy = ("with", "give it here, too") if other.reranked else ("without", "leave it away here")
        raise UserError(f"--against {other.path}: scored {how} --rerank; {remedy}, or write that file again")
    if other.protocol != protocol:
        raise UserError(
            f"--against {other.path}: scored by the protocol {other.protocol}, here it is {protocol}; "
            f"give --protocol {other.protocol}, or write that file again"
        )
    theirs = {file: row for row, file in enumerate(other.queries.files)}
    common = [(row, theirs[file]) for row, file in enumerate(query.paths) if file in theirs]
    if not common:
        raise UserError(
            f"--against {other.path}: its {len(theirs):,} queries are others, such as {other.queries.files[0]}; here "
            f"there are {len(query):,}, such as {query.paths[0]}: give scores of the same data set"
        )
    assert query.identities is not None
    here, there = (np.array(rows) for rows in zip(*common, strict=True))
    differing = (query.identities[here] != other.queries.identities[there]) | (
        query.cameras[here] != other.queries.cameras[there]
    )
    if differing.any():
        raise UserError(
            f"--against {other.path}: {query.paths[here[differing.argmax()]]} has another identity or camera there; "
            "give scores of the same data set"
        )
    if other.gallery != gallery:
        raise UserError(
            f"--against {other.path}: a gallery of {counted(other.gallery, 'photo')}, here it has "
            f"{gallery:,}; give scores of "
            "the same data set"
        )


def compare(mine: QueryScores, other: ScoresFile) -> Comparison:
    """Pair the queries by file. UserError where they have no match in common."""
    theirs = {file: row for row, file in enumerate(other.queries.files)}
    here = np.array([row for row, file in enumerate(mine.files) if file in theirs], np.int64)
    there = np.array([theirs[mine.files[row]] for row in here], np.int64)
    a, b = mine.take(here), other.queries.take(there)
    known = ~np.isnan(a.average_precisions) & ~np.isnan(b.average_precisions)
    a, b = a.take(np.flatnonzero(known)), b.take(np.flatnonzero(known))
    if not len(a.files):
        raise UserError(f"--against {other.path}: no query with a match on both sides")
    return Comparison(
        other=other,
        difference=paired_difference(a.average_precisions, b.average_precisions, a.identities),
        queries=len(a.files),
        people=len(np.unique(a.identities)),
        only_here=len(mine.files) - len(here),
        only_there=len(other.queries.files) - len(there),
        by_camera_pair=_by_camera_pair(a, b),
        by_viewpoint=_by_viewpoint(a, b),
    )


def _by_camera_pair(a: QueryScores, b: QueryScores) -> tuple[Share, ...]:
    cameras, of_a, of_b = np.intersect1d(a.gallery_cameras, b.gallery_cameras, return_indices=True)
    differences = a.by_camera[:, of_a] - b.by_camera[:, of_b]
    queries, columns = np.nonzero(~np.isnan(differences))
    pairs = np.stack([a.cameras[queries], cameras[columns]], axis=1)
    kinds, groups = np.unique(pairs, axis=0, return_inverse=True)
    return _shares(differences[queries, columns], a.identities[queries], groups.ravel(), kinds)


def _by_viewpoint(a: QueryScores, b: QueryScores) -> tuple[Share, ...]:
    if a.by_viewpoint is None or b.by_viewpoint is None:
        return ()
    differences = a.by_viewpoint - b.by_viewpoint
    queries, columns = np.nonzero(~np.isnan(differences))
    kinds, groups = np.unique(columns, return_inverse=True)
    return _shares(differences[queries, columns], a.identities[queries], groups, np.array(BINS)[kinds])


def _shares(values: np.ndarray, people: np.ndarray, groups: np.ndarray, kinds: np.ndarray) -> tuple[Share, ...]:
    """values, people, groups (K,): numbers of the rows of kinds (G, 2)."""
    intervals = grouped_intervals(values, people, groups, len(kinds)) if len(kinds) else []
    shares = []
    for number, (kind, interval) in enumerate(zip(kinds.tolist(), intervals, strict=True)):
        inside = groups == number
        seen = len(np.unique(people[inside]))
        shares.append(Share((kind[0], kind[1]), int(inside.sum()), seen, interval))
    return tuple(shares)
