"""Shared layers against plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.models.blocks import LayerNorm, UpsampledConv, adaptive_instance_norm, instance_norm

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_adaptive_instance_norm_normalises_each_map_then_scales_and_shifts_it(layout: torch.memory_format) -> None:
    x, gain, offset = random(3, 4, 5, 6), random(3, 4, seed=1), random(3, 4, seed=2)
    out = adaptive_instance_norm(x.contiguous(memory_format=layout), gain, offset)
    assert out.is_contiguous(memory_format=layout)
    plain = instance_norm(x.contiguous(memory_format=layout))
    for b in range(3):
        for c in range(4):
            normal = (x[b, c] - x[b, c].mean()) / (x[b, c].var(correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(plain[b, c], normal)
            torch.testing.assert_close(out[b, c], normal * gain[b, c] + offset[b, c])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_norm_and_its_gradients_are_those_of_the_formula(layout: torch.memory_format) -> None:
    norm = LayerNorm(4)
    norm.offset.data.normal_()
    x = random(3, 4, 5, 6).mul(3).add(1).contiguous(memory_format=layout).requires_grad_()
    samples = []
    for sample in x:
        normal = (sample - sample.mean()) / (sample.std() + 1e-5)
        samples.append(normal * norm.gain[:, None, None] + norm.offset[:, None, None])
    expected, upstream = torch.stack(samples), random(3, 4, 5, 6, seed=1)
    torch.testing.assert_close(norm(x), expected)
    inputs = (x, norm.gain, norm.offset)
    for ours, theirs in zip(
        torch.autograd.grad(norm(x), inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (2, 7), (6, 5)])
def test_folded_upsampling_equals_upsampling_then_reflecting_then_convolving(size: tuple[int, int]) -> None:
    folded = UpsampledConv(3, 2, folded=True)
    plain = UpsampledConv(3, 2, folded=False)
    plain.load_state_dict(folded.state_dict())
    x = random(2, 3, *size).requires_grad_()
    large = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(F.pad(large, (2, 2, 2, 2), mode="reflect"), folded.weight, folded.bias)
    upstream = random(*expected.shape, seed=1)
    wanted = torch.autograd.grad(expected, (x, folded.weight, folded.bias), upstream)
    for layer in (folded, plain):
        out = layer(x)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
        found = torch.autograd.grad(out, (x, layer.weight, layer.bias), upstream)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
