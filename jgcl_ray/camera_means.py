"""What all embeddings of a camera share, its mean, taken off them: a correction that needs no training.

Light, backdrop and viewpoint of a camera move all of its embeddings the same way. Without that shift those of one
person under two cameras lie nearer, and the encoder is used as it is.

Letters: n images, C cameras, D embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from jgcl_ray.errors import UserError

Camera = int | str
# A mean of fewer images says more of the people on them than of the camera; of one image nothing is left.
FEWEST = 2
FEW = 10


@dataclass(frozen=True, eq=False)
class CameraMeans:
    """The mean embedding of each camera."""

    cameras: tuple[Camera, ...]  # C, each once
    means: np.ndarray  # (C, D) float32
    images: np.ndarray  # (C,) int64, of which each is the mean

    @classmethod
    def of(cls, embeddings: np.ndarray, cameras: Sequence[Camera] | np.ndarray) -> Self:
        """Of embeddings (n, D) and the camera of each; UserError for a camera with fewer than two images."""
        names = _names(cameras)
        known = tuple(sorted(set(names)))
        place = {name: column for column, name in enumerate(known)}
        column = np.array([place[name] for name in names], np.int64)
        images = np.bincount(column, minlength=len(known))
        if (images < FEWEST).any():
            raise UserError(
                f"camera {known[int(images.argmin())]} has one image: its mean feature is that image; leave camera "
                "means out, or give more images of that camera"
            )
        means = [embeddings[column == number].mean(axis=0, dtype=np.float64) for number in range(len(known))]
        return cls(known, np.array(means, np.float32).reshape(len(known), embeddings.shape[1]), images)

    @property
    def overall(self) -> np.ndarray:
        """(D,) float32: the mean of all images, for one whose camera is not known."""
        return np.average(self.means, axis=0, weights=self.images).astype(np.float32)

    @property
    def small_camera_warnings(self) -> list[str]:
        """A warning for each camera whose mean is of fewer than ten images."""
        return [
            f"camera {camera} has fewer than {FEW} images: their mean says more of who is on them than of it"
            for camera, images in zip(self.cameras, self.images, strict=True)
            if images < FEW
        ]

    def missing(self, cameras: Sequence[Camera] | np.ndarray) -> list[Camera]:
        """Those of the cameras that have no mean."""
        return sorted(set(_names(cameras)) - set(self.cameras))

    def centred(self, embeddings: np.ndarray, cameras: Sequence[Camera | None] | np.ndarray) -> np.ndarray:
        """(n, D) float32 of unit length: each embedding less its camera's mean; less that of all for None.

        UserError for a camera without a mean, and for an embedding that is one.
        """
        missing = self.missing([name for name in _names(cameras) if name is not None])
        if missing:
            known = ", ".join(map(str, self.cameras))
            raise UserError(f"camera {missing[0]} has no mean feature; those that have one: {known}")
        rows: dict[Camera | None, np.ndarray] = {
            None: self.overall,
            **dict(zip(self.cameras, self.means, strict=True)),
        }
        offsets = np.array([rows[name] for name in _names(cameras)], np.float32).reshape(embeddings.shape)
        shifted = embeddings - offsets
        lengths = np.linalg.norm(shifted, axis=1, keepdims=True)
        if (nothing := np.flatnonzero(lengths < 1e-6)).size:
            camera = _names(cameras)[nothing[0]]
            whose = "all cameras" if camera is None else f"camera {camera}"
            raise UserError(
                f"an embedding is the mean of {whose}, whose images are all alike to this encoder: nothing is left "
                "of them less their mean; leave camera means out"
            )
        return np.asarray(shifted / lengths, np.float32)

    def joined(self, other: CameraMeans) -> CameraMeans:
        """With the cameras of `other` that this has not."""
        new = [column for column, camera in enumerate(other.cameras) if camera not in self.cameras]
        return CameraMeans(
            self.cameras + tuple(other.cameras[column] for column in new),
            np.concatenate([self.means, other.means[new]]),
            np.concatenate([self.images, other.images[new]]),
        )


def without_camera_means(embeddings: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Embeddings (n, D) less the mean of their camera's, (n, D) float32 of unit length; cameras (n,) integers.

    Where a camera has fewer than ten images the mean of all is taken off instead.
    """
    numbers, images = np.unique(cameras, return_counts=True)
    usual = np.isin(cameras, numbers[images >= FEW])
    if not usual.any():
        return CameraMeans.of(embeddings, np.zeros(len(cameras), np.int64)).centred(embeddings, [None] * len(cameras))
    means = CameraMeans.of(embeddings[usual], cameras[usual])
    return means.centred(embeddings, [int(camera) if ok else None for camera, ok in zip(cameras, usual, strict=True)])


def _names(cameras: Sequence[Camera | None] | np.ndarray) -> list[Any]:
    return cameras.tolist() if isinstance(cameras, np.ndarray) else list(cameras)
