"""Which files jgcl_ray wrote, by what is in them: those may be replaced, others never.

`places.check_file` asks before the work. Each function here takes a file that is there and not empty, and says
whether it is of one kind, by its beginning, its keys or its entries: no picture, array or network is decoded.
"""

from __future__ import annotations

import json
import mmap
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from jgcl_ray.errors import UserError

Wrote = Callable[[Path], bool]

MARK = "written by jgcl_ray"  # in the metadata of pictures (image_files.write_picture)
PAGE_MARK = '<meta name="generator" content="jgcl_ray">'
AUTHOR = "written_by"  # an array of body parameters: other estimators' files have all the other names

_HEAD = 2**16  # bytes at the beginning, in which marks stand
_EXPORTED = re.compile(rb'\\?"normalisation\\?": \\?"(inside the model|by Encoder)')  # export_formats.preprocessing


def refuse_foreign(path: Path, option: str, wrote: Wrote) -> None:
    """UserError where there is a file at `path`, which `option` gave, that `wrote` does not know.

    Empty ones may go.
    """
    if path.is_file() and path.stat().st_size and not wrote(path):
        raise UserError(
            f"{option} {path}: exists and does not look like a file of this kind that jgcl_ray wrote; delete it, or "
            f"give {option.rstrip(':')} another place"
        )


def is_picture(path: Path) -> bool:
    """Of image_files.write_picture."""
    return MARK.encode() in _head(path)


def is_page(path: Path) -> bool:
    """A report's."""
    return PAGE_MARK.encode() in _head(path)


def is_scores(path: Path) -> bool:
    """Of evaluate --json."""
    return _has_keys(path, "mAP", "cmc", "queries", "gallery")


def is_answers(path: Path) -> bool:
    """Of search --json."""
    return _has_keys(path, "query", "paths", "distances", of_each=True)


def is_view_scores(path: Path) -> bool:
    """Of generate --score."""
    return _has_keys(path, "generated", "copy", "by_view")


def is_counts(path: Path) -> bool:
    """Footage's summary."""
    return _has_keys(path, "cameras", "tracks", "crops", "by_camera")


def is_table(columns: Sequence[str]) -> Wrote:
    """CSV with these columns at least, in this order, from the first."""
    return lambda path: _head(path).startswith(",".join(columns).encode())


def is_export(path: Path) -> bool:
    """The encoder in any format of jgcl_ray.export."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _EXPORTED.search(content) is not None


def is_estimator(path: Path) -> bool:
    """Weights of the mesh estimator."""
    head = _head(path)
    return any(
        b'"command":"python -m jgcl_ray.' + made in head for made in (b"pretrain estimator ", b"meshes.estimator ")
    )


def is_pretrained(path: Path) -> bool:
    """Weights of jgcl_ray.pretrain."""
    return b'"command":"python -m jgcl_ray.pretrain ' in _head(path)


def is_saved_by_torch(path: Path) -> bool:
    """Anything of torch.save: whoever reads it before the work says the rest."""
    return _head(path).startswith(b"PK")


def is_database(path: Path) -> bool:
    """Any of SQLite's: MLflow's, which runs add to."""
    return _head(path).startswith(b"SQLite format 3\0")


def is_body_parameters(path: Path) -> bool:
    """Of meshes.body_parameters; those of version 0.1 by what only its estimator wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    return f"{AUTHOR}.npy" in names or {"names.npy", "yaw.npy", "deviation.npy"} <= names


def is_index(path: Path) -> bool:
    """A search index, if only a damaged one: it begins with its entry `card`."""
    head = _head(path)
    return head[:4] == b"PK\x03\x04" and head[30:38] == b"card.npy"  # of a zip: 30 bytes, then the first entry's name


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _has_keys(path: Path, *keys: str, of_each: bool = False) -> bool:
    """Whether a file is a JSON object with these keys; of_each: a list of such."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    parts = document if of_each and isinstance(document, list) else [document]
    return bool(parts) and all(isinstance(part, dict) and part.keys() >= set(keys) for part in parts)
