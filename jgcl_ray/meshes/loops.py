"""Compiled loops for one core: what silhouettes.py and voxels.py compute in PyTorch, where no gradient is wanted."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def nearest_inside(mask: np.ndarray, reach: int, distance: np.ndarray, place: np.ndarray) -> None:
    """Fills distance float32 and place int64 (B, H, W) for a mask (B, H, W) bool: see silhouettes.nearest_inside."""
    batch, height, width = mask.shape
    row_of = np.empty((height, width), np.int64)  # the nearest row inside in the same column, -1 for none in reach
    for b in range(batch):
        for column in range(width):
            last = -1
            for row in range(height):
                if mask[b, row, column]:
                    last = row
                row_of[row, column] = last if last >= 0 and row - last <= reach else -1
            last = -1
            for row in range(height - 1, -1, -1):
                if mask[b, row, column]:
                    last = row
                above = row_of[row, column]
                if last >= 0 and last - row <= reach and (above < 0 or last - row < row - above):
                    row_of[row, column] = last
        for row in range(height):
            for column in range(width):
                best, found = reach * reach + 1, 0
                for other in range(max(0, column - reach), min(width, column + reach + 1)):
                    there = row_of[row, other]
                    if there >= 0:
                        square = (there - row) ** 2 + (other - column) ** 2
                        at = there * width + other
                        if square < best or (square == best and at < found):
                            best, found = square, at
                distance[b, row, column] = np.sqrt(best) if best <= reach * reach else reach + 1
                place[b, row, column] = found


@numba.njit(cache=True)
def add(
    points: np.ndarray, box: np.ndarray, values: np.ndarray, origin: np.ndarray, voxel: float, sums: np.ndarray
) -> None:
    """Adds values (P, C) to sums (B, X, Y, Z, C): see voxels.Box.sums."""
    shape = sums.shape
    cell = np.empty(3, np.int64)
    for point in range(len(points)):
        for axis in range(3):
            at = np.int64(np.floor((points[point, axis] - origin[axis]) / voxel))
            cell[axis] = min(max(at, 0), shape[axis + 1] - 1)
        into = sums[box[point], cell[0], cell[1], cell[2]]
        for channel in range(shape[4]):
            into[channel] += values[point, channel]


@numba.njit(cache=True)
def read(
    voxels: np.ndarray, points: np.ndarray, box: np.ndarray, origin: np.ndarray, voxel: float, out: np.ndarray
) -> None:
    """Adds what is between the voxels' centres to out (P, C): see voxels.Box.read."""
    shape, flat = voxels.shape, voxels.ravel()
    low, part = np.empty(3, np.int64), np.empty(3, np.float32)
    for point in range(len(points)):
        for axis in range(3):
            local = (points[point, axis] - origin[axis]) / voxel - np.float32(0.5)
            floor = np.floor(local)
            low[axis], part[axis] = np.int64(floor), local - floor
        for corner in range(8):
            share = np.float32(1)
            at = box[point]
            for axis in range(3):
                end = (corner >> axis) & 1
                share *= part[axis] if end else 1 - part[axis]
                at = at * shape[axis + 1] + min(max(low[axis] + end, 0), shape[axis + 1] - 1)
            if share > 0:
                for channel in range(shape[4]):
                    out[point, channel] += share * flat[at * shape[4] + channel]
