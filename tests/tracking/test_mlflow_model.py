"""The best encoder as an MLflow model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tracked_runs import config_of, run_named

from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.image_files import read_rgb
from jgcl_ray.mlflow_mirror import quiet_mlflow
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import save_weights
from jgcl_ray.run_log import RunLog

quiet_mlflow()
import mlflow  # noqa: E402


class TestModel:
    def test_it_loads_and_embeds_as_the_encoder_does(
        self, root: Path, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = config_of(root, "model")
        torch.manual_seed(0)
        encoder = IdentityEncoder(config.encoder).eval()
        save_weights(encoder, tmp_path / "encoder.safetensors")
        pixels = np.random.default_rng(0).integers(0, 256, (5, 90, 40, 3), dtype=np.uint8)
        paths, encoded = [tmp_path / f"{i}.png" for i in range(5)], []
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image).save(path)
            encoded.append(path.read_bytes())
        with torch.inference_mode():
            images = normalise_images([read_rgb(path, 64, 32) for path in paths])
            wanted = F.normalize(encoder(images).embedding).numpy()

        with RunLog.open(root / "model", config) as log:
            log.model(tmp_path / "encoder.safetensors", step=3)
            log.model(tmp_path / "encoder.safetensors", step=4)
            run_id = log.run_id
        [logged] = client.search_logged_models([run_named(client, "model").info.experiment_id], "name = 'model'")
        assert (logged.source_run_id, logged.status.value) == (run_id, "READY")
        assert [output.step for output in client.get_run(run_id).outputs.model_outputs][-1] == 4

        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        names = [str(path) for path in paths]
        inputs = [
            names,
            np.array(names),
            encoded,
            pd.DataFrame({"image": names}),
            pd.DataFrame({"b": encoded}),
        ]
        for source in (f"runs:/{run_id}/model", str(root / "model" / "model")):
            model = mlflow.pyfunc.load_model(source)
            for given in inputs:
                found = model.predict(given)
                assert found.dtype == np.float32 and found.shape == (5, encoder.embedding_width)
                np.testing.assert_allclose(found, wanted, atol=1e-5)
            assert model.predict([]).shape == (0, encoder.embedding_width)
            with pytest.raises(ValueError, match=r"absent\.png: cannot be read"):
                model.predict([str(tmp_path / "absent.png")])
            with pytest.raises(ValueError, match=r"image 1 \(3 bytes\)"):
                model.predict([encoded[0], b"abc"])

    def test_nothing_is_pickled(self, tmp_path: Path) -> None:
        config = config_of(tmp_path, "run", "tracking.enabled=false")
        save_weights(IdentityEncoder(config.encoder), tmp_path / "encoder.safetensors")
        with RunLog.open(tmp_path / "run", config) as log:
            log.model(tmp_path / "encoder.safetensors", step=0)
        endings = {file.suffix for file in (tmp_path / "run" / "model").rglob("*") if "code" not in file.parts}
        assert not endings & {".pkl", ".pickle", ".pt", ".pth"}
