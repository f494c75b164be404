"""What every backbone has to give, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jgcl_ray.config import EncoderConfig
from jgcl_ray.encoder import Encoder
from jgcl_ray.export_formats import export
from jgcl_ray.models.backbones import BACKBONES, backbone_of
from jgcl_ray.models.batch_norm import share_statistics
from jgcl_ray.models.encoder import IdentityEncoder

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ["resnet18", "resnet18_ibn_a", "osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0", "efficientnet_lite0"]


def make_encoder(backbone: str, **fields: object) -> IdentityEncoder:
    torch.manual_seed(0)
    return IdentityEncoder(EncoderConfig.model_validate({"backbone": backbone, "weights": "random", **fields}))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_each_is_told_from_the_others_by_its_weights(name: str) -> None:
    with torch.device("meta"):
        state = BACKBONES[name].build(False).state_dict()
    # Under its own names TensorFlow's EfficientNet is that of the release: only their files differ.
    assert backbone_of(state) == (f"{name}_symmetric" if name == "efficientnet_lite0" else name)
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert backbone_of(old) == backbone_of(state)
    assert backbone_of(old | {"more.weight": torch.zeros(1)}) is None
    old.popitem()
    assert backbone_of(old) is None


@pytest.mark.parametrize("name", SMALL)
def test_last_map_code_and_embedding(name: str) -> None:
    encoder, channels = make_encoder(name, embedding=16), BACKBONES[name].channels
    image = torch.randn(2, 3, 96, 48)
    assert encoder.backbone(image, "real").shape == (2, channels, 6, 3)
    out = encoder(image)
    assert out.code.shape == (2, 4 * channels) == (2, encoder.code_width) and out.embedding.shape == (2, 16)
    (out.embedding.square().mean() + out.code.square().mean()).backward()
    without = [key for key, parameter in encoder.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_generated_images_have_statistics_of_their_own(name: str) -> None:
    encoder = make_encoder(name).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder(torch.randn(4, 3, 64, 32) + 2, "generated")
    changed = {key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])}
    means = {key for key in before if key.endswith("generated_mean")}
    assert means <= changed and all("generated_" in key for key in changed)
    share_statistics(encoder)
    assert all(
        torch.equal(encoder.state_dict()[key], encoder.state_dict()[key.replace("generated", "running")])
        for key in means
    )


@pytest.mark.parametrize("name", SMALL)
def test_bf16_stays_near_float32(name: str) -> None:
    encoder, image = make_encoder(name, embedding=16).eval(), torch.randn(4, 3, 64, 48)
    with torch.no_grad():
        exact = encoder(image).code
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = encoder(image).code
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", SMALL)
def test_groups_of_a_batch_are_batches(name: str) -> None:
    image = torch.randn(4, 3, 64, 48)
    grouped, plain = make_encoder(name, batch_norm_group=2).train(), make_encoder(name).train()
    with torch.no_grad():
        expected = torch.cat([plain(image[:2]).code, plain(image[2:]).code])
        assert (grouped(image).code - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("format_name", ["safetensors", "onnx", "pt2", "torchscript"])
@pytest.mark.parametrize("name", ["osnet_x0_25", "efficientnet_lite0"])
def test_exported_files_do_the_same(name: str, format_name: str, tmp_path: Path) -> None:
    if format_name == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install 'jgcl_ray[export]'")
    config = EncoderConfig(backbone=name, head="linear_relu", embedding=16, weights="random")
    torch.manual_seed(0)
    encoder = Encoder(IdentityEncoder(config), config, 64, 36, device="cpu")
    path = tmp_path / f"encoder.{format_name}"
    assert export(encoder, path, format_name) <= 1e-4
    if format_name == "safetensors":
        again = Encoder.load(path)
        assert again.fingerprint == encoder.fingerprint and again.architecture.head == "linear_relu"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ain_x1_0", "efficientnet_lite0"])
def test_compiled_in_one_graph(name: str) -> None:
    encoder, image = make_encoder(name, embedding=16).eval(), torch.randn(2, 3, 64, 32)
    compiled = torch.compile(encoder, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image).code, encoder(image).code, rtol=1e-3, atol=1e-4)
    encoder.train()
    assert torch.isfinite(compiled(image).embedding).all()
