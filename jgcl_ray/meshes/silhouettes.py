"""Silhouettes in pictures: what lies just outside of one, and pictures without what lies inside. In PyTorch, batched.

Letters: B pictures, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jgcl_ray.meshes import loops


def nearest_inside(mask: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """How far each pixel is from the nearest one inside a mask, and which that is.

    mask (B, H, W) bool, reach in pixels -> distance (B, H, W) float32, pixels, 0 inside, above `reach` where there is
    none so near; its place row * W + column (B, H, W) int64 (any where there is none). Exact up to `reach`: columns
    first, then rows (Felzenszwalb and Huttenlocher's two passes, without their envelope).
    """
    if mask.device.type == "cpu":
        found = torch.empty(mask.shape), torch.empty(mask.shape, dtype=torch.int64)
        loops.nearest_inside(mask.numpy(), reach, found[0].numpy(), found[1].numpy())
        return found
    return nearest_inside_in_parallel(mask, reach)


def nearest_inside_in_parallel(mask: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """`nearest_inside` of whole pictures at once, for a GPU."""
    _, height, width = mask.shape
    bits = (height * width - 1).bit_length()
    none = 2 * reach * reach + 1
    kind = torch.int32 if (none + 2 * reach * reach) << bits < 2**31 else torch.int64
    place = torch.arange(height * width, device=mask.device, dtype=kind).view(1, height, width)
    key = torch.where(mask, place, torch.full_like(place, none << bits))  # squared distance, then the place
    for axis in (1, 2):
        best = key.clone()
        for shift in range(1, min(reach, key.shape[axis] - 1) + 1):
            moved = key + (shift * shift << bits)
            size = key.shape[axis] - shift
            later, sooner = best.narrow(axis, shift, size), best.narrow(axis, 0, size)
            torch.minimum(later, moved.narrow(axis, 0, size), out=later)
            torch.minimum(sooner, moved.narrow(axis, shift, size), out=sooner)
        key = best
    squared = key >> bits
    distance = squared.to(torch.float32).sqrt()
    distance[squared > reach * reach] = reach + 1.0
    return distance, (key & ((1 << bits) - 1)).long()


def without(picture: Tensor, hidden: Tensor) -> Tensor:
    """A picture filled in smoothly where it is hidden: (B, C, H, W), (B, H, W) bool -> (B, C, H, W).

    Pull and push (Gortler et al., The Lumigraph, 1996): halved until something is known everywhere, then enlarged
    again into what is hidden. Where everything is hidden the picture stays as it is.
    """
    hidden = hidden & ~hidden.flatten(1).all(1)[:, None, None]
    known = (~hidden)[:, None].to(picture.dtype)
    levels = [torch.cat([picture * known, known], 1)]
    while min(levels[-1].shape[-2:]) > 2:
        now = levels[-1]
        odd = (0, now.shape[-1] % 2, 0, now.shape[-2] % 2)
        half = 4 * F.avg_pool2d(F.pad(now, odd), 2)
        levels.append(half / half[:, -1:].clamp(min=1))  # one pixel that is known is enough
    total = levels[-1].sum((2, 3), keepdim=True)
    mean = total[:, :-1] / total[:, -1:].clamp(min=1e-6)
    filled = levels[-1][:, :-1] + (1 - levels[-1][:, -1:]) * mean
    for now in levels[-2::-1]:
        enlarged = F.interpolate(filled, size=now.shape[-2:], mode="bilinear", align_corners=False)
        filled = now[:, :-1] + (1 - now[:, -1:]) * enlarged
    return filled
