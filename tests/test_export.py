"""Every format against the encoder it came from, in batches of several sizes, run as a stranger would run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import write_run
from PIL import Image
from safetensors import safe_open

from jgcl_ray import export_formats
from jgcl_ray.encoder import Encoder
from jgcl_ray.export import main
from jgcl_ray.export_formats import Format, export
from jgcl_ray.ownership import is_export

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), "data.height=64", "data.width=48", "encoder.pooling=gem")


def run_onnx(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'jgcl_ray[export]'")
    session = onnxruntime.InferenceSession(path)
    metadata = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run(["embeddings"], {"images": images})[0], metadata["preprocessing"]


def run_pt2(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    extra = {"preprocessing": ""}
    module = torch.export.load(path, extra_files=extra).module()
    return lambda images: module(torch.from_numpy(images)).detach().numpy(), extra["preprocessing"]


def run_torchscript(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    extra = {"preprocessing": ""}
    module = torch.jit.load(path, _extra_files=extra)
    return lambda images: module(torch.from_numpy(images)).detach().numpy(), extra["preprocessing"]


@pytest.mark.parametrize(("name", "load"), [("onnx", run_onnx), ("pt2", run_pt2), ("torchscript", run_torchscript)])
def test_graphs_embed_photos_as_the_encoder_does(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, load: Callable
) -> None:
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install 'jgcl_ray[export]'")
    out = tmp_path / f"encoder.{name}"
    main(["--checkpoint", str(run), "--format", name, "--out", str(out)])
    assert "normalisation: inside the model" in capsys.readouterr().out and is_export(out)
    embed, preprocessing = load(out)
    text = json.loads(preprocessing)
    encoder = Encoder.load(run)
    assert text["fingerprint"] == encoder.fingerprint and (text["height"], text["width"]) == (64, 48)
    random = np.random.default_rng(0)
    photos = [Image.fromarray(random.integers(0, 256, (70, 30, 3), dtype=np.uint8)) for _ in range(5)]
    pixels = np.stack([np.asarray(photo.resize((48, 64), Image.Resampling.BICUBIC)) for photo in photos])
    images = (pixels / 255).astype(np.float32).transpose(0, 3, 1, 2)
    expected = encoder.embed(photos)
    for count in (1, 2, 5):
        np.testing.assert_allclose(embed(images[:count].copy()), expected[:count], atol=1e-4)


def test_exported_weights_are_a_checkpoint(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder.safetensors"
    main(["--checkpoint", str(run), "--format", "safetensors", "--out", str(out), "--height", "80"])
    encoder, exported = Encoder.load(run), Encoder.load(out)
    assert exported.fingerprint == encoder.fingerprint and is_export(out)
    assert (exported.height, exported.width, exported.config) == (80, 48, None)
    assert exported.architecture == encoder.architecture.model_copy(update={"weights_file": None})
    with safe_open(out, framework="pt") as file:
        assert "RGB" in json.loads(file.metadata()["preprocessing"])["input"]


def test_a_file_that_differs_is_not_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, out = Encoder.load(run), tmp_path / "encoder.pt2"
    forgets = Format(
        lambda module, example, metadata, path: path.touch(), lambda path: lambda images: torch.zeros(1, 16)
    )
    monkeypatch.setitem(export_formats.FORMATS, "pt2", forgets)
    with pytest.raises(RuntimeError, match="differs from the encoder"):
        export(encoder, out, "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_runtime_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(SystemExit) as exit_:
        main(["--checkpoint", str(run), "--format", "onnx", "--out", str(tmp_path / "encoder.onnx")])
    assert exit_.value.code == 2 and "pip install 'jgcl_ray[export]'" in capsys.readouterr().err
