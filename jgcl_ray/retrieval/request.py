"""One search, from the files it is given to the answers."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError, legible
from jgcl_ray.ownership import is_index
from jgcl_ray.places import at_home, check_file
from jgcl_ray.retrieval.answers import Answer, answer
from jgcl_ray.retrieval.gallery import (
    absolute_place,
    add_images,
    cameras_of,
    changes_since,
    check_encoder,
    gone,
    images_at,
    new_index,
    readable,
    remove_images,
)
from jgcl_ray.retrieval.index import GalleryIndex, Kind
from jgcl_ray.retrieval.sightings import Filter, sightings_of
from jgcl_ray.wording import counted
from jgcl_ray.writer_lock import only_writer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is wanted, in this order: build or open the index, put images in, take images out, answer queries."""

    index: Path
    checkpoint: Path | None = None  # see Encoder.load; needed for all but removing
    gallery: Path | None = None  # folder of which the index is built anew
    add: tuple[Path, ...] = ()  # files and folders
    remove: tuple[Path, ...] = ()
    query: tuple[Path, ...] = ()  # images
    k: int = 10
    kind: Kind = "auto"  # of a new index
    skip_unreadable: bool = False
    device: str = "auto"
    batch_size: int = 64
    height: int | None = None  # of a new index; None: the checkpoint's
    width: int | None = None
    flip: bool = False  # of a new index, like multi_scale and camera_means; an index knows its own
    multi_scale: bool | None = None  # None: as the encoder is read
    camera_means: bool = False
    camera: str | None = None  # of what is added and of the queries
    by: Literal["image", "track"] = "image"  # what an answer is
    in_camera: tuple[str, ...] = ()  # of the answers; none: any
    since: float | None = None  # time of the answers, like until
    until: float | None = None


def search_gallery(request: Request) -> list[Answer]:
    """Do what is wanted; the index is written, as a whole, before queries are answered."""
    _check(request)
    found = _state(request.index)
    index = GalleryIndex.load(request.index) if request.gallery is None else None
    encoder = _encoder(request, index)
    if encoder is not None:
        index = index or new_index(encoder, request.kind, request.camera_means)
        check_encoder(index, encoder, request.index)
    assert index is not None  # _check saw to it
    if request.camera is not None and not index.spec.camera_means:
        raise UserError(f"--camera: {request.index} takes off no camera means; build it with --camera-means for that")

    added = removed = 0
    places = [place for place in (request.gallery, *request.add) if place is not None]
    if places:
        assert encoder is not None
        paths = images_at(places)
        if request.skip_unreadable:
            paths, unreadable = readable(paths)
            for path in unreadable:
                logger.warning("%s cannot be read and is left out", path)
        cameras = _cameras(request, index) if index.spec.camera_means else None
        sightings = sightings_of(paths, map(absolute_place, places))
        added = add_images(index, encoder, paths, request.batch_size, True, cameras, sightings)
    if request.remove:
        removed = remove_images(index, request.remove)
    _note(gone(index, request.add), "in the index, but no longer on disk", "take out what is gone by --remove")
    if places or removed:
        with only_writer(request.index.parent, "give this command again", f".{request.index.name}.lock"):
            if _state(request.index) != found:
                raise UserError(f"{request.index}: changed by another command meanwhile; give this one again")
            index.save(request.index)
        print(
            f"{request.index}: {added:,} added, {removed:,} removed, {counted(len(index), 'image')}", file=sys.stderr
        )

    if not request.query:
        return []
    assert encoder is not None
    among = Filter(tuple(request.in_camera), request.since, request.until)
    queries = [str(path) for path in request.query]
    answers = answer(index, encoder, queries, request.k, request.camera, request.by == "track", among)
    missing, changed = changes_since(index, {path for one in answers for path in one.paths})
    _note(missing, "among the answers, but no longer on disk", "take out what is gone by --remove")
    _note(changed, "among the answers, but changed since being embedded", "put what has changed in again by --add")
    return answers


def _note(paths: Sequence[str], what: str, remedy: str) -> None:
    """A line on standard error about images, if there are any."""
    if paths:
        are = "is" if len(paths) == 1 else "are"
        first = f"first {legible(paths[0])}"
        print(f"note: {counted(len(paths), 'image')} {are} {what}, {first}; {remedy}", file=sys.stderr)


def _cameras(request: Request, index: GalleryIndex) -> dict[str, str]:
    """The camera of each image that is to be put in, reported on standard error."""
    cameras: dict[str, str] = {}
    if request.gallery is not None:
        cameras = cameras_of([request.gallery], ())
        inner = str(absolute_place(request.gallery))
        beside = [path for path in cameras if str(Path(path).parent) == inner]
        if beside or len(set(cameras.values())) < 2:
            what = f"{beside[0]} lies in no camera's folder" if beside else "there is one camera's folder alone"
            raise UserError(f"--camera-means: {what}; {request.gallery} must hold a folder for each of its cameras")
    known = index.camera_means.cameras if index.camera_means is not None else set(cameras.values())
    added = cameras_of(request.add, [str(camera) for camera in known])
    cameras |= added if request.camera is None else dict.fromkeys(added, request.camera)
    counts = ", ".join(f"{camera} ({images:,})" for camera, images in sorted(Counter(cameras.values()).items()))
    print(f"cameras: {counts}", file=sys.stderr)
    return cameras


def _state(file: Path) -> tuple[int, int] | None:
    """What differs between a file and the one that took its place."""
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


def _encoder(request: Request, index: GalleryIndex | None) -> Encoder | None:
    if request.checkpoint is None:
        return None
    size = (request.height, request.width) if index is None else (index.spec.height, index.spec.width)
    ways = request if index is None else index.spec
    return Encoder.load(request.checkpoint, request.device, *size, flip=ways.flip, multi_scale=ways.multi_scale)


def _check(request: Request) -> None:
    if not (request.gallery or request.add or request.remove or request.query):
        raise UserError("nothing to do: give --gallery, --add, --remove or --query (see --help)")
    if request.checkpoint is None and (request.gallery or request.add or request.query):
        raise UserError("--checkpoint is missing: images are embedded by an encoder; only --remove does without")
    if request.gallery or ((request.add or request.remove) and request.index.exists()):
        check_file(request.index, "--index", is_index)
    if request.gallery is None and (request.height or request.width):
        raise UserError("--height and --width are of a new index (--gallery); an index knows its own")
    if request.gallery is None and (request.flip or request.multi_scale is not None or request.camera_means):
        raise UserError(
            "--flip, --multi-scale and --camera-means are of a new index (--gallery); an index knows its own"
        )
    asks_of_answers = request.by == "track" or Filter(tuple(request.in_camera), request.since, request.until)
    if asks_of_answers and not request.query:
        raise UserError("--by track, --in-camera, --since and --until are of the answers to a --query; there is none")
    if request.camera is not None and not (request.add or request.query):
        raise UserError("--camera is of images that --add or --query name; in --gallery the folders are the cameras")
    for place in (request.index, request.gallery or Path(), *request.add, *request.remove):
        at_home(place)
    if request.since is not None and request.until is not None and request.since > request.until:
        raise UserError(
            f"--since {request.since:g} is later than --until {request.until:g}: no time is both; exchange them"
        )
    for path in request.query:
        if not path.is_file():
            why = "a folder; give images in it" if path.is_dir() else "no such file"
            raise UserError(f"--query {path}: {why}")
