"""Images in and out of an index, embedded on the way."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jgcl_ray.camera_means import CameraMeans
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, verify
from jgcl_ray.places import absolute
from jgcl_ray.retrieval.index import GalleryIndex, IndexSpec, Kind
from jgcl_ray.retrieval.sightings import UNKNOWN, Sighting

logger = logging.getLogger(__name__)

GONE = (-1, -1)  # stamp of a file that is not there


def new_index(encoder: Encoder, kind: Kind = "auto", camera_means: bool = False) -> GalleryIndex:
    """An empty index for an encoder's embeddings; camera_means: each camera's mean is to be taken off them."""
    size = encoder.height, encoder.width
    ways = {"flip": encoder.flip, "multi_scale": encoder.multi_scale, "camera_means": camera_means}
    return GalleryIndex(IndexSpec(encoder.fingerprint, *size, encoder.width_of_embedding, kind, **ways))


def check_encoder(index: GalleryIndex, encoder: Encoder, file: Path) -> None:
    """UserError where the index holds another encoder's embeddings: distances between the two mean nothing."""
    if index.spec.fingerprint != encoder.fingerprint:
        raise UserError(
            f"{file}: built with another encoder (fingerprint {index.spec.fingerprint[:12]}, this one has "
            f"{encoder.fingerprint[:12]}): give that one's --checkpoint, or build the index again by --gallery FOLDER"
        )


def absolute_place(place: Path) -> Path:
    """The absolute path of a file or folder, the same whether or not the way to it goes back by `..`.

    Links stay as they are, but for one that `..` leaves: there the way back is that of the folder it leads to.
    """
    given = absolute(place)
    plain = Path(os.path.normpath(given))
    if given.exists() and not (plain.exists() and plain.samefile(given)):
        return Path(os.path.realpath(given))
    return plain


def images_at(places: Iterable[Path]) -> list[str]:
    """Absolute paths of the given files and of all images below the given folders, each once."""
    return list(dict.fromkeys(path for place in places for path in _images_at(place)))


def cameras_of(places: Iterable[Path], known: Collection[str]) -> dict[str, str]:
    """The camera of each image at some files and folders, by absolute path: that of the `known` in whose folder it
    lies, however deep; else the first folder below the given one, or that itself where the image lies directly in it.
    """
    cameras: dict[str, str] = {}
    for place in places:
        for path in _images_at(place):
            folders = Path(path).parent.parts
            base = absolute_place(place)
            below = folders[len(base.parts) :] if base.is_dir() else ()
            named = [name for name in folders if name in known]
            cameras[path] = named[-1] if named else below[0] if below else folders[-1]
    return cameras


def add_images(
    index: GalleryIndex,
    encoder: Encoder,
    paths: Sequence[str],
    batch_size: int = 64,
    progress: bool = False,
    cameras: Mapping[str, str] | None = None,
    sightings: Mapping[str, Sighting] | None = None,
) -> int:
    """Embed images into the index; how many. Files that it has, unaltered since, are left alone.

    cameras: of the paths, where the index takes off camera means. sightings: of those that are tracked.
    """
    seen = sightings or {}
    rows = {os.path.normpath(path): row for row, path in enumerate(index.paths)}
    stamps = {path: _stamp(path) for path in paths}
    wanted = [path for path in paths if path not in rows or _differs(index.stamps[rows[path]], stamps[path])]
    if wanted:
        embeddings = encoder.embed(wanted, batch_size, progress)
        if index.spec.camera_means:
            assert cameras is not None
            embeddings = _centred(index, embeddings, [cameras[path] for path in wanted])
        altered = np.array([rows[path] for path in wanted if path in rows], np.int64)
        if len(altered):
            index.remove(altered)
        of_wanted = [seen.get(path, UNKNOWN) for path in wanted]
        index.add(embeddings, wanted, np.array([stamps[path] for path in wanted], np.int64), of_wanted)
    return len(wanted)


def remove_images(index: GalleryIndex, places: Iterable[Path]) -> int:
    """Take files, and all files below folders, out of the index, whether or not they still exist; how many."""
    wanted = np.zeros(len(index), bool)
    for place in places:
        absolute = str(absolute_place(place))
        beneath = [path == absolute or path.startswith(f"{absolute}/") for path in map(os.path.normpath, index.paths)]
        if not any(beneath):
            known = f"; its first image is {index.paths[0]}" if index.paths else ", which is empty"
            raise UserError(f"{absolute}: not in the index{known}")
        wanted |= beneath
    index.remove(np.flatnonzero(wanted))
    return int(wanted.sum())


def gone(index: GalleryIndex, places: Iterable[Path]) -> list[str]:
    """Images of the index that lay at some files and below some folders, and are there no more."""
    bases = {absolute_place(place) for place in places}
    if not bases:
        return []
    at = ((path, Path(path)) for path in index.paths)
    return [path for path, file in at if not bases.isdisjoint((file, *file.parents)) and _stamp(path) == GONE]


def changes_since(index: GalleryIndex, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of some images of the index: those whose files are gone, and those whose files have changed since."""
    wanted = set(paths)
    stamps = {path: stamp for path, stamp in zip(index.paths, index.stamps.tolist(), strict=True) if path in wanted}
    now = {path: _stamp(path) for path in stamps}
    return (
        [path for path in stamps if now[path] == GONE],
        [path for path, stamp in stamps.items() if now[path] != GONE and _differs(stamp, now[path])],
    )


def readable(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths whose images can be decoded to the end, and the others."""
    unreadable = {path for path in paths if not _decodes(path)}
    return [path for path in paths if path not in unreadable], sorted(unreadable)


def _centred(index: GalleryIndex, embeddings: np.ndarray, cameras: Sequence[str]) -> np.ndarray:
    """Less the means of the index, to which those of new cameras are added."""
    known = () if index.camera_means is None else index.camera_means.cameras
    new = [row for row, camera in enumerate(cameras) if camera not in known]
    if new:
        means = CameraMeans.of(embeddings[new], [cameras[row] for row in new])
        for warning in means.small_camera_warnings:
            logger.warning(warning)
        index.camera_means = means if index.camera_means is None else index.camera_means.joined(means)
    assert index.camera_means is not None
    return index.camera_means.centred(embeddings, cameras)


def _images_at(place: Path) -> Iterator[str]:
    place = absolute_place(place)
    if place.is_file():
        yield str(place)
    else:
        yield from (str(place / name) for name in image_tree(place))


def _stamp(path: str) -> tuple[int, int]:
    """When a file was last changed, ns, and its size; GONE where it cannot be asked: who reads it says why."""
    try:
        state = Path(path).stat()
    except OSError:
        return GONE
    return state.st_mtime_ns, state.st_size


def _differs(before: Sequence[int], now: tuple[int, int]) -> bool:
    """Whether a file has another date, or another size, where that was kept: a copy may keep the date."""
    return before[0] != now[0] or before[1] not in (-1, now[1])


def _decodes(path: str) -> bool:
    try:
        verify(Path(path))
    except UnreadableImage:
        return False
    return True
