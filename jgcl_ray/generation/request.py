"""One generation, from the photos to the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jgcl_ray.atomic import write_json
from jgcl_ray.encoder import pick_device
from jgcl_ray.errors import UserError
from jgcl_ray.generation import pictures
from jgcl_ray.generation.people import People, open_people
from jgcl_ray.generation.scores import ViewScores, inception_features, own_features, read_true_views, score_views
from jgcl_ray.generation.surface_people import check_bodies, surface_config, surface_people
from jgcl_ray.generation.view_generator import ViewGenerator
from jgcl_ray.meshes.correspondence import Refine
from jgcl_ray.meshes.projection_folders import VIEWS
from jgcl_ray.models.textured_generator import WEIGHTS, check_size, load_views, refined
from jgcl_ray.ownership import is_view_scores
from jgcl_ray.places import absolute, check_file, check_folder
from jgcl_ray.progress import tracked
from jgcl_ray.writer_lock import only_writer

GRID = 12  # photos on the sheet


@dataclass(frozen=True)
class Request:
    """What is wanted."""

    images: Path  # folder of photos
    out: Path  # folder for all that is written
    checkpoint: Path | None = None  # see ViewGenerator.load; None: photos' own pixels, moved along the surface,
    views_from: Path = WEIGHTS  # and refined by this generator,
    drafts: bool = False  # or not
    views: int = 8  # how many round the person, a divisor of 8
    first: int | None = None  # of the images only so many; None: all
    gif: bool = False
    mix: tuple[str, str] | None = None  # two images by name
    score: bool = False
    inception: Path | None = None
    device: str = "auto"
    overrides: tuple[str, ...] = ()  # section.field=value


def generate_views(request: Request) -> ViewScores | None:
    """Write what is wanted; the scores, where they are."""
    place = absolute(request.out)
    check_folder(place, "--out")
    pictures.check_pictures(place)
    if request.score:
        check_file(place / "scores.json", "--out", is_view_scores, parents=True)
    views = VIEWS[:: len(VIEWS) // request.views]
    if request.checkpoint is None:
        people = open_people(request.images, surface_config(request.overrides))
        check_bodies(people)
        refine = None if request.drafts else _refine(request, people)
        out = _outside(request.out, people)
        with only_writer(out, "give another --out"):
            _write_all(partial(surface_people, people, refine=refine), people, request, views, out)
        return None
    generator = ViewGenerator.load(request.checkpoint, request.device, request.overrides)
    people = open_people(request.images, generator.config)
    out = _outside(request.out, people)
    mixed = None if request.mix is None else (people.row(request.mix[0]), people.row(request.mix[1]))
    truth = read_true_views(people) if request.score else None
    if request.inception is None:
        features, name = own_features(generator), "the checkpoint's encoder"
    else:
        features, name = inception_features(request.inception, generator.device), request.inception.name

    with only_writer(out, "give another --out"):
        _write_all(partial(pictures.generated_people, generator, people), people, request, views, out)
        if mixed is not None:
            pictures.write_mix(generator, people, mixed, views, out, request.gif)
        if truth is None:
            return None
        scores = score_views(generator, people, truth, features, name, lambda batches: tracked(batches, "score"))
        write_json(out / "scores.json", scores.to_json())
        return scores


def _refine(request: Request, people: People) -> Refine:
    check_size(people.store.height, people.store.width)
    return partial(refined, load_views(request.views_from, pick_device(request.device)))


def _outside(out: Path, people: People) -> Path:
    """The absolute path; UserError where photos and views would lie in one another."""
    out = absolute(out)
    if people.folder.is_relative_to(out) or out.is_relative_to(people.folder):
        raise UserError(f"{out}: photos and generated views must not lie in one another; give --out another folder")
    return out


def _write_all(
    draw: Callable[[Sequence[int], Sequence[int]], list[pictures.PersonViews]],
    people: People,
    request: Request,
    views: tuple[int, ...],
    out: Path,
) -> None:
    count = len(people.names) if request.first is None else min(request.first, len(people.names))
    on_sheet = set(spread(count, GRID))
    shown: list[pictures.PersonViews] = []
    for start in tracked(range(0, count, pictures.BATCH), "views"):
        rows = range(start, min(start + pictures.BATCH, count))
        for row, person in zip(rows, draw(rows, views), strict=True):
            pictures.write_views(person, people, out)
            if request.gif:
                pictures.write_turntable(person, out)
            if row in on_sheet:
                shown.append(person)
    if shown:
        pictures.write_picture(pictures.views_sheet(shown), out / "grid.png")


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` rows, evenly spread, first and last among them: of crops, some of many tracks."""
    shown = min(count, most)
    return [round(place * (count - 1) / max(shown - 1, 1)) for place in range(shown)]
