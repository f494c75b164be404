"""Layout, number formats and compilation leave the mathematics alone."""

from __future__ import annotations

import pytest
import torch

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config, load_config
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training.optim import build_optimisers
from jgcl_ray.training.precision import autocast, laid_out, prepare
from jgcl_ray.training.step import generator_step


def make_config(*overrides: str) -> Config:
    small = ["data.height=48", "data.width=40", "encoder.backbone=resnet18", "encoder.weights=random"]
    small += ["generator.width=2", "generator.style_width=8", "discriminator.width=3"]
    return load_config(overrides=[*small, *overrides])


def make_networks(config: Config) -> Networks:
    torch.manual_seed(0)
    return prepare(build_networks(config), config.precision)


def one_step(config: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    batch = PairedBatch(
        torch.randn(2, 3, 48, 40),
        torch.rand(2, 1, 48, 40),
        torch.rand(2, 1, 48, 40),
        torch.full((2,), 45),
        torch.arange(2),
    )
    networks = make_networks(config)
    return dict(generator_step(networks, build_optimisers(networks, config.optim), batch, config, step=0).terms)


def test_layout_changes_no_number_beyond_rounding() -> None:
    rows, channels = (one_step(make_config(f"precision.channels_last={last}")) for last in (False, True))
    for name, value in rows.items():
        torch.testing.assert_close(channels[name], value, rtol=1e-3, atol=1e-5)


def test_layout_is_kept_from_the_image_to_the_last_map() -> None:
    config = make_config()
    networks = make_networks(config)
    image = laid_out(torch.randn(2, 3, 48, 40), config.precision)
    structure = networks.structure_encoder(laid_out(torch.rand(2, 1, 48, 40), config.precision))
    assert structure.is_contiguous(memory_format=torch.channels_last)
    assert networks.encoder.backbone(image, "real").is_contiguous(memory_format=torch.channels_last)
    out = networks.generator(structure, torch.randn(2, 2048))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_of_convolutions_and_ends_at_the_networks_outputs() -> None:
    config = make_config("precision.dtype=bf16")
    networks = make_networks(config)
    image = torch.randn(2, 3, 48, 40)
    with autocast(config.precision, image.device):
        assert networks.generator.to_image(torch.randn(2, 4, 8, 8)).dtype == torch.bfloat16
        encoded = networks.encoder(image)
        judged = networks.discriminator.with_input_gradient(image)
        generated = networks.generator(networks.structure_encoder(torch.rand(2, 1, 48, 40)), encoded.code)
    for out in (encoded.code, encoded.embedding, generated, *judged.maps, *judged.gradients):
        assert out.dtype == torch.float32


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16", None])
def test_auto_takes_bf16_where_it_is_computed(monkeypatch: pytest.MonkeyPatch, instructions: str | None) -> None:
    able = {"avx512_f": True, "amx_bf16": False, **({instructions: True} if instructions else {})}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    image = torch.randn(2, 3, 8, 8)
    for dtype, expected in (("auto", instructions is not None), ("bf16", True), ("float32", False)):
        with autocast(make_config(f"precision.dtype={dtype}").precision, image.device):
            assert (torch.nn.functional.conv2d(image, image).dtype == torch.bfloat16) == expected


@pytest.mark.slow
def test_compiled_networks_take_the_same_step() -> None:
    eager, compiled = (one_step(make_config(f"precision.compile={on}")) for on in (False, True))
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-5)
