"""The discriminator, and its input gradient against autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import DiscriminatorConfig
from jgcl_ray.models.discriminator import Discriminator

SMALL = DiscriminatorConfig(width=4)


def make_discriminator() -> Discriminator:
    torch.manual_seed(0)
    discriminator = Discriminator(SMALL)
    for parameter in discriminator.parameters():
        parameter.data.normal_(std=0.3)
    return discriminator


def test_default_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        discriminator = Discriminator(DiscriminatorConfig())
    assert sum(p.numel() for p in discriminator.parameters()) == 1_025_571


def test_each_scale_judges_a_halved_image() -> None:
    discriminator, image = make_discriminator(), torch.randn(2, 3, 48, 40)
    maps = discriminator(image)
    assert [tuple(scores.shape) for scores in maps] == [(2, 1, 12, 10), (2, 1, 6, 5), (2, 1, 3, 3)]
    half = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
    torch.testing.assert_close(maps[1], discriminator.scales[1](half))


@pytest.mark.parametrize("size", [(48, 40), (45, 39)])
def test_input_gradients_and_what_they_give_the_weights_are_autograds(size: tuple[int, int]) -> None:
    discriminator, image = make_discriminator(), torch.randn(2, 3, *size).requires_grad_()
    ours = discriminator.with_input_gradient(image.detach())
    penalties = []
    for scores, expected_scores, gradient in zip(ours.maps, discriminator(image), ours.gradients, strict=True):
        torch.testing.assert_close(scores, expected_scores)
        (expected,) = torch.autograd.grad(expected_scores.sum(), image, create_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
        penalties.append((gradient.square().sum(), expected.square().sum()))
    mine, theirs = (torch.stack(parts).sum() for parts in zip(*penalties, strict=True))
    weights = [p for name, p in discriminator.named_parameters() if name.endswith("weight")]
    for found, wanted in zip(torch.autograd.grad(mine, weights), torch.autograd.grad(theirs, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_initialised_by_fan_in_scores_differ_and_gradients_arrive(one_thread: None) -> None:
    """As published, 16 channels pass on so little that all images have one score."""
    images = torch.randn(4, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    spreads = []
    for initialisation in ("normal", "kaiming"):
        torch.manual_seed(0)
        discriminator = Discriminator(DiscriminatorConfig(width=16, initialisation=initialisation))
        assert not any(parameter.any() for name, parameter in discriminator.named_parameters() if "bias" in name)
        spreads.append([float(scores.detach().std()) for scores in discriminator(images)])
    assert max(spreads[0]) < 1e-4 and min(spreads[1]) > 0.05


def test_layers_initialised_by_fan_in_have_their_deviations() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=16, initialisation="kaiming")).scales[0]
    block = network.blocks[0]
    wanted = (2 / (1 + 0.2**2)) ** 0.5
    for conv, factor in ((network.stem[1], 1), (block.conv1, 1), (block.conv2, 0.3)):
        assert float(conv.weight.detach().std()) * conv.weight[0].numel() ** 0.5 == pytest.approx(
            factor * wanted, rel=0.05
        )
