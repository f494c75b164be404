"""What an evaluation asks of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jgcl_ray.models.encoder import IdentityEncoder


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

    def embed_with_mirror(
        self, images: Sequence[Path], batch_size: int = 64, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """n files -> their embeddings, and the means with those of their mirror images, normalised."""
        ...
