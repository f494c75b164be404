"""Weights in fewer bits, and back."""

from __future__ import annotations

import torch

from jgcl_ray.config import EncoderConfig
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.origin import packed, unpacked


def test_eight_bits_a_weight_and_back() -> None:
    encoder = IdentityEncoder(EncoderConfig(backbone="osnet_x0_25", weights="random"))
    state, small = encoder.state_dict(), packed(encoder)
    back = unpacked(small)
    assert back.keys() == state.keys() and small["embed.weight"].dtype == torch.int8
    for name, tensor in state.items():
        if tensor.ndim > 1:
            largest = tensor.flatten(1).abs().amax(1).view(-1, *[1] * (tensor.ndim - 1))
            assert ((back[name] - tensor).abs() <= largest / 254 * 1.001).all(), name
        else:
            assert torch.equal(back[name], tensor), name
    assert unpacked(state).keys() == state.keys()  # any other state stays as it is


def test_a_channel_of_zeros_stays_one() -> None:
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(layer.weight)
    assert torch.equal(unpacked(packed(layer))["weight"], layer.weight)
