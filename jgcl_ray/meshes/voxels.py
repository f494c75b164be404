"""Values at points in space, summed into boxes of voxels, and read at other points. In PyTorch, batched.

Letters: B boxes, P points of all of them together, C channels, X x Y x Z voxels a box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jgcl_ray.meshes import loops


@dataclass(frozen=True)
class Box:
    """Where the voxels of B equal boxes are."""

    boxes: int  # B
    shape: tuple[int, int, int]  # X, Y, Z
    origin: Tensor  # (3,) metres, the corner of the first voxel
    voxel: float  # metres

    @classmethod
    def around(cls, low: Tensor, high: Tensor, voxel: float, boxes: int, multiple: int) -> Box:
        """With numbers of voxels that `multiple` divides, so that they can be joined; corners (3,) metres.

        Its blocks of that many voxels are of the lattice that has one around the origin: larger boxes have the same
        voxels, and more.
        """
        first = (low / (voxel * multiple) + 0.5).floor() - 0.5
        last = (high / (voxel * multiple) + 0.5).ceil() - 0.5
        x, y, z = ((last - first).clamp(min=1) * multiple).long().tolist()
        return cls(boxes, (x, y, z), first * (voxel * multiple), voxel)

    def coarser(self) -> Box:
        """The same box in voxels of twice the side."""
        x, y, z = self.shape
        return replace(self, shape=(x // 2, y // 2, z // 2), voxel=2 * self.voxel)

    def sums(self, points: Tensor, box: Tensor, values: Tensor) -> Tensor:
        """Sums of the values of the points in each voxel: (P, 3) metres, (P,) box of each, (P, C) -> (B, X, Y, Z, C).

        Points outside count for the voxel at the edge.
        """
        x, y, z = self.shape
        if _plain(points, values):
            sums = torch.zeros(self.boxes, x, y, z, values.shape[1])
            loops.add(points.numpy(), box.numpy(), values.numpy(), self.origin.numpy(), self._side, sums.numpy())
            return sums
        cell = ((points - self.origin) / self.voxel).floor().long()
        row = self._row(box, *(cell[:, axis].clamp(0, self.shape[axis] - 1) for axis in range(3)))
        empty = values.new_zeros(self.boxes * x * y * z, values.shape[1])
        summed = empty.scatter_add(0, row[:, None].expand_as(values), values)
        return summed.view(self.boxes, x, y, z, values.shape[1])

    def read(self, voxels: Tensor, points: Tensor, box: Tensor) -> Tensor:
        """Values between the voxels' centres, trilinear: (B, X, Y, Z, C), (P, 3), (P,) -> (P, C)."""
        if _plain(points, voxels):
            out = torch.zeros(len(points), voxels.shape[-1])
            voxels, points = voxels.contiguous(), points.contiguous()
            loops.read(voxels.numpy(), points.numpy(), box.numpy(), self.origin.numpy(), self._side, out.numpy())
            return out
        table = voxels.reshape(-1, voxels.shape[-1])
        local = (points - self.origin) / self.voxel - 0.5
        low = local.floor()
        share = local - low
        ends = []
        for axis in range(3):
            cell, last = low[:, axis].long(), self.shape[axis] - 1
            part = share[:, axis, None]
            ends.append(((cell.clamp(0, last), 1 - part), ((cell + 1).clamp(0, last), part)))
        total = torch.zeros(len(points), table.shape[1], dtype=table.dtype, device=table.device)
        for x, share_x in ends[0]:
            for y, share_y in ends[1]:
                share_xy = share_x * share_y
                for z, share_z in ends[2]:
                    corner = table.index_select(0, self._row(box, x, y, z))
                    total = torch.addcmul(total, corner, share_xy * share_z)
        return total

    @property
    def _side(self) -> Any:
        return np.float32(self.voxel)

    def _row(self, box: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return ((box * self.shape[0] + x) * self.shape[1] + y) * self.shape[2] + z


def joined(sums: Tensor) -> Tensor:
    """Sums over voxels of twice the side: (B, X, Y, Z, C) -> (B, X/2, Y/2, Z/2, C)."""
    for axis in (1, 2, 3):
        even = sums.unflatten(axis, (sums.shape[axis] // 2, 2))
        sums = even.select(axis + 1, 0) + even.select(axis + 1, 1)
    return sums


def _plain(points: Tensor, values: Tensor) -> bool:
    """Whether compiled loops can do it: on the CPU, in float32, without a gradient."""
    single = points.dtype == values.dtype == torch.float32
    tracked = torch.is_grad_enabled() and (values.requires_grad or points.requires_grad)
    return single and values.device.type == "cpu" and not tracked
