"""One search, from the files it is given to the answers."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.retrieval.answers import Answer, answer
from jgcl_ray.retrieval.gallery import add_images, check_encoder, images_at, new_index, readable, remove_images
from jgcl_ray.retrieval.index import GalleryIndex, Kind, looks_like_index

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


def fulfil(request: Request) -> list[Answer]:
    """Do what is wanted; the index is written, as a whole, before queries are answered."""
    _check(request)
    found = _state(request.index)
    index = GalleryIndex.load(request.index) if request.gallery is None else None
    encoder = _encoder(request, index)
    if encoder is not None:
        index = index or new_index(encoder, request.kind)
        check_encoder(index, encoder, request.index)
    assert index is not None  # _check saw to it

    added = removed = 0
    places = [place for place in (request.gallery, *request.add) if place is not None]
    if places:
        assert encoder is not None
        paths = images_at(places)
        if request.skip_unreadable:
            paths, unreadable = readable(paths)
            for path in unreadable:
                logger.warning("%s cannot be read and is left out", path)
        added = add_images(index, encoder, paths, request.batch_size, progress=True)
    if request.remove:
        removed = remove_images(index, request.remove)
    if places or removed:
        if _state(request.index) != found:
            raise UserError(f"{request.index}: changed by another command meanwhile; give this one again")
        index.save(request.index)
        print(f"{request.index}: {added:,} added, {removed:,} removed, {len(index):,} images", file=sys.stderr)

    if not request.query:
        return []
    assert encoder is not None
    return answer(index, encoder, [str(path) for path in request.query], request.k)


def _state(file: Path) -> tuple[int, int] | None:
    """What differs between a file and the one that took its place."""
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


def _encoder(request: Request, index: GalleryIndex | None) -> Encoder | None:
    if request.checkpoint is None:
        return None
    size = (request.height, request.width) if index is None else (index.card.height, index.card.width)
    return Encoder.load(request.checkpoint, request.device, *size)


def _check(request: Request) -> None:
    if not (request.gallery or request.add or request.remove or request.query):
        raise UserError("nothing to do: give --gallery, --add, --remove or --query (see --help)")
    if request.checkpoint is None and (request.gallery or request.add or request.query):
        raise UserError("--checkpoint is missing: images are embedded by an encoder; only --remove does without")
    if request.gallery is not None and request.index.exists() and not looks_like_index(request.index):
        raise UserError(f"{request.index}: exists and is no index; give --index another name")
    if request.gallery is None and (request.height or request.width):
        raise UserError("--height and --width are of a new index (--gallery); an index knows its own")
    for path in request.query:
        if not path.is_file():
            raise UserError(f"--query {path}: no such file")
