"""Pictures of projections in folders, laid out as the GCL authors hand them out.

ROOT/{train,test}/render/ and render_45/ ... render_315/, each mirroring the image folder's file names, sub-folders
included; a .png of the same stem serves as well, or of the whole name (a.jpg.png) where images share a stem.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from jgcl_ray.batches import NOVEL_VIEWS
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, image_size, read_grey

VIEWS: tuple[int, ...] = (0, *NOVEL_VIEWS)
SplitName = Literal["train", "test"]
TRUTH = "views.npz"  # beside the walkers' folder of projections: their true parameters
# Proportions that differ from the images' by this factor are those of another field: of a square crop, say.
MAX_DISPROPORTION = 1.9


def view_folder(root: Path, split: SplitName, view: int) -> Path:
    """Where the projections at a view lie."""
    return root / split / ("render" if view == 0 else f"render_{view}")


class FolderProjections:
    """Pictures in the GCL authors' layout, all of which are checked to be there and of the right size.

    `proportion`: height over width of the network's input. `images`: the photos' folder, which these must not be.
    Grey pictures do not tell which point of the body a pixel sees.
    """

    knows_bodies = False

    def __init__(
        self, root: Path, names: Sequence[str], split: SplitName, proportion: float, images: Path | None = None
    ) -> None:
        self._folders = [view_folder(root, split, view) for view in VIEWS]
        self._names = names
        self._pngs = png_names(names)
        _refuse_photos(self._folders, images)
        self._as_png = self._find()  # (N, 8) bool: the file bears the name of png_names
        self._sizes = self._measure(proportion)  # (N, 2) int32

    def load(self, row: int, view: int) -> np.ndarray:
        """See ProjectionSource."""
        path = self._path(row, VIEWS.index(view))
        try:
            grey = read_grey(path)
        except UnreadableImage as error:
            raise UserError(f"{path} cannot be read as a picture: {error}; draw or unpack it again") from None
        if grey.shape != tuple(self._sizes[row]):
            raise UserError(f"{path} is {_size(grey.shape)} now and was {_size(self._sizes[row])}: draw it again")
        return grey

    def coordinates(self, row: int, view: int) -> np.ndarray:
        """UserError: see `knows_bodies` of ProjectionSource."""
        raise UserError(
            f"{self._folders[0].parent} holds pictures of bodies, which do not tell what point of the body a pixel "
            "sees: take meshes.source=parameters or estimated, or the generator without the surface"
        )

    def _path(self, row: int, column: int) -> Path:
        return self._folders[column] / (self._pngs if self._as_png[row, column] else self._names)[row]

    def _find(self) -> np.ndarray:
        as_png = np.zeros((len(self._names), len(VIEWS)), bool)
        missing: list[str] = []
        for column, folder in enumerate(self._folders):
            there = lru_cache(maxsize=None)(lambda parent, folder=folder: listing(folder / parent))
            for row, name in enumerate(self._names):
                parent, _, base = name.rpartition("/")
                files = there(parent)
                if base not in files:
                    as_png[row, column] = True
                    if self._pngs[row].rpartition("/")[2] not in files:
                        missing.append(str(folder / name))
        if missing:
            raise UserError(
                f"{len(missing):,} of {as_png.size:,} projections are missing, first {', '.join(missing[:3])}; draw "
                "them (python -m jgcl_ray.meshes.projections --help), correct meshes.root, or have the bodies "
                "estimated by meshes.source=estimated"
            )
        return as_png

    def _measure(self, proportion: float) -> np.ndarray:
        sizes = np.array(
            [
                [_picture_size(self._path(row, column)) for column in range(len(VIEWS))]
                for row in range(len(self._names))
            ],
            np.int32,
        ).reshape(-1, len(VIEWS), 2)
        # The middle of eight sizes is that of the row unless half of them are odd.
        usual = np.sort(sizes[..., 0] * 65536 + sizes[..., 1], axis=1)[:, len(VIEWS) // 2]
        usual = np.stack([usual // 65536, usual % 65536], axis=1)
        differs = (sizes != usual[:, None]).any(axis=2)
        factor = sizes[..., 0] / sizes[..., 1] / proportion
        disproportionate = np.maximum(factor, 1 / factor) > MAX_DISPROPORTION
        self._report(differs, sizes, "other views of the same image are of another size")
        self._report(disproportionate, sizes, f"images have {proportion:.3g} times their width as height")
        return usual

    def _report(self, wrong: np.ndarray, sizes: np.ndarray, reason: str) -> None:
        places = np.argwhere(wrong)
        if len(places):
            named = ", ".join(f"{self._path(*place)} ({_size(sizes[tuple(place)])})" for place in places[:3])
            raise UserError(f"{len(places):,} of {wrong.size:,} projections are mis-sized, first {named}: {reason}")


def _refuse_photos(folders: Sequence[Path], images: Path | None) -> None:
    """UserError where a folder of projections is, or holds, the photos' folder, or two views are one folder."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        real = folder.resolve()
        if images is not None and (real == images.resolve() or real in images.resolve().parents):
            raise UserError(f"{folder} is the image folder {images} or holds it: a photo is not its own projection")
        if (other := seen.setdefault(real, folder)) is not folder:
            raise UserError(f"{other} and {folder} are one folder: each view needs its own projections")


def listing(folder: Path) -> frozenset[str]:
    """File names in a folder; none where it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def png_names(names: Sequence[str]) -> list[str]:
    """The names under which pictures of images are written, each its own: the image's with .png as its suffix.

    Where that would be another's, too, as of a.jpg and a.png, .png comes after the whole names: a.jpg.png, a.png.png.
    """
    chosen = {name: str(PurePosixPath(name).with_suffix(".png")) for name in names}
    while shared := {picture for picture, count in Counter(chosen.values()).items() if count > 1}:
        chosen = {name: f"{name}.png" if picture in shared else picture for name, picture in chosen.items()}
    return [chosen[name] for name in names]


def _picture_size(path: Path) -> tuple[int, int]:
    """Height and width from the file's header. PNG is read here: ten times as fast as opening the picture."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
        if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 24:
            width, height = struct.unpack(">II", head[16:24])
            if width and height:
                return height, width
        return image_size(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; draw or unpack it again") from None
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read as a picture: {error}; draw or unpack it again") from None


def _size(size: Iterable[int]) -> str:
    return " x ".join(str(int(length)) for length in size)
