"""Tiles land where they belong."""

from __future__ import annotations

import numpy as np
from PIL import Image

from jgcl_ray.contact_sheet import FRAME, GAP, LINE, Tile, contact_sheet


def test_tiles_are_placed_in_rows_and_columns_and_framed() -> None:
    red, blue = Image.new("RGB", (10, 20), "red"), Image.new("RGB", (10, 20), "blue")
    sheet = contact_sheet(
        [[Tile(red), Tile(blue, "one\ntwo", "lime")], [None, Tile(red)]], ["a"], height=40, width=30
    )
    assert sheet.size == (2 * (30 + GAP) + GAP, GAP + LINE + 2 * (40 + GAP) + 2 * LINE)
    pixels = np.asarray(sheet)
    top, second_row = GAP + LINE, GAP + LINE + 40 + GAP + 2 * LINE
    left, right = GAP + 15, GAP + 30 + GAP + 15  # middles of the columns
    assert tuple(pixels[top + 20, left]) == (255, 0, 0)
    assert tuple(pixels[top + 20, right]) == (0, 0, 255)
    assert tuple(pixels[top + FRAME - 1, right]) == (0, 255, 0)
    assert (pixels[second_row : second_row + 40, GAP : GAP + 30] == 255).all()
    assert tuple(pixels[second_row + 20, right]) == (255, 0, 0)
    # 10 x 20 is enlarged to 20 x 40 and centred in 30.
    assert (pixels[top + 20, GAP : GAP + 5] == 255).all() and tuple(pixels[top + 20, GAP + 5]) == (255, 0, 0)


def test_long_captions_keep_their_end_within_the_tile() -> None:
    tile = Image.new("RGB", (30, 40), "white")
    long = contact_sheet([[Tile(tile, "a very long name of a file 0007.jpg")]], height=40, width=60)
    assert (np.asarray(long)[:, : GAP - 1] == 255).all() and (np.asarray(long)[:, GAP + 61 :] == 255).all()
    assert (np.asarray(long) < 128).any()
