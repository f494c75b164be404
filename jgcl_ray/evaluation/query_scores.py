"""What each query scored, as a file of scores keeps it, so that two files can be compared query by query.

Letters: Q queries, C cameras of the gallery, V bins of viewpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.viewpoints import BINS
from jgcl_ray.stored_files import checked, read_json

_DIGITS = 6
_REMEDY = "give what evaluate --json wrote, or write it again"


Share = Annotated[float, Field(ge=0, le=1)]  # which NaN is not
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]


@dataclass(frozen=True)
class _Columns:
    """by_query of a file of scores."""

    files: tuple[str, ...]
    identities: list[Number]
    cameras: list[Number]
    average_precision: list[Share | None]
    first_match: list[Number]
    gallery_cameras: list[Number]
    by_camera: list[list[Share | None]]
    viewpoints: list[tuple[int, int]] | None = None
    by_viewpoint: list[list[Share | None]] | None = None


@dataclass(frozen=True)
class _Checkpoint:
    path: str = ""


@dataclass(frozen=True)
class _Document:
    """What is read of a file of scores."""

    mAP: Share
    protocol: str
    gallery: Number
    by_query: _Columns
    checkpoint: _Checkpoint = field(default_factory=_Checkpoint)
    reranked: bool = False


@dataclass(frozen=True, eq=False)
class QueryScores:
    """Of one evaluation. NaN, and rank 0, where a query has no match."""

    files: tuple[str, ...]  # Q, relative to the folder of the queries
    identities: np.ndarray  # (Q,) int64
    cameras: np.ndarray  # (Q,) int64
    average_precisions: np.ndarray  # (Q,) float64
    first_matches: np.ndarray  # (Q,) int64, from 1
    gallery_cameras: np.ndarray  # (C,) int64
    by_camera: np.ndarray  # (Q, C) float64: average precision against the photos of one camera and nothing else
    by_viewpoint: np.ndarray | None  # (Q, V) float64: with the matches of one bin alone; None where not known

    def take(self, rows: np.ndarray) -> QueryScores:
        """Those of some queries, (n,) row numbers, in that order."""
        return QueryScores(
            tuple(self.files[row] for row in rows),
            self.identities[rows],
            self.cameras[rows],
            self.average_precisions[rows],
            self.first_matches[rows],
            self.gallery_cameras,
            self.by_camera[rows],
            None if self.by_viewpoint is None else self.by_viewpoint[rows],
        )

    def document(self) -> dict[str, Any]:
        """Ready for JSON: columns of Q entries, null for NaN."""
        document: dict[str, Any] = {
            "files": list(self.files),
            "identities": self.identities.tolist(),
            "cameras": self.cameras.tolist(),
            "average_precision": _rounded(self.average_precisions),
            "first_match": self.first_matches.tolist(),
            "gallery_cameras": self.gallery_cameras.tolist(),
            "by_camera": [_rounded(row) for row in self.by_camera],
        }
        if self.by_viewpoint is not None:
            document["viewpoints"] = [list(limits) for limits in BINS]
            document["by_viewpoint"] = [_rounded(row) for row in self.by_viewpoint]
        return document

    @classmethod
    def of(cls, columns: _Columns) -> Self:
        """What `document` gave; ValueError for columns of unequal length."""
        views = columns.by_viewpoint if columns.viewpoints == list(BINS) else None
        queries = len(columns.files)
        scores = cls(
            columns.files,
            np.array(columns.identities, np.int64),
            np.array(columns.cameras, np.int64),
            np.array(columns.average_precision, np.float64),
            np.array(columns.first_match, np.int64),
            np.array(columns.gallery_cameras, np.int64),
            np.array(columns.by_camera, np.float64).reshape(queries, len(columns.gallery_cameras)),
            None if views is None else np.array(views, np.float64).reshape(queries, len(BINS)),
        )
        each = (scores.identities, scores.cameras, scores.average_precisions, scores.first_matches)
        if not queries or any(column.shape != (queries,) for column in each):
            raise ValueError("no queries, or columns of unequal length")
        return scores


@dataclass(frozen=True)
class ScoresFile:
    """A file that `evaluate --json` wrote."""

    path: Path
    mAP: float
    protocol: str
    gallery: int  # images
    checkpoint: str
    queries: QueryScores
    reranked: bool = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """UserError where it cannot be read, or holds no scores by query."""
        whole = read_json(path, dict[str, Any], _REMEDY)
        if whole.get("by_query") is None:
            raise UserError(
                f"{path}: holds no scores by query, it is of an earlier version; write it again by "
                "python -m jgcl_ray.evaluate ... --json"
            )
        document = checked(whole, _Document, str(path), _REMEDY)
        try:
            queries = QueryScores.of(document.by_query)
        except ValueError as error:
            raise UserError(f"{path}: damaged (by_query: {error}); {_REMEDY}") from None
        checkpoint = document.checkpoint.path
        return cls(path, document.mAP, document.protocol, document.gallery, checkpoint, queries, document.reranked)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(value, _DIGITS) for value in values.tolist()]
