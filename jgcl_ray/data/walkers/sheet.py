"""Contact sheet of a rendered set: people with their photos, projections and true views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jgcl_ray.batches import NOVEL_VIEWS
from jgcl_ray.image_files import read_image
from jgcl_ray.meshes.projection_folders import TRUTH, VIEWS, SplitName, view_folder
from jgcl_ray.meshes.walker_files import read_views

_TILE = (64, 128)  # width, height in pixels
_GAP = 4


def contact_sheet(root: Path, identities: int = 8, images: int = 8, turned: int = 3) -> Image.Image:
    """A row of photos a person; then, for `turned` photos, a row of projections over a row of true views."""
    truth = read_views(root / TRUTH, "identity", "photo_rows", "photos")
    names, identity, photo_rows, photos = (truth[key] for key in ("names", "identity", "photo_rows", "photos"))
    rows = []
    in_train = np.array([name.startswith("bounding_box_train") for name in names])
    # Neighbours in number are often look-alikes: show them side by side.
    for chosen in np.unique(identity[in_train])[:identities]:
        of_person = np.flatnonzero(in_train & (identity == chosen))[:images]
        rows.append([_tile(read_image(root / names[row]).rgb) for row in of_person])
    for shown, row in list(enumerate(photo_rows))[:: max(1, len(photo_rows) // max(turned, 1))][:turned]:
        split: SplitName = "train" if in_train[row] else "test"
        png = Path(names[row]).with_suffix(".png").name
        meshes = [read_image(view_folder(root / "meshes", split, view) / png).rgb for view in VIEWS]
        rows.append([_tile(mesh) for mesh in meshes])
        rows.append([_tile(read_image(root / names[row]).rgb)] + [_tile(Image.fromarray(p)) for p in photos[shown]])
    columns = max(images, len(NOVEL_VIEWS) + 1)
    size = (columns * (_TILE[0] + _GAP) + _GAP, len(rows) * (_TILE[1] + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    for i, tiles in enumerate(rows):
        for j, tile in enumerate(tiles):
            sheet.paste(tile, (_GAP + j * (_TILE[0] + _GAP), _GAP + i * (_TILE[1] + _GAP)))
    return sheet


def _tile(picture: Image.Image) -> Image.Image:
    return picture.resize(_TILE, Image.Resampling.BICUBIC)
