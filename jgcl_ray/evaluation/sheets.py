"""Sheets of photos for the report: rows of framed tiles with a word under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

RIGHT, WRONG, NEUTRAL = "#1a8a4a", "#d0342c", "#5b6b7b"
INK, PALE = "#1d2329", "#69737d"

_FRAME, _GAP, _MARGIN = 4, 10, 8
_LABEL, _CAPTION = 13, 11  # font sizes


@dataclass(frozen=True)
class Tile:
    """A photo and what is said of it."""

    pixels: np.ndarray  # uint8 (H, W, 3), all tiles of a sheet alike
    colour: str  # of its frame
    caption: str = ""  # a line or two under it
    mark: str = ""  # one sign in its corner, for who does not see the frame's colour


@dataclass(frozen=True)
class Row:
    """Words on the left, the first of them bold, and tiles."""

    label: tuple[str, ...]
    tiles: tuple[Tile, ...]
    gaps: tuple[int, ...] = ()  # places of tiles before which a gap is left


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """The rows one below the other, on white."""
    height, width = rows[0].tiles[0].pixels.shape[:2]
    captions = max(tile.caption.count("\n") + 1 for row in rows for tile in row.tiles)
    label_width = round(max(_font(_LABEL, i == 0).getlength(t) for row in rows for i, t in enumerate(row.label)))
    across, down = width + 2 * _FRAME, height + 2 * _FRAME
    column, line = across + _GAP, down + captions * (_CAPTION + 3) + _GAP + 4
    columns = max(len(row.tiles) for row in rows)
    gap = column // 4
    left = _MARGIN + label_width + 2 * _GAP
    sheet = Image.new(
        "RGB",
        (left + columns * column + gap * max(len(row.gaps) for row in rows), _MARGIN + len(rows) * line),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        top = _MARGIN + i * line
        for k, text in enumerate(row.label):
            place = (_MARGIN, top + 2 + k * (_LABEL + 5))
            draw.text(place, text, INK if k == 0 else PALE, _font(_LABEL, bold=k == 0))
        for j, tile in enumerate(row.tiles):
            x = left + j * column + gap * sum(j >= place for place in row.gaps)
            draw.rectangle((x, top, x + across - 1, top + down - 1), tile.colour)
            sheet.paste(Image.fromarray(tile.pixels), (x + _FRAME, top + _FRAME))
            if tile.mark:
                draw.rectangle((x, top, x + 17, top + 17), tile.colour)
                draw.text((x + 9, top + 9), tile.mark, "white", _font(_LABEL, bold=True), anchor="mm")
            middle = (x + across / 2, top + down + 3)
            draw.multiline_text(middle, tile.caption, PALE, _font(_CAPTION), anchor="ma", align="center", spacing=2)
    return sheet


def overlaid(pixels: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """A photo, uint8 (H, W, 3), in grey under a map (h, w): dark blue up to 0, bright yellow at its maximum."""
    height, width = pixels.shape[:2]
    smooth = Image.fromarray(activation.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth) / max(float(activation.max()), 1e-12), 0, 1)
    colours = matplotlib.colormaps["plasma"](strength)[..., :3]
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)[..., None] / 255
    return np.round(255 * (0.45 * grey + 0.55 * colours)).astype(np.uint8)


@cache
def _font(size: int, bold: bool = False) -> Any:
    """DejaVu Sans, which comes with matplotlib and has the signs that are drawn here."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
