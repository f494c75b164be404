"""From uint8 pixels to what the networks take, and the warm-up's augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jgcl_ray.image_files import IMAGENET_MEAN, IMAGENET_STD, MEAN_COLOUR

# Zhong et al., "Random Erasing Data Augmentation", AAAI 2020 (arXiv 1708.04896): share of the area, aspect.
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASING_ATTEMPTS = 100


@dataclass(frozen=True)
class Augmentation:
    """Flip, pad and crop, erase (METHOD: stage 1), in this order, each with its own random numbers."""

    flip_probability: float = 0.5
    crop_padding: int = 10  # pixels of black on each side
    erasing_probability: float = 0.5

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A new image, uint8 (H, W, 3) like the given one; rectangles are filled with the ImageNet mean."""
        if random.random() < self.flip_probability:
            image = image[:, ::-1]
        image = _shifted(image, *random.integers(-self.crop_padding, self.crop_padding, size=2, endpoint=True))
        if random.random() < self.erasing_probability:
            _erase(image, random)
        return image


def normalise_images(images: Sequence[np.ndarray]) -> torch.Tensor:
    """B images, uint8 (H, W, 3) RGB -> (B, 3, H, W) float32 with ImageNet's mean and standard deviation."""
    # A batch at a time, and (x - 255 mean) / (255 std) as one product and one difference: a third of the time.
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    scale = 1 / (255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
    offset = 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * scale
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).sub_(offset)


def normalise_meshes(meshes: Sequence[np.ndarray]) -> torch.Tensor:
    """B projections, uint8 (H, W) grey -> (B, 1, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(meshes)).unsqueeze(1).to(torch.float32).div_(127.5).sub_(1)


def denormalise_images(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) as `normalise_images` makes them -> uint8 (B, H, W, 3); what lies outside is clipped."""
    mean, std = (torch.tensor(stat, device=images.device).view(1, 3, 1, 1) for stat in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images.detach().float() * std + mean).mul(255).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    # Padding by p and cropping at (y, x) shifts by (p - y, p - x) and lets black in.
    height, width = image.shape[:2]
    shifted = np.zeros_like(image, order="C")
    if abs(down) < height and abs(right) < width:
        shifted[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
            max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
        ]
    return shifted


def _erase(image: np.ndarray, random: np.random.Generator) -> None:
    height, width = image.shape[:2]
    for _ in range(ERASING_ATTEMPTS):
        area = random.uniform(*ERASED_AREA) * height * width
        aspect = random.uniform(*ERASED_ASPECT)
        erased_height, erased_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < erased_height < height and 0 < erased_width < width:
            top, left = random.integers(0, (height - erased_height, width - erased_width), endpoint=True)
            image[top : top + erased_height, left : left + erased_width] = MEAN_COLOUR
            return
