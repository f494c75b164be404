"""What each query scored, as a file of scores keeps it, so that two files can be compared query by query.

Letters: Q queries, C cameras of the gallery, V bins of viewpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.viewpoints import BINS

_DIGITS = 6


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
    def parse(cls, document: dict[str, Any]) -> Self:
        """What `document` gave; KeyError, TypeError or ValueError for anything else."""
        files = tuple(document["files"])
        views = (
            document.get("by_viewpoint") if document.get("viewpoints") == [list(limits) for limits in BINS] else None
        )
        scores = cls(
            files,
            np.array(document["identities"], np.int64),
            np.array(document["cameras"], np.int64),
            np.array(document["average_precision"], np.float64),
            np.array(document["first_match"], np.int64),
            np.array(document["gallery_cameras"], np.int64),
            np.array(document["by_camera"], np.float64).reshape(len(files), -1),
            None if views is None else np.array(views, np.float64).reshape(len(files), len(BINS)),
        )
        columns = (scores.identities, scores.cameras, scores.average_precisions, scores.first_matches)
        if any(column.shape != (len(files),) for column in columns) or len(scores.gallery_cameras) != len(
            scores.by_camera.T
        ):
            raise ValueError("columns of unequal length")
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

    @classmethod
    def read(cls, path: Path) -> Self:
        """UserError where it cannot be read, or holds no scores by query."""
        try:
            document = json.loads(path.read_text())
            if "by_query" not in document:
                raise UserError(
                    f"{path}: holds no scores by query, it is of an earlier version; write it again by "
                    "python -m jgcl_ray.evaluate ... --json"
                )
            return cls(
                path,
                float(document["mAP"]),
                str(document["protocol"]),
                int(document["gallery"]),
                str(document.get("checkpoint", {}).get("path", "")),
                QueryScores.parse(document["by_query"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: no file of scores ({error}); give what evaluate --json wrote") from None


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(value, _DIGITS) for value in values.tolist()]
