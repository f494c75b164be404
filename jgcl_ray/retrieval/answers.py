"""What a search answers: lines, JSON and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jgcl_ray.atomic import replacing
from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, read_image
from jgcl_ray.retrieval.index import GalleryIndex

COLUMNS, TILE_WIDTH = 10, 140  # answers in a row of the sheet, pixels


@dataclass(frozen=True)
class Answer:
    """The gallery's nearest images to one query."""

    query: str
    paths: tuple[str, ...]  # k, nearest first
    distances: tuple[float, ...]  # k, Euclidean between normalised embeddings, in [0, 2]

    def lines(self) -> list[str]:
        """Rank, distance and path, a tab between them."""
        pairs = zip(self.distances, self.paths, strict=True)
        return [f"{rank}\t{distance:.4f}\t{path}" for rank, (distance, path) in enumerate(pairs, start=1)]


def answer(
    index: GalleryIndex, encoder: Encoder, queries: Sequence[str], k: int, camera: str | None = None
) -> list[Answer]:
    """The nearest images to each query.

    camera: of the queries, where the index takes off camera means; None takes off the mean of all. UserError for one
    that it does not know.
    """
    if not len(index):
        raise UserError("the index is empty: put images in by --add FOLDER")
    embeddings = encoder.embed(queries)
    if index.camera_means is not None:
        embeddings = index.camera_means.centred(embeddings, [camera] * len(queries))
    hits = index.search(embeddings, k)
    return [
        Answer(query, tuple(index.paths[row] for row in rows if row >= 0), tuple(distances[rows >= 0].tolist()))
        for query, rows, distances in zip(queries, hits.rows, hits.distances, strict=True)
    ]


def answer_sheet(answers: Sequence[Answer]) -> Image.Image:
    """A query in a blue frame at the left of its answers, each with rank, distance and file.

    Folders are named where the answers come from more than one.
    """
    several = len({Path(path).parent for one in answers for path in one.paths}) > 1
    rows: list[list[Tile | None]] = []
    for one in answers:
        tiles = [
            Tile(_opened(path), f"{rank}   {distance:.3f}\n{_name(path, several)}")
            for rank, (path, distance) in enumerate(zip(one.paths, one.distances, strict=True), start=1)
        ]
        for start in range(0, len(tiles), COLUMNS):
            query = None if start else Tile(_opened(one.query), f"query\n{_name(one.query, several)}", "royalblue")
            rows.append([query, *tiles[start : start + COLUMNS]])
    return contact_sheet(rows, width=TILE_WIDTH)


def write_sheet(answers: Sequence[Answer], path: Path) -> None:
    """The sheet as a picture, in the format that the suffix names."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise UserError(f"{path}: unknown format of pictures; give a name that ends in .png or .jpg")
    with replacing(path) as partial:
        answer_sheet(answers).save(partial)


def _name(path: str, with_folder: bool) -> str:
    return f"{Path(path).parent.name}\n{Path(path).stem}" if with_folder else Path(path).stem


def _opened(path: str) -> Image.Image:
    try:
        return read_image(Path(path)).rgb
    except UnreadableImage:
        return Image.new("RGB", (64, 128), "lightgrey")  # the file has gone since it was put into the index
