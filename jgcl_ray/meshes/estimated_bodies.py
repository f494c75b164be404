"""Bodies that the estimator finds once and keeps in a file, until the images or the weights change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jgcl_ray.config import MeshesConfig
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_parameters import read_body_parameters, write_body_parameters
from jgcl_ray.meshes.estimator import WEIGHTS, BodyEstimator, Watch, weights_digest
from jgcl_ray.stored_files import read_arrays


@dataclass(frozen=True, eq=False)
class EstimatedBodies:
    """A file of body parameters, and how sure they are."""

    file: Path  # npz that meshes.parameters takes
    names: tuple[str, ...]  # N images
    deviation: np.ndarray  # (N,) degrees, of the yaw (estimator.BodyEstimates)
    made_from: str  # see the function

    def unsure(self, above: float) -> np.ndarray:
        """Rows of the images whose deviation is greater, (M,) int64."""
        return np.flatnonzero(self.deviation > above)


def ensure_estimated(
    file: Path, folder: Path, names: Sequence[str], meshes: MeshesConfig, watch: Watch = iter
) -> EstimatedBodies:
    """The bodies on images given by their names in a folder: those in `file` while they are true, else new ones.

    They are estimated again when another image is there, one has another size or date, or the weights are others.
    """
    weights = meshes.weights or WEIGHTS
    origin = made_from(folder, names, weights)
    kept = read_estimated(file)
    if kept is not None and kept.made_from == origin:
        return kept
    found = BodyEstimator(weights).estimate(folder, names, watch)
    write_body_parameters(
        found.to_parameters(), file, deviation=found.deviation, yaw=found.yaw, made_from=np.array(origin)
    )
    read_body_parameters.cache_clear()
    return EstimatedBodies(file, found.names, found.deviation, origin)


def read_estimated(file: Path) -> EstimatedBodies | None:
    """What `ensure_estimated` has left in a file; None where there is none."""
    if not file.is_file():
        return None
    expected = {"names": "U N", "deviation": "f N", "made_from": "U"}
    arrays = read_arrays(file, expected, "delete it, the bodies will be estimated again")
    return EstimatedBodies(file, tuple(arrays["names"].tolist()), arrays["deviation"], str(arrays["made_from"]))


def made_from(folder: Path, names: Sequence[str], weights: Path) -> str:
    """A digest of the weights and of each image's name, size and date."""
    digest = hashlib.sha256(weights_digest(weights).encode())
    for name in names:
        try:
            state = (folder / name).stat()
        except OSError as error:
            raise UserError(f"{folder / name}: {error.strerror}; the data set has changed, start again") from None
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
