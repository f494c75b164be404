"""Reconstruction of images and of appearance codes (GCL 3.1, eq. 1-4; METHOD "One step")."""

from __future__ import annotations

import torch


def image_loss(generated: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """mean |generated - image|, both (B, 3, H, W)."""
    return (generated - image).abs().mean()


def feature_loss(code_generated: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """mean |code_generated - stop_grad(code)|, both (B, 4C): the real image's code is the goal and stays put."""
    return (code_generated - code.detach()).abs().mean()
