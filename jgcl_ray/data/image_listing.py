"""Which images a run has learnt from, so that it goes on with these and no others.

Labels, memory and the order of batches belong to rows, so to images: names, sizes and checksums of contents are kept
in each checkpoint, as one compressed file, and compared when a run goes on. Dates are not: a copy is the same image.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from jgcl_ray.data.datasets import Split
from jgcl_ray.errors import UserError
from jgcl_ray.stored_files import parse_json

LISTING = "images.json.gz"  # of a checkpoint
NAMED = 3  # of each kind of difference

_CHUNK = 256  # images that a thread takes at a time
_BLOCK = 2**20


@dataclass(frozen=True)
class ImageListing:
    """N images of a split, in the order of its rows."""

    names: tuple[str, ...]
    contents: tuple[tuple[int, int], ...]  # of each image: bytes, and their CRC-32

    def __post_init__(self) -> None:
        if len(self.names) != len(self.contents):
            raise ValueError(f"{len(self.names)} names and {len(self.contents)} contents")

    @classmethod
    def of(cls, split: Split) -> ImageListing:
        """The images of a split as they are on disk; reads them all. UserError where one has gone."""
        chunks = [range(start, min(start + _CHUNK, len(split))) for start in range(0, len(split), _CHUNK)]
        with ThreadPoolExecutor() as pool:
            found = [each for chunk in pool.map(partial(_contents, split), chunks) for each in chunk]
        return cls(split.paths, tuple(found))


def pack(listings: Mapping[str, ImageListing]) -> bytes:
    """The listings of several splits as bytes, the same for the same images."""
    columns = {name: {"names": one.names, "contents": one.contents} for name, one in listings.items()}
    return gzip.compress(json.dumps(columns, separators=(",", ":")).encode(), mtime=0)


def unpack(content: bytes, source: str) -> dict[str, ImageListing]:
    """What `pack` gave; UserError, naming the source, for anything else."""
    remedy = "take another checkpoint"
    try:
        text = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{source}: damaged ({error}); {remedy}") from None
    return parse_json(text, dict[str, ImageListing], source, remedy)


def difference(before: ImageListing, now: ImageListing) -> str:
    """What happened to the images since, in words: how many were renamed, replaced, added, removed, and the first.

    Empty where they are the same.
    """
    old, new = dict(zip(before.names, before.contents, strict=True)), dict(zip(now.names, now.contents, strict=True))
    replaced = [name for name in before.names if name in new and new[name] != old[name]]
    gone, come = [name for name in before.names if name not in new], [name for name in now.names if name not in old]
    by_content: dict[tuple[int, int], list[str]] = {}
    for name in reversed(come):
        by_content.setdefault(new[name], []).append(name)
    renamed = {name: by_content[old[name]].pop() for name in gone if by_content.get(old[name])}
    kinds = {
        "renamed": [f"{name} to {other}" for name, other in renamed.items()],
        "replaced": replaced,
        "added": sorted(set(come) - set(renamed.values())),
        "removed": [name for name in gone if name not in renamed],
    }
    return ", ".join(f"{len(names):,} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _contents(split: Split, rows: range) -> list[tuple[int, int]]:
    found = []
    for row in rows:
        size = checksum = 0
        try:
            with split.path(row).open("rb") as file:
                while block := file.read(_BLOCK):
                    size, checksum = size + len(block), zlib.crc32(block, checksum)
        except OSError as error:
            raise UserError(
                f"{split.path(row)}: {error.strerror}; the data set has changed meanwhile, start again"
            ) from None
        found.append((size, checksum))
    return found
