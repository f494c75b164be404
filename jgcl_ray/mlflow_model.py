"""The encoder of a run as an MLflow model: images in, embeddings out.

MLflow keeps a copy of this file and runs it when the model is loaded (models from code); nothing is pickled.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
import torch.nn.functional as F
from mlflow.pyfunc import PythonModel, PythonModelContext

from jgcl_ray.config import load_config
from jgcl_ray.data.image_files import UNREADABLE, read_rgb
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import load_weights

BATCH = 64


class EncoderModel(PythonModel):
    """Artifacts: `weights` (safetensors of models.weights), `config` (YAML: encoder, data.height, data.width)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the encoder, on a GPU where there is one."""
        config = load_config(context.artifacts["config"])
        self._height, self._width = config.data.height, config.data.width
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._encoder = IdentityEncoder(config.encoder)
        load_weights(self._encoder, Path(context.artifacts["weights"]))
        self._encoder.eval().to(self._device)

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """n images -> (n, D) float32, L2-normalised.

        model_input: image paths or encoded images (bytes of a JPEG, PNG, ...), in a list, an array, or the first
        column of a DataFrame; the type hint is one of the few that MLflow does not take for a schema. ValueError
        names an image that cannot be read. `params` is not used.
        """
        items = list(_items(model_input))
        rows = [self._embed(items[start : start + BATCH], start) for start in range(0, len(items), BATCH)]
        return np.concatenate(rows or [np.zeros((0, self._encoder.embedding_width), np.float32)])

    @torch.inference_mode()
    def _embed(self, items: list[Any], start: int) -> np.ndarray:
        images = [_read(item, start + i, self._height, self._width) for i, item in enumerate(items)]
        embedding = self._encoder(normalise_images(images).to(self._device)).embedding
        return F.normalize(embedding).cpu().numpy()


def _items(model_input: Any) -> Iterable[Any]:
    if hasattr(model_input, "iloc"):  # pandas: a DataFrame, or one of its columns
        column = model_input.iloc[:, 0] if model_input.ndim == 2 else model_input
        return column.tolist()
    if isinstance(model_input, str | bytes | Path):
        return [model_input]
    return np.asarray(model_input, dtype=object).ravel().tolist()


def _read(item: Any, row: int, height: int, width: int) -> np.ndarray:
    encoded = isinstance(item, bytes | bytearray)
    try:
        return read_rgb(io.BytesIO(item) if encoded else Path(item), height, width)
    except UNREADABLE as error:
        raise ValueError(
            f"image {row} ({len(item)} bytes)" if encoded else f"{item}: cannot be read ({error})"
        ) from None


mlflow.models.set_model(EncoderModel())
