"""A sheet of training people turned along the surface of their bodies, for runs that train no generator.

The photos' own pixels are moved, and the generator that comes with the package refines them: it shows whether bodies
are found on these images, and what can be seen of their other sides.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jgcl_ray.config import Config
from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.meshes.correspondence import surface_views
from jgcl_ray.meshes.estimated_bodies import ensure_estimated
from jgcl_ray.meshes.projection_folders import TRUTH, VIEWS
from jgcl_ray.meshes.projections import ProjectionSource, drawn_by_view, open_projections
from jgcl_ray.models.textured_generator import load_views, refined, suits

SHOWN = 6  # people, spread over the training set
BODIES = "pictured_bodies.npz"  # of a run folder: those of the images on the sheet


def surface_sheet(images: ImageStore, config: Config, run_folder: Path) -> Image.Image | None:
    """A row for each of SHOWN training images: the photo, then its person turned by each of VIEWS.

    None where the bodies are not known and not to be estimated (meshes.source). At sizes that do not suit the
    generator of views the turned people are drafts.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, SHOWN).round().astype(int)).tolist()
    projections = _projections(images, rows, config, run_folder)
    if projections is None:
        return None
    coordinates = drawn_by_view(projections.coordinates, range(len(rows)), VIEWS)
    refine = partial(refined, load_views()) if suits(images.height, images.width) else None
    turned = surface_views(np.stack([images.load(row) for row in rows]), coordinates.__getitem__, VIEWS, refine)
    tiles = [[Tile(Image.fromarray(turned[view][place])) for view in VIEWS] for place in range(len(rows))]
    return contact_sheet(tiles, ["photo", *(f"{view}°" for view in VIEWS[1:])])


def _projections(images: ImageStore, rows: list[int], config: Config, run_folder: Path) -> ProjectionSource | None:
    meshes, folder = config.meshes, images.split.folder
    names = tuple(images.split.paths[row] for row in rows)
    if meshes.source == "estimated":
        ensure_estimated(run_folder / BODIES, folder, names, meshes)
        meshes = meshes.model_copy(update={"parameters": run_folder / BODIES})
    elif meshes.source != "walkers" or not (folder.parent / TRUTH).is_file():
        return None
    return open_projections(meshes, config.data, names, "train", folder)
