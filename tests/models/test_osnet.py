"""OSNet against a slow version written from the names in its files; torchreid's files as people have them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from jgcl_ray.config import EncoderConfig
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.export_formats import export, preprocessing
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import build_encoder, read_state

State = Mapping[str, torch.Tensor]
ALL = ["osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0"]


def torchreid_file(name: str, classes: int = 5) -> dict[str, torch.Tensor]:
    """What torchreid would save: backbone, `fc`, `classifier`; weights and statistics at random."""
    torch.manual_seed(3)
    encoder = IdentityEncoder(
        EncoderConfig(backbone=name, head="linear_relu", weights="random", separate_batch_norm=False)
    )
    state = {}
    for ours, value in encoder.state_dict().items():
        theirs = ours.removeprefix("backbone.").replace("embed_norm.", "fc.1.").replace("embed.", "fc.0.")
        if theirs.endswith("running_var"):
            value = torch.rand_like(value) + 0.5
        elif theirs.endswith("running_mean") or (theirs.endswith(("weight", "bias")) and value.ndim == 1):
            value = value + torch.randn_like(value) * 0.2
        state[theirs] = value
    return state | {"classifier.weight": torch.randn(classes, 512), "classifier.bias": torch.randn(classes)}


class Literal:
    """torchreid's feature by plain operations on the tensors of a file."""

    def __init__(self, state: State, kind: str) -> None:
        self.state, self.kind = state, kind

    def get(self, name: str) -> torch.Tensor:
        return self.state[name]

    def batch_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean, var = self.get(f"{name}.running_mean").view(shape), self.get(f"{name}.running_var").view(shape)
        normal = (x - mean) / (var + 1e-5).sqrt()
        return normal * self.get(f"{name}.weight").view(shape) + self.get(f"{name}.bias").view(shape)

    def instance_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
        gain, offset = self.get(f"{name}.weight").view(1, -1, 1, 1), self.get(f"{name}.bias").view(1, -1, 1, 1)
        return (x - mean) / (var + 1e-5).sqrt() * gain + offset

    def conv_bn(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self.batch_norm(F.conv2d(x, self.get(f"{name}.conv.weight")), f"{name}.bn")

    def light(self, x: torch.Tensor, name: str) -> torch.Tensor:
        x = F.conv2d(x, self.get(f"{name}.conv1.weight"))
        x = F.conv2d(x, self.get(f"{name}.conv2.weight"), padding=1, groups=x.shape[1])
        return F.relu(self.batch_norm(x, f"{name}.bn"))

    def gate(self, x: torch.Tensor, name: str) -> torch.Tensor:
        means = F.adaptive_avg_pool2d(x, 1)
        hidden = F.relu(F.conv2d(means, self.get(f"{name}.fc1.weight"), self.get(f"{name}.fc1.bias")))
        return x * torch.sigmoid(F.conv2d(hidden, self.get(f"{name}.fc2.weight"), self.get(f"{name}.fc2.bias")))

    def block(self, x: torch.Tensor, name: str, instance: str) -> torch.Tensor:
        narrow = F.relu(self.conv_bn(x, f"{name}.conv1"))
        total = torch.zeros_like(narrow)
        for depth in (1, 2, 3, 4):
            out = narrow
            for place in range(depth):
                if self.kind == "ain":
                    layer = f"{name}.conv2.{depth - 1}.layers.{place}"
                else:
                    layer = f"{name}.conv2{'abcd'[depth - 1]}" + ("" if depth == 1 else f".{place}")
                out = self.light(out, layer)
            total = total + self.gate(out, f"{name}.gate")
        if instance == "inside":
            residual = self.instance_norm(F.conv2d(total, self.get(f"{name}.conv3.conv.weight")), f"{name}.IN")
        else:
            residual = self.conv_bn(total, f"{name}.conv3")
        known = f"{name}.downsample.conv.weight" in self.state
        out = residual + (self.conv_bn(x, f"{name}.downsample") if known else x)
        return F.relu(self.instance_norm(out, f"{name}.IN") if instance == "outside" else out)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.get("conv1.conv.weight"), stride=2, padding=3)
        x = F.relu((self.batch_norm if self.kind == "plain" else self.instance_norm)(x, "conv1.bn"))
        x = F.max_pool2d(x, 3, 2, 1)
        instance = {"ibn": {"conv2.0": "outside", "conv2.1": "outside"}}.get(self.kind, {})
        if self.kind == "ain":
            instance = dict.fromkeys(["conv2.0", "conv2.1", "conv3.1", "conv4.0"], "inside")
        for stage in ("conv2", "conv3", "conv4"):
            for place in (0, 1):
                x = self.block(x, f"{stage}.{place}", instance.get(f"{stage}.{place}", ""))
            if stage != "conv4":
                narrowing = f"pool{stage[-1]}.0" if self.kind == "ain" else f"{stage}.2.0"
                x = F.avg_pool2d(F.relu(self.conv_bn(x, narrowing)), 2)
        x = F.relu(self.conv_bn(x, "conv5")).mean((2, 3))
        return F.relu(self.batch_norm(F.linear(x, self.get("fc.0.weight"), self.get("fc.0.bias")), "fc.1"))


@pytest.mark.parametrize(
    ("name", "parameters"), zip(ALL, [2_169_508, 1_285_754, 630_034, 201_864, 2_170_532, 2_169_508], strict=True)
)
def test_parameters_without_the_classifier_are_as_many_as_torchreids(name: str, parameters: int) -> None:
    with torch.device("meta"):
        encoder = IdentityEncoder(EncoderConfig(backbone=name, head="linear_relu", weights="random"))
    assert sum(p.numel() for p in encoder.parameters()) == parameters


@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0"])
@torch.no_grad()
def test_a_file_of_torchreid_gives_torchreids_feature(name: str, tmp_path: Path) -> None:
    state, image = torchreid_file(name), torch.randn(2, 3, 96, 64)
    torch.save(state, tmp_path / "osnet.pth")
    encoder = Encoder.load(tmp_path / "osnet.pth")
    assert (encoder.architecture.backbone, encoder.architecture.head) == (name, "linear_relu")
    assert (encoder.height, encoder.width, encoder.width_of_embedding) == (256, 128, 512)
    expected = Literal(state, encoder.architecture.backbone.split("_")[1] if "x1" in name else "plain")(image)
    assert (expected >= 0).all() and expected.count_nonzero() > 100
    found = encoder.module(image).embedding
    assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_images_are_resized_as_torchreid_does_and_the_export_keeps_to_it(tmp_path: Path) -> None:
    torch.save(torchreid_file("osnet_x0_25"), tmp_path / "osnet.pth")
    encoder = Encoder.load(tmp_path / "osnet.pth", height=64, width=32)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8))
    expected = np.asarray(photo.resize((32, 64), Image.Resampling.BILINEAR))
    export(encoder, tmp_path / "osnet.safetensors", "safetensors")
    for loaded in (encoder, Encoder.load(tmp_path / "osnet.safetensors")):
        np.testing.assert_array_equal(loaded.read(photo), expected)
    assert "bilinear, antialiased" in preprocessing(encoder, "onnx")["resize"]


def test_training_checkpoints_load_and_the_classifier_is_said_to_stay_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, path = torchreid_file("osnet_x0_25"), tmp_path / "model.pth.tar-150"
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [20, 40])
    content = {
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "epoch": 150,
        "rank1": np.float64(0.912),
        "mAP": np.float32(0.75),
        "best": np.bool_(True),
        "ids": np.int64(751),
        "optimizer": optimiser.state_dict(),
        "scheduler": schedule.state_dict(),
    }
    torch.save(content, path)
    assert read_state(path).keys() == state.keys()
    with caplog.at_level(logging.WARNING):
        encoder = Encoder.load(path)
    assert "classifier.weight, classifier.bias left out" in caplog.text and "fc.0" not in caplog.text
    torch.testing.assert_close(encoder.module.embed.weight, state["fc.0.weight"])
    torch.testing.assert_close(encoder.module.embed_norm.running_var, state["fc.1.running_var"])


def test_a_run_starts_from_the_backbone_and_its_own_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, path = torchreid_file("osnet_x0_25"), tmp_path / "osnet_x0_25_msmt17.pt"
    torch.save(state, path)
    config = EncoderConfig(backbone="osnet_x0_25", embedding=32, weights_file=path)
    with caplog.at_level(logging.WARNING):
        encoder = build_encoder(config)
    assert "fc.0.weight" in caplog.text and "classifier.bias" in caplog.text
    assert torch.equal(encoder.backbone.conv4[1].conv2d[3].conv2.weight, state["conv4.1.conv2d.3.conv2.weight"])
    assert torch.equal(encoder.backbone.conv5.bn.generated_var, state["conv5.bn.running_var"])
    assert encoder.embed.weight.shape == (32, 128) and not encoder.rectifies

    own = build_encoder(config.model_copy(update={"head": "linear_relu", "embedding": 512, "pooling": "gem"}))
    assert torch.equal(own.embed_norm.generated_mean, state["fc.1.running_mean"])
    assert own.pool.power == 3
    with pytest.raises(UserError, match=r"another shape: embed\.weight \(512, 128\) instead of \(64, 128\)"):
        build_encoder(config.model_copy(update={"head": "linear_relu", "embedding": 64}))


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("osnet_ain_x1_0", "osnet_x1_0"),
        ("osnet_x1_0", "osnet_ain_x1_0"),
        ("osnet_ibn_x1_0", "osnet_x1_0"),
        ("osnet_x0_25", "osnet_x0_5"),
        ("osnet_x0_25", "resnet18"),
    ],
)
def test_weights_of_another_backbone_are_named_for_what_they_are(held: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torchreid_file(held), path)
    with pytest.raises(
        UserError, match=rf"holds the weights of {held}, not of {wanted}: set encoder\.backbone={held}"
    ):
        build_encoder(EncoderConfig(backbone=wanted, weights_file=path))


def test_an_incomplete_file_lists_its_names(tmp_path: Path) -> None:
    state = torchreid_file("osnet_x0_25")
    del state["conv3.0.gate.fc1.bias"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"1 name missing: conv3\.0\.gate\.fc1\.bias"):
        build_encoder(EncoderConfig(backbone="osnet_x0_25", weights_file=tmp_path / "weights.pth"))
    with pytest.raises(UserError, match=r"no encoder that is known.*osnet_x0_25"):
        Encoder.load(tmp_path / "weights.pth")


def test_without_a_file_one_line_says_where_the_weights_are() -> None:
    with pytest.raises(UserError, match=r"osnet_x0_5_imagenet\.pth of torchreid's model zoo.*weights_file=PATH"):
        build_encoder(EncoderConfig(backbone="osnet_x0_5"))


ONNX = os.environ.get("JGCL_RAY_OSNET_ONNX", "")


@pytest.mark.skipif(
    not ONNX, reason="JGCL_RAY_OSNET_ONNX: an osnet_x0_25*.onnx that torch.onnx exported from torchreid"
)
def test_an_onnx_file_of_trained_weights_gives_the_same_feature() -> None:
    """Its batch norms are folded into its convolutions: ours are made to add the folded offsets and no more."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    graph = onnx.load(ONNX).graph
    stored = {tensor.name: torch.tensor(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    encoder = IdentityEncoder(EncoderConfig(backbone="osnet_x0_25", head="linear_relu", weights="random")).eval()
    state, filled = encoder.state_dict(), set()
    for node in graph.node:
        values = [stored[name] for name in node.input if name in stored]
        if node.op_type == "Conv":
            name = _module_of(node.name)
            state[f"{name}.weight"] = values[0]
            filled.add(f"{name}.weight")
            if len(values) == 2 and f"{name}.bias" in state:
                state[f"{name}.bias"] = values[1]
            elif len(values) == 2:
                norm = f"{name.rpartition('.')[0]}.bn"
                state[f"{norm}.weight"] = torch.full_like(values[1], (1 + 1e-5) ** 0.5)
                state[f"{norm}.bias"] = values[1]
        elif node.op_type == "Gemm":
            state |= dict(zip(("embed.weight", "embed.bias"), values, strict=True))
        elif node.op_type == "BatchNormalization":
            names = (f"embed_norm.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
            state |= dict(zip(names, values, strict=True))
    assert filled == {f"{name}.weight" for name, m in encoder.named_modules() if isinstance(m, torch.nn.Conv2d)}
    encoder.load_state_dict(state)
    image = torch.randn(4, 3, 256, 128)
    expected = onnxruntime.InferenceSession(ONNX).run(None, {graph.input[0].name: image.numpy()})[0]
    with torch.no_grad():
        found = encoder(image).embedding
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def _module_of(node: str) -> str:
    """`/conv2/conv2.0/gate/fc1_2/Conv` -> `backbone.conv2.0.gate.fc1`; a dotted part repeats the one before it."""
    parts: list[str] = []
    for part in node.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return "backbone." + re.sub(r"_\d+$", "", ".".join(parts))
