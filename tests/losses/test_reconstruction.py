"""Image and feature losses, written out."""

from __future__ import annotations

import pytest
import torch

from jgcl_ray.losses.reconstruction import feature_loss, image_loss


def test_image_loss_is_the_mean_absolute_difference() -> None:
    generated, image = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    pairs = zip(generated.flatten().tolist(), image.flatten().tolist(), strict=True)
    expected = sum(abs(a - b) for a, b in pairs) / generated.numel()
    assert image_loss(generated, image).item() == pytest.approx(expected, rel=1e-5)


def test_feature_loss_moves_the_generated_code_only() -> None:
    generated, real = torch.randn(2, 8, requires_grad=True), torch.randn(2, 8, requires_grad=True)
    loss = feature_loss(generated, real)
    expected = sum((generated - real).flatten().abs().tolist()) / 16
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    torch.testing.assert_close(generated.grad, (generated - real).detach().sign() / 16)
    assert real.grad is None
