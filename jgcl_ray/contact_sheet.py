"""Pictures of pictures: rows of captioned tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jgcl_ray.errors import UserError
from jgcl_ray.ownership import is_picture
from jgcl_ray.places import check_file

FONT_SIZE, LINE, GAP, FRAME = 12, 15, 6, 3  # pixels


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet."""

    image: Image.Image  # RGB, of any size
    caption: str = ""  # below it, lines that do not fit end in an ellipsis
    frame: str | None = None  # colour of a frame around it


def check_sheet(path: Path, option: str) -> None:
    """UserError where no sheet can be written at `path`, which `option` gives, or its suffix names no format.

    It is to be written by image_files.write_picture.
    """
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise UserError(f"{option} {path}: unknown format of pictures; give a name that ends in .png or .jpg")
    check_file(path, option, is_picture)


def contact_sheet(
    rows: Sequence[Sequence[Tile | None]], titles: Sequence[str] = (), height: int = 192, width: int = 96
) -> Image.Image:
    """Rows of tiles, each fitted into height x width pixels and centred; None leaves a place empty.

    titles: above the columns.
    """
    font = ImageFont.load_default(FONT_SIZE)
    lines = [max((tile.caption.count("\n") + bool(tile.caption) for tile in row if tile), default=0) for row in rows]
    heights = [height + LINE * count + GAP for count in lines]
    top = GAP + (LINE if titles else 0)
    columns = max(len(titles), *(len(row) for row in rows))
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, top + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        left = GAP + column * (width + GAP)
        draw.text((left + width / 2, GAP / 2), _fitted(title, width, font), "black", font, anchor="ma")
    for row, row_height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            if tile is not None:
                _place(sheet, draw, tile, (GAP + column * (width + GAP), top), (width, height), font)
        top += row_height
    return sheet


def _place(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    tile: Tile,
    corner: tuple[int, int],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    scale = min(size[0] / tile.image.width, size[1] / tile.image.height)
    within = [max(1, min(room, round(side * scale))) for side, room in zip(tile.image.size, size, strict=True)]
    fitted = tile.image.resize((within[0], within[1]), Image.Resampling.BICUBIC)
    left, top = corner[0] + (size[0] - fitted.width) // 2, corner[1] + (size[1] - fitted.height) // 2
    sheet.paste(fitted, (left, top))
    if tile.frame is not None:
        draw.rectangle((left, top, left + fitted.width - 1, top + fitted.height - 1), outline=tile.frame, width=FRAME)
    for number, line in enumerate(tile.caption.split("\n") if tile.caption else ()):
        place = (corner[0] + size[0] / 2, corner[1] + size[1] + 1 + LINE * number)
        draw.text(place, _fitted(line, size[0], font), "black", font, anchor="ma")


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text: of a path, that is what tells it from others."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
