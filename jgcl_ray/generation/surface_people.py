"""People from other sides by their photos' own pixels, moved along the surface of their bodies, refined or not."""

from __future__ import annotations

from collections.abc import Sequence

from jgcl_ray.config import Config, override
from jgcl_ray.errors import UserError
from jgcl_ray.generation.people import People
from jgcl_ray.generation.pictures import PersonViews
from jgcl_ray.meshes.correspondence import Refine, surface_views


def surface_config(overrides: Sequence[str]) -> Config:
    """The defaults with estimated bodies, changed by `section.field=value`."""
    return override(Config(), ["meshes.source=estimated", *overrides])


def check_bodies(people: People) -> None:
    """UserError where the projections' source cannot tell which point of the body a pixel sees."""
    if not people.projections.knows_bodies:
        raise UserError(
            "--surface: pictures of bodies in folders do not tell which point of the body a pixel sees; take "
            "meshes.source=estimated or parameters"
        )


def surface_people(
    people: People, rows: Sequence[int], views: Sequence[int], refine: Refine | None = None
) -> list[PersonViews]:
    """The people in `rows` from every view; one batch. Their own view (0) is the photo. refine: see surface_views."""
    photos = people.pixels(rows)
    coordinates = people.coordinates(rows, {0, *views})
    drawn = surface_views(photos, coordinates.__getitem__, views, refine)
    return [
        PersonViews(people.pictures[row], photos[i], {view: pictures[i] for view, pictures in drawn.items()})
        for i, row in enumerate(rows)
    ]
