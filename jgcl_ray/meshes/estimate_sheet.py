"""A picture to judge estimated bodies by: images, each beside its projection, also turned."""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.image_files import read_rgb
from jgcl_ray.meshes.body_parameters import read_body_parameters
from jgcl_ray.meshes.drawing import ParameterProjections
from jgcl_ray.stored_files import read_arrays

SHOWN = (0, 90, 180)  # degrees
HEIGHT, WIDTH = 192, 80  # pixels of a tile
_ACROSS = 4  # images in a row


def estimate_sheet(images: Path, parameters: Path, smpl: Path | None = None, count: int = 60) -> Image.Image:
    """`count` images, evenly spread over the file's, with their projections at SHOWN beside each.

    Below an image: the end of its name, and the estimator's own standard deviation of the side it is seen from.
    """
    names = read_body_parameters(parameters).names
    chosen = [names[row] for row in np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).astype(int))]
    arrays = read_arrays(parameters, {"names": "U N"}, "estimate the bodies again", {"deviation": "iuf N"})
    deviation = dict(zip(names, arrays["deviation"], strict=True)) if "deviation" in arrays else {}
    drawn = ParameterProjections(parameters, smpl, chosen, HEIGHT, WIDTH, light=smpl is None)
    tiles: list[Tile | None] = []
    for row, name in enumerate(chosen):
        photo = Image.fromarray(read_rgb(images / name, HEIGHT, WIDTH))
        stem = str(PurePath(name).with_suffix(""))  # there is little room, and its end is what is kept
        said = f"{stem}\nside ±{deviation[name]:.0f}°" if name in deviation else stem
        tiles.append(Tile(photo, said))
        tiles += [Tile(Image.fromarray(drawn.load(row, view)).convert("RGB"), f"{view}°") for view in SHOWN]
    step = _ACROSS * (len(SHOWN) + 1)
    return contact_sheet([tiles[start : start + step] for start in range(0, len(tiles), step)], (), HEIGHT, WIDTH)
