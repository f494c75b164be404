"""The encoder of a run as an MLflow model: images in, embeddings out.

MLflow keeps a copy of this file and runs it when the model is loaded (models from code); nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from jgcl_ray.config import load_config
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import load_weights


class EncoderModel(PythonModel):
    """Artifacts: `weights` (safetensors of models.weights), `config` (YAML: encoder, data.height, data.width)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the encoder, on a GPU where there is one."""
        config = load_config(context.artifacts["config"])
        module = IdentityEncoder(config.encoder)
        load_weights(module, Path(context.artifacts["weights"]))
        self._encoder = Encoder(module, config.encoder, config.data.height, config.data.width)

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """n images -> (n, D) float32, L2-normalised.

        model_input: image paths or encoded images (bytes of a JPEG, PNG, ...), in a list, an array, or the first
        column of a DataFrame; the type hint is one of the few that MLflow does not take for a schema. ValueError
        names an image that cannot be read. `params` is not used.
        """
        try:
            return self._encoder.embed(list(_items(model_input)))
        except UserError as error:
            raise ValueError(str(error)) from None


def _items(model_input: Any) -> Iterable[Any]:
    if hasattr(model_input, "iloc"):  # pandas: a DataFrame, or one of its columns
        column = model_input.iloc[:, 0] if model_input.ndim == 2 else model_input
        return column.tolist()
    if isinstance(model_input, str | bytes | Path):
        return [model_input]
    return np.asarray(model_input, dtype=object).ravel().tolist()


mlflow.models.set_model(EncoderModel())
