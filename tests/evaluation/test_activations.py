"""Similarity maps: what the cells add, summed up, is the similarity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import EncoderConfig
from jgcl_ray.evaluation.activations import similarity_maps
from jgcl_ray.models.encoder import IdentityEncoder


def encoder_with(**fields: object) -> IdentityEncoder:
    torch.manual_seed(1)
    config = EncoderConfig.model_validate({"backbone": "resnet18", "weights": "random", "embedding": 12, **fields})
    encoder = IdentityEncoder(config).eval().requires_grad_(False)
    encoder.embed_norm.running_mean.normal_()
    encoder.embed_norm.bias.normal_()
    return encoder


@pytest.mark.parametrize("head", ["linear", "pool"])
def test_mean_over_cells_is_the_cosine(head: str) -> None:
    encoder = encoder_with(head=head)
    first, second = torch.randn(2, 3, 3, 64, 32)
    maps = similarity_maps(encoder, first, second)
    assert maps.shape == (2, 3, 4, 2)
    cosine = F.cosine_similarity(encoder(first).embedding, encoder(second).embedding)
    torch.testing.assert_close(maps.mean((2, 3)), cosine.expand(2, -1), atol=1e-5, rtol=1e-4)


def test_a_cell_adds_what_is_lost_without_it() -> None:
    """By the definition: the embedding of the first image without one cell, against the second image's."""
    encoder = encoder_with()
    first, second = torch.randn(2, 1, 3, 64, 32)
    found = similarity_maps(encoder, first, second)[0, 0]
    last = encoder.backbone(first, "real")
    whole, other = encoder(first).embedding, encoder(second).embedding

    def dot(cells: torch.Tensor) -> torch.Tensor:
        embedding = encoder.embed_norm(encoder.embed(encoder.pool(cells).flatten(1)), "real")
        return (embedding * other).sum() / (whole.norm() * other.norm())

    lost = torch.empty(4, 2)
    for y in range(4):
        for x in range(2):
            without = last.clone()
            without[:, :, y, x] = 0
            lost[y, x] = dot(last) - dot(without)
    shares = found / found.numel()
    torch.testing.assert_close(shares - shares.mean(), lost - lost.mean(), atol=1e-5, rtol=1e-3)


def test_encoder_is_left_as_it_was() -> None:
    encoder = encoder_with(pooling="gem")
    maps = similarity_maps(encoder, *torch.randn(2, 2, 3, 64, 32))
    assert torch.isfinite(maps).all()
    assert not encoder.backbone._forward_hooks
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())
