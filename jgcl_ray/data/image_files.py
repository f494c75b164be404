"""One image file as uint8 pixels, whatever its mode."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

# ImageNet, of RGB in [0, 1]; the generator and every encoder work in these units.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_COLOUR = tuple(round(255 * mean) for mean in IMAGENET_MEAN)  # 0 once normalised, to half a grey level

Resampling = Literal["bicubic", "bilinear"]

# What Pillow's decoders raise at files that are not, or no longer, images.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def read_rgb(path: Path | BinaryIO, height: int, width: int, resampling: Resampling = "bicubic") -> np.ndarray:
    """An image file, or its bytes, as uint8 (height, width, 3), read-only, converted and resized.

    Raises one of UNREADABLE.
    """
    with Image.open(path) as image:
        # A JPEG of twice the size or more is decoded at 1/2, 1/4 or 1/8: never below what is asked for.
        image.draft("RGB", (width, height))
        return resize(as_rgb(image), height, width, resampling)


def resize(image: Image.Image, height: int, width: int, resampling: Resampling = "bicubic") -> np.ndarray:
    """An image of mode RGB or L, resized (Pillow, with antialiasing), as a read-only uint8 array."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[resampling.upper()])
    return np.asarray(image)


def verify(path: Path) -> None:
    """Decode every byte of an image file as cheaply as that can be done; raises one of UNREADABLE."""
    with Image.open(path) as image:
        image.draft("RGB", (1, 1))
        image.load()


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in mode RGB: 16 bits keep their upper 8, transparency is laid over the ImageNet mean."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # Pillow's own conversion of 16 bits clips at 255
        pixels = np.asarray(image).astype(np.uint16)
        return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (*MEAN_COLOUR, 255)), over).convert("RGB")
    return image.convert("RGB")
