"""Generated views as files, as a sheet, as turntables; and appearances between two people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.generation.people import People
from jgcl_ray.generation.view_generator import ViewGenerator
from jgcl_ray.image_files import write_picture
from jgcl_ray.meshes.projection_folders import view_folder
from jgcl_ray.ownership import is_picture, refuse_foreign

BATCH = 16  # people at a time
STEPS = 7  # of an interpolation, both ends included
TURN, BLEND = 160, 140  # milliseconds a frame
TILE_HEIGHT = 192  # pixels, of animations


@dataclass(frozen=True, eq=False)
class PersonViews:
    """One photo and what the generator makes of it."""

    picture: str  # name of its pictures (People.pictures)
    photo: np.ndarray  # uint8 (H, W, 3)
    views: dict[int, np.ndarray]  # degrees -> uint8 (H, W, 3)


def generated_people(
    generator: ViewGenerator, people: People, rows: Sequence[int], views: Sequence[int]
) -> list[PersonViews]:
    """The people in `rows` from every view; one batch."""
    codes = generator.codes(people.images(rows))
    meshes = people.meshes(rows, views)
    drawn = {view: generator.draw(meshes[view], codes).numpy() for view in views}
    photos = people.pixels(rows)
    return [
        PersonViews(people.pictures[row], photos[i], {view: pictures[i] for view, pictures in drawn.items()})
        for i, row in enumerate(rows)
    ]


def write_views(person: PersonViews, people: People, out: Path) -> None:
    """One file for each view, under the photo's name, in the layout of projections: OUT/train/render_45/NAME.png."""
    for view, picture in person.views.items():
        path = view_folder(out, people.split, view) / person.picture
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(Image.fromarray(picture), path)


def write_turntable(person: PersonViews, out: Path) -> None:
    """OUT/turntables/NAME.gif: the photo, and the person turning beside it."""
    path = out / "turntables" / Path(person.picture).with_suffix(".gif")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_gif([np.hstack([person.photo, picture]) for picture in person.views.values()], TURN, path)


def check_pictures(out: Path) -> None:
    """UserError where a picture in `out`, below the names of those that are written there, is not ours."""
    there = ("grid.png", "mix.png", "mix.gif", "turntables/**/*.gif", "*/render/**/*.png", "*/render_*/**/*.png")
    for pattern in there:
        for path in sorted(out.glob(pattern)):
            refuse_foreign(path, "--out", is_picture)


def views_sheet(shown: Sequence[PersonViews]) -> Image.Image:
    """A row for each person: the photo over the end of its name, then its views."""
    titles = ["photo", *(f"{view}°" for view in shown[0].views)]
    names = [str(Path(one.picture).with_suffix("")) for one in shown]
    rows = [
        [Tile(Image.fromarray(one.photo), name), *map(_tile, one.views.values())]
        for one, name in zip(shown, names, strict=True)
    ]
    return contact_sheet(rows, titles)


def write_mix(
    generator: ViewGenerator, people: People, rows: tuple[int, int], views: Sequence[int], out: Path, gif: bool
) -> None:
    """OUT/mix.png and mix.gif: the first person's body in colours that go from its own to the second's.

    The appearance codes are interpolated linearly; a row of the sheet for each view.
    """
    first, second = generator.codes(people.images(rows))
    shares = torch.linspace(0, 1, STEPS, device=first.device)
    codes = torch.lerp(first, second, shares[:, None])
    photos = [_tile(photo) for photo in people.pixels(rows)]
    meshes = people.meshes(rows[:1], views)
    drawn = {view: generator.draw(meshes[view].expand(STEPS, -1, -1, -1), codes).numpy() for view in views}
    titles = ["body", *(f"{share:.0%}" for share in shares.tolist()), "colours"]
    none = [None, None]
    sheet = [
        [photos[0] if row == 0 else none[0], *map(_tile, pictures), photos[1] if row == 0 else none[1]]
        for row, pictures in enumerate(drawn.values())
    ]
    write_picture(contact_sheet(sheet, titles), out / "mix.png")
    if gif:
        own = drawn[views[0]]
        _write_gif([*own, *own[-2:0:-1]], BLEND, out / "mix.gif")


def _tile(picture: np.ndarray) -> Tile:
    return Tile(Image.fromarray(picture))


def _write_gif(frames: Iterable[np.ndarray], milliseconds: int, path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    factor = max(1, round(TILE_HEIGHT / pictures[0].height))
    size = pictures[0].width * factor, pictures[0].height * factor
    pictures = [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    write_picture(pictures[0], path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
