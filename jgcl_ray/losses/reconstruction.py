"""Reconstruction of images and of appearance codes (GCL 3.1, eq. 1-4; METHOD "One step")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

Fake = Literal["reconstruction", "novel", "cycle"]  # x_rec = G(E_str(s), c), x_nv = G(E_str(s_nv), c), x_cyc


def image_loss(generated: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """mean |generated - image|, both (B, 3, H, W)."""
    return (generated - image).abs().mean()


def feature_loss(code_generated: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """mean |code_generated - stop_grad(code)|, both (B, 4C): the real image's code is the goal and stays put."""
    return (code_generated - code.detach()).abs().mean()


# Terms, by the names of their weights in `losses`: which generated image (or its code) is compared with the real one,
# and how. What a step generates and encodes follows from them.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
IMAGE_TERMS: dict[str, tuple[Fake, Loss]] = {
    "image_reconstruction": ("reconstruction", image_loss),
    "image_cycle": ("cycle", image_loss),
}
CODE_TERMS: dict[str, tuple[Fake, Loss]] = {
    "feature_reconstruction": ("reconstruction", feature_loss),  # formulation `official`
    "feature_novel": ("novel", feature_loss),  # formulation `paper`
    "feature_cycle": ("cycle", feature_loss),
}
