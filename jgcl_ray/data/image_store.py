"""The images of a split by row, read from disk each time or kept in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from jgcl_ray.data.datasets.reid_dataset import Split
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, read_rgb

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps memory that processes share


class ImageStore:
    """uint8 (H, W, 3) images of N rows, decoded and resized.

    keep: hold each image after its first use, N * H * W * 3 bytes in all, in memory that loader processes share.
    """

    def __init__(self, split: Split, height: int, width: int, keep: bool = False) -> None:
        self.split = split
        self.height, self.width = height, width
        self._kept = _SharedImages(len(split), height, width) if keep else None

    def __len__(self) -> int:
        return len(self.split)

    def load(self, row: int) -> np.ndarray:
        """The image of a row; not to be written to. UserError names a file that cannot be read."""
        if self._kept is None:
            return self._read(row)
        if not self._kept.filled[row]:
            self._kept.fill(row, self._read(row))
        return self._kept.images[row].numpy()

    def _read(self, row: int) -> np.ndarray:
        path = self.split.path(row)
        try:
            return read_rgb(path, self.height, self.width)
        except UnreadableImage as error:
            raise UserError(
                f"{path}: cannot be read ({error}); restore it, or start again with data.on_bad_image=skip"
            ) from None


class _SharedImages:
    def __init__(self, rows: int, height: int, width: int) -> None:
        shape = (rows, height, width, 3)
        _check_room(rows * height * width * 3)
        self.images = torch.empty(shape, dtype=torch.uint8).share_memory_()
        self.filled = torch.zeros(rows, dtype=torch.bool).share_memory_()

    def fill(self, row: int, image: np.ndarray) -> None:
        # Two processes may both fill a row: with the same bytes, and the mark comes after them.
        self.images[row].numpy()[:] = image
        self.filled[row] = True


def free_bytes(folder: Path) -> float:
    """Of the file system of a folder; infinite where there is no such folder."""
    return shutil.disk_usage(folder).free if folder.is_dir() else float("inf")


def _check_room(size: int) -> None:
    # Shared memory beyond its limit is not refused but kills the process that writes to it.
    if (free := free_bytes(SHARED_MEMORY)) < size:
        raise UserError(
            f"data.cache needs {size / 1e9:.2f} GB of shared memory, {SHARED_MEMORY} has {free / 1e9:.2f} GB free: "
            "give it more (containers: --shm-size) or set data.cache=false"
        )
