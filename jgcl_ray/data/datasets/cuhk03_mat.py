"""Images out of CUHK03's released cuhk-03.mat (MATLAB 7.3, which is HDF5)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jgcl_ray.atomic import one_at_a_time
from jgcl_ray.errors import UserError
from jgcl_ray.progress import tracked

MAT_NAMES = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")


def write_images(mat: Path, variant: str, folder: Path) -> Path:
    """All images of a variant (`detected`, `labeled`) as PNG in `folder`, under torchreid's names; returns it.

    `PAIR_PERSON_VIEW_NUMBER.png`, all from 1; the first five of a person's ten places are view 1. The folder appears
    when it is complete. Whoever comes meanwhile waits.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"{mat}: needs h5py to be read; pip install 'jgcl_ray[cuhk03]'") from None
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
            if folder.is_dir() and any(folder.iterdir()):
                return folder
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            with _opened(h5py, mat) as file:
                cells = list(_cells(file, mat, variant))
                for name, reference in tracked(cells, f"images of {mat.name}"):
                    pixels = np.asarray(file[reference])
                    if pixels.ndim == 3:  # an empty place is two zeros
                        Image.fromarray(pixels.astype(np.uint8).transpose(2, 1, 0)).save(
                            partial / name, compress_level=1
                        )
            if not any(partial.iterdir()):
                raise UserError(f"{mat}: no {variant} image in it; take it from the authors' archive again")
            partial.replace(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: the images of {mat.name} cannot be written there ({error.strerror or error})"
        ) from None
    return folder


def _opened(h5py: Any, mat: Path) -> Any:
    try:
        return h5py.File(mat, "r")
    except OSError as error:
        raise UserError(f"{mat}: not a MATLAB 7.3 file ({error}); take it from the authors' archive again") from None


def _cells(file: Any, mat: Path, variant: str) -> Iterator[tuple[str, Any]]:
    """File names and references of a variant's places, pair of cameras by pair; MATLAB's arrays stand transposed."""
    if variant not in file:
        raise UserError(f"{mat}: holds no {variant} but {', '.join(file)}; take it from the authors' archive again")
    for pair, of_pair in enumerate(np.asarray(file[variant]).ravel(), start=1):
        places = np.asarray(file[of_pair])  # (10, people)
        if places.ndim != 2 or places.dtype != object:
            raise UserError(f"{mat}: {variant} is no table of images; take it from the authors' archive again")
        for number, people in enumerate(places, start=1):
            for person, reference in enumerate(people, start=1):
                yield f"{pair}_{person:03d}_{1 if number <= 5 else 2}_{number:02d}.png", reference
