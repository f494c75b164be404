"""The structure encoder and the generator."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import GeneratorConfig
from jgcl_ray.errors import UserError
from jgcl_ray.models.generator import Generator, StructureEncoder, check_image_size

SMALL = GeneratorConfig(width=2, style_width=8)


def test_default_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        networks = [StructureEncoder(GeneratorConfig()), Generator(GeneratorConfig(), 8192)]
    assert sum(p.numel() for network in networks for p in network.parameters()) == 13_380_675


def test_structure_is_a_quarter_of_the_size_and_the_image_of_full_size() -> None:
    structure = StructureEncoder(SMALL)(torch.rand(2, 1, 48, 40))
    assert structure.shape == (2, 16, 12, 10)
    image = Generator(SMALL, code_width=64)(structure, torch.randn(2, 64))
    assert image.shape == (2, 3, 48, 40)
    assert image.dtype == torch.float32


def test_slice_k_of_the_code_styles_block_k_alone() -> None:
    generator = Generator(SMALL, code_width=64)
    code = torch.randn(2, 64)
    changed = code.clone()
    changed[:, 32:48] += 1
    before, after = generator.style(code), generator.style(changed)
    assert before.gain.shape == before.offset.shape == (2, 4, 2, 16)
    for block in range(4):
        assert torch.equal(before.gain[:, block], after.gain[:, block]) is (block != 2)
        assert torch.equal(before.offset[:, block], after.offset[:, block]) is (block != 2)
    numbers = generator.gains[2](code[:, 32:48])
    torch.testing.assert_close(before.gain[:, 2], torch.stack([numbers[:, :16], numbers[:, 16:]], dim=1))


def test_standardised_codes_are_what_the_statistics_make_of_them() -> None:
    generator = Generator(SMALL.model_copy(update={"standardise_codes": True}), code_width=64)
    plain = Generator(SMALL, code_width=64)
    plain.load_state_dict({name: value for name, value in generator.state_dict().items() if "code_" not in name})
    codes = 3 + torch.rand(64) * torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(generator.style(codes).gain, plain.style(codes).gain)  # until it is told
    generator.standardise(codes.mean(0), codes.std(0))
    expected = (codes - codes.mean(0)) / (codes.std(0) + 0.1 * codes.std(0).mean())
    torch.testing.assert_close(generator.style(codes).gain, plain.style(expected).gain, rtol=1e-4, atol=1e-4)


def test_folded_generator_draws_the_same_image() -> None:
    torch.manual_seed(0)
    folded = Generator(SMALL, code_width=64)
    plain = Generator(SMALL.model_copy(update={"fold_upsampling": False}), code_width=64)
    plain.load_state_dict(folded.state_dict())
    structure, code = torch.randn(2, 16, 12, 10), torch.randn(2, 64)
    torch.testing.assert_close(folded(structure, code), plain(structure, code), rtol=1e-5, atol=1e-5)


def test_first_layers_reflect_at_the_border() -> None:
    encoder = StructureEncoder(SMALL)
    mesh = torch.rand(1, 1, 48, 40)
    conv = encoder.stem[0]
    expected = F.conv2d(F.pad(mesh, (1, 1, 1, 1), mode="reflect"), conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(conv(mesh), expected)


@pytest.mark.parametrize(("height", "width"), [(36, 40), (42, 40), (128, 36)])
def test_sizes_that_do_not_reflect_or_halve_are_refused(height: int, width: int) -> None:
    with pytest.raises(UserError, match=r"data\.height and data\.width must be multiples of 4, at least 40"):
        check_image_size(height, width)
    with pytest.raises(UserError):
        StructureEncoder(SMALL)(torch.rand(1, 1, height, width))
