"""One generation, from the photos to the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
from jgcl_ray.ray_map import map_over_cluster
from jgcl_ray.writer_lock import only_writer

GRID = 12  # photos on the sheet
ALONE = 200  # photos up to which this process is done before a Ray of its own would have started


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
    workers: int | None = None  # Ray's, for views along the surface on CPUs; None: a CPU each; 0: this process alone
    overrides: tuple[str, ...] = ()  # section.field=value

    @property
    def opened(self) -> int | None:
        """How many of the images are needed, at least one; None: all."""
        return None if self.first is None or self.mix or self.score else max(self.first, 1)

    def drawn(self, photos: int) -> int:
        """Of how many of so many photos views are drawn."""
        return photos if self.first is None else min(self.first, photos)


def generate_views(request: Request) -> ViewScores | None:
    """Write what is wanted; the scores, where they are."""
    place = absolute(request.out)
    check_folder(place, "--out")
    pictures.check_pictures(place)
    if request.score:
        check_file(place / "scores.json", "--out", is_view_scores, parents=True)
    views = VIEWS[:: len(VIEWS) // request.views]
    if request.checkpoint is None:
        _of_surface.cache_clear()  # of a request before, whose photos may have changed
        people, _ = _of_surface(request)
        out = _outside(request.out, people)
        with only_writer(out, "give another --out"):
            _write_surface(request, request.drawn(len(people.names)), views, out)
        return None
    generator = ViewGenerator.load(request.checkpoint, request.device, request.overrides)
    people = open_people(request.images, generator.config, request.opened)
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


@lru_cache(maxsize=1)
def _of_surface(request: Request) -> tuple[People, Refine | None]:
    """The people, and what refines their drafts; kept, as a worker is asked for many batches of one request."""
    people = open_people(request.images, surface_config(request.overrides), request.opened)
    check_bodies(people)
    if request.drafts:
        return people, None
    check_size(people.store.height, people.store.width)
    return people, partial(refined, load_views(request.views_from, pick_device(request.device)))


def _write_surface(request: Request, count: int, views: tuple[int, ...], out: Path) -> None:
    """All batches of the first so many people, over the CPUs of a Ray cluster where they are many."""
    on_gpu = not request.drafts and pick_device(request.device).type == "cuda"
    workers = 0 if on_gpu or (request.workers is None and count <= ALONE) else request.workers
    write = partial(_surface_batch, request, views, frozenset(spread(count, GRID)), out)
    shown = map_over_cluster(write, range(count), chunk_size=pictures.BATCH, workers=workers, title="views")
    _write_sheet([person for batch in shown for person in batch], out)


def _surface_batch(
    request: Request, views: tuple[int, ...], on_sheet: frozenset[int], out: Path, rows: list[int]
) -> list[pictures.PersonViews]:
    """Write the views of some rows; those that are on the sheet."""
    people, refine = _of_surface(request)
    drawn = surface_people(people, rows, views, refine)
    return _write_batch(rows, drawn, people, request, on_sheet, out)


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
    count = request.drawn(len(people.names))
    on_sheet = frozenset(spread(count, GRID))
    shown: list[pictures.PersonViews] = []
    for start in tracked(range(0, count, pictures.BATCH), "views"):
        rows = range(start, min(start + pictures.BATCH, count))
        shown += _write_batch(rows, draw(rows, views), people, request, on_sheet, out)
    _write_sheet(shown, out)


def _write_batch(
    rows: Sequence[int],
    drawn: Sequence[pictures.PersonViews],
    people: People,
    request: Request,
    on_sheet: frozenset[int],
    out: Path,
) -> list[pictures.PersonViews]:
    """Files of a batch; those of it that are on the sheet."""
    for person in drawn:
        pictures.write_views(person, people, out)
        if request.gif:
            pictures.write_turntable(person, out)
    return [person for row, person in zip(rows, drawn, strict=True) if row in on_sheet]


def _write_sheet(shown: Sequence[pictures.PersonViews], out: Path) -> None:
    if shown:
        pictures.write_picture(pictures.views_sheet(shown), out / "grid.png")


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` rows, evenly spread, first and last among them: of crops, some of many tracks."""
    shown = min(count, most)
    return [round(place * (count - 1) / max(shown - 1, 1)) for place in range(shown)]
