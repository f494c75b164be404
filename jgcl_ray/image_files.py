"""The one way from an image file to pixels, and back: nothing else in this package opens images.

Pictures stand upright, as their EXIF orientation says; 16 bits keep their upper 8; what is transparent shows the
ImageNet mean, which is 0 once normalised. Whatever cannot be read is an UnreadableImage, for reasons in a few words;
so are 32 bits a pixel.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from jgcl_ray.atomic import replacing
from jgcl_ray.ownership import MARK

# ImageNet, of RGB in [0, 1]; the generator and every encoder work in these units.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_COLOUR = tuple(round(255 * mean) for mean in IMAGENET_MEAN)  # 0 once normalised, to half a grey level

Resampling = Literal["bicubic", "bilinear"]

# What Pillow's decoders raise at files that are not, or no longer, images.
_PILLOW_RAISES = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, NotImplementedError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, from 5 on width and height are exchanged


def write_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """As a whole or not at all, in the format that the suffix names; options: of Pillow's for that format.

    PNG, JPEG and GIF say who wrote them, so that they may be replaced (jgcl_ray.ownership).
    """
    marks: dict[str, Any] = {"comment": MARK}
    if path.suffix.lower() == ".png":
        marks = {"pnginfo": PngInfo()}
        marks["pnginfo"].add_text("Software", MARK)
    with replacing(path) as partial:
        picture.save(partial, **marks, **options)


class UnreadableImage(Exception):
    """A file that is no image, or no longer, or not there; the text says what is the matter, without its name."""


@dataclass(frozen=True, eq=False)
class WholeImage:
    """An image file, upright."""

    rgb: Image.Image  # mode RGB, maybe decoded at a fraction of the size below
    height: int  # of the file's picture, pixels
    width: int


def read_image(path: Path | BinaryIO, least: tuple[int, int] | None = None) -> WholeImage:
    """An image file, or its bytes; UnreadableImage where it cannot be decoded to its end.

    least: height and width that are enough: a JPEG of twice that or more is decoded at 1/2, 1/4 or 1/8, never below.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        width, height = image.size if orientation < 5 else image.size[::-1]
        if least is not None:
            image.draft("RGB", least[::-1] if orientation < 5 else least)
        return WholeImage(_rgb(image), height, width)


def read_rgb(path: Path | BinaryIO, height: int, width: int, resampling: Resampling = "bicubic") -> np.ndarray:
    """An image file, or its bytes, as uint8 (height, width, 3), read-only, resized. Raises UnreadableImage."""
    return resize(read_image(path, (height, width)).rgb, height, width, resampling)


def read_grey(path: Path) -> np.ndarray:
    """A picture of a mesh, uint8 (H, W), upright. UnreadableImage also where it has more than 8 bits a pixel."""
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise UnreadableImage("more than 8 bits a pixel: convert it to 8-bit grey")
        return np.asarray(_upright(image).convert("L"))


def image_size(path: Path | BinaryIO) -> tuple[int, int]:
    """Height and width of an image file, upright; of most formats from the header alone. Raises UnreadableImage."""
    with _opened(path) as image:
        return image.size[::-1] if _orientation(image) < 5 else image.size


def verify(path: Path) -> None:
    """Decode every byte of an image file as cheaply as that can be done. Raises UnreadableImage."""
    with _opened(path) as image:
        image.draft("RGB", (1, 1))
        image.load()


def resize(image: Image.Image, height: int, width: int, resampling: Resampling = "bicubic") -> np.ndarray:
    """An image of mode RGB or L, resized (Pillow, with antialiasing), as a read-only uint8 array."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[resampling.upper()])
    return np.asarray(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image that somebody else has opened, upright, in mode RGB: see the head of this file."""
    _refuse_deep(image)
    try:
        return _rgb(image)
    except _PILLOW_RAISES as error:
        raise UnreadableImage(_reason(None, error)) from None


def _refuse_deep(image: Image.Image) -> None:
    """UnreadableImage of 32 bits a pixel, whole or floating: no file says which value is white."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise UnreadableImage("32 bits a pixel, whose white is not known: convert it to 8 bits a colour")


def _rgb(image: Image.Image) -> Image.Image:
    image = _upright(image)
    if image.mode.startswith("I"):  # Pillow's own conversion of 16 bits clips at 255
        pixels = np.asarray(image)
        rgb = np.repeat((pixels.astype(np.uint16) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        if isinstance(hidden := image.info.get("transparency"), int):
            rgb[pixels == hidden] = MEAN_COLOUR
        return Image.fromarray(rgb)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (*MEAN_COLOUR, 255)), over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG":  # EXIF may come after the pixels
        image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _PILLOW_RAISES:  # a damaged block of notes turns nothing, and spoils no picture
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


@contextmanager
def _opened(path: Path | BinaryIO) -> Iterator[Image.Image]:
    try:
        if isinstance(path, Path) and path.exists() and not path.is_file():  # to open a pipe may take for ever
            raise UnreadableImage(f"a {'folder' if path.is_dir() else 'pipe or a device'}, not a file")
        with Image.open(path) as image:
            _refuse_deep(image)
            yield image
    except _PILLOW_RAISES as error:
        raise UnreadableImage(_reason(path, error)) from None


def _reason(path: Path | BinaryIO | None, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and isinstance(path, Path):
        return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "an empty file" if isinstance(path, Path) and path.stat().st_size == 0 else "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
