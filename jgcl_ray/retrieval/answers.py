"""What a search answers: lines, JSON and a contact sheet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError, legible
from jgcl_ray.image_files import UnreadableImage, read_image, write_picture
from jgcl_ray.places import absolute
from jgcl_ray.retrieval.index import GalleryIndex
from jgcl_ray.retrieval.sightings import Filter, Sighting, sightings_of

COLUMNS, TILE_WIDTH = 10, 140  # answers in a row of the sheet, pixels


@dataclass(frozen=True)
class Answer:
    """The gallery's nearest images to one query."""

    query: str
    paths: tuple[str, ...]  # k, nearest first
    distances: tuple[float, ...]  # k, Euclidean between normalised embeddings, in [0, 2]
    tracks: tuple[
        str, ...
    ] = ()  # k, CAMERA/TRACK, each once, where answers are tracks and `paths` their nearest crops
    spans: tuple[tuple[float, float] | None, ...] = ()  # k, first and last time of a track's crops in the index
    places: tuple[str, ...] = ()  # k, CAMERA/TRACK of each path, "" where the index does not know them

    def lines(self) -> list[str]:
        """Rank, distance and path, a tab between them; of tracks CAMERA/TRACK and time span before the path.

        Control characters of names, tabs and ends of lines among them, are shown by their numbers.
        """
        middle = [
            f"{legible(track)}\t{_span_text(span)}\t" for track, span in zip(self.tracks, self.spans, strict=True)
        ]
        rows = zip(self.distances, middle or [""] * len(self.paths), self.paths, strict=True)
        return [
            f"{rank}\t{distance:.4f}\t{place}{legible(path)}"
            for rank, (distance, place, path) in enumerate(rows, start=1)
        ]


def answer(
    index: GalleryIndex,
    encoder: Encoder,
    queries: Sequence[str],
    k: int,
    camera: str | None = None,
    by_track: bool = False,
    among: Filter | None = None,
) -> list[Answer]:
    """The nearest images to each query, or the tracks of the nearest images.

    camera: of the queries, where the index takes off camera means; None takes off the mean of all. UserError for one
    that it does not know. among: which images may be answers; UserError where none may.
    """
    if not len(index):
        raise UserError("the index is empty: put images in by --add FOLDER")
    embeddings = encoder.embed(queries)
    if index.camera_means is not None:
        embeddings = index.camera_means.centred(embeddings, [camera] * len(queries))
    if by_track or among:
        return _of_some(index, embeddings, queries, k, by_track, among or Filter())
    hits = index.search(embeddings, k)
    answers = []
    for query, rows, distances in zip(queries, hits.rows, hits.distances, strict=True):
        found = rows[rows >= 0].tolist()
        answers.append(
            Answer(
                query,
                tuple(index.paths[row] for row in found),
                tuple(distances[rows >= 0].tolist()),
                places=tuple(_place(index.sightings[row]) for row in found),
            )
        )
    return answers


def _place(one: Sighting) -> str:
    return f"{one.camera}/{one.track}" if one.track else ""


def _of_some(
    index: GalleryIndex, embeddings: np.ndarray, queries: Sequence[str], k: int, by_track: bool, among: Filter
) -> list[Answer]:
    """As `answer`: more and more images are asked for until there are k that may be answers, or tracks of these."""
    kept = among.kept(index.sightings)
    names = [_place(one) for one in index.sightings]
    if not any(names):
        raise UserError(
            "the index knows no cameras and tracks: build it by --gallery DIR of DIR/CAMERA/TRACK/NAME, as "
            "python -m jgcl_ray.footage writes it"
        )
    if by_track:
        kept &= np.array([bool(name) for name in names])
    if not kept.any():
        known = ", ".join(sorted({one.camera for one in index.sightings if one.camera})[:8])
        timed = [one.time for one in index.sightings if not np.isnan(one.time)]
        span = f"{min(timed):g} to {max(timed):g}" if timed else "not known"
        raise UserError(
            f"no image of the index is of these cameras and times; its cameras are {known}, its times {span}"
        )
    times: dict[str, list[float]] = defaultdict(list)
    for name, one in zip(names, index.sightings, strict=True):
        if not np.isnan(one.time):
            times[name].append(one.time)
    answers = []
    for query, embedding in zip(queries, embeddings, strict=True):
        asked = min(4 * k, len(index))
        while True:
            hits = index.search(embedding[None], asked)
            best: dict[object, tuple[int, float]] = {}  # nearest first, as they come
            for row, distance in zip(hits.rows[0].tolist(), hits.distances[0].tolist(), strict=True):
                if row >= 0 and kept[row]:
                    best.setdefault(names[row] if by_track else row, (row, distance))
            if len(best) >= k or asked == len(index):
                break
            asked = min(4 * asked, len(index))
        chosen = list(best.values())[:k]
        tracks = tuple(names[row] for row, _ in chosen) if by_track else ()
        answers.append(
            Answer(
                query,
                tuple(index.paths[row] for row, _ in chosen),
                tuple(distance for _, distance in chosen),
                tracks,
                tuple((min(times[track]), max(times[track])) if track in times else None for track in tracks),
                places=tuple(names[row] for row, _ in chosen),
            )
        )
    return answers


def answer_sheet(answers: Sequence[Answer]) -> Image.Image:
    """A query in a blue frame at the left of its answers, each with rank, distance, camera and track, and file.

    Where cameras are not known folders are named, if answers and queries come from more than one.
    """
    queries = [str(absolute(Path(one.query))) for one in answers]
    places = {path: _place(one) for path, one in sightings_of(queries, ()).items()}
    places |= {path: at for one in answers if one.places for path, at in zip(one.paths, one.places, strict=True)}
    folders = {absolute(Path(path)).parent for one in answers for path in (one.query, *one.paths)}

    def name(path: str) -> str:
        at = places.get(path) or (Path(path).parent.name if len(folders) > 1 else "")
        return f"{at}\n{Path(path).stem}" if at else Path(path).stem

    rows: list[list[Tile | None]] = []
    for query_path, one in zip(queries, answers, strict=True):
        spans = [_span_text(span) + (" s" if span else "") for span in one.spans]
        captions = [f"{track}\n{span}" for track, span in zip(one.tracks, spans, strict=True)]
        names = captions or [name(path) for path in one.paths]
        tiles = [
            Tile(_opened(path), f"{rank}   distance {distance:.3f}\n{named}")
            for rank, (path, distance, named) in enumerate(zip(one.paths, one.distances, names, strict=True), start=1)
        ]
        for start in range(0, len(tiles), COLUMNS):
            query = None if start else Tile(_opened(one.query), f"query\n{name(query_path)}", "royalblue")
            rows.append([query, *tiles[start : start + COLUMNS]])
    return contact_sheet(rows, width=TILE_WIDTH)


def write_sheet(answers: Sequence[Answer], path: Path) -> None:
    """The sheet as a picture, in the format that the suffix names (contact_sheet.check_sheet)."""
    write_picture(answer_sheet(answers), path)


def _span_text(span: tuple[float, float] | None) -> str:
    return "-" if span is None else f"{span[0]:g} to {span[1]:g}"


def _opened(path: str) -> Image.Image:
    try:
        return read_image(Path(path)).rgb
    except UnreadableImage:
        return Image.new("RGB", (64, 128), "lightgrey")  # the file has gone since it was put into the index
