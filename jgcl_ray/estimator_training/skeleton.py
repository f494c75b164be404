"""The joints of a walking body, differentiable in shape and pose: what the losses project into the image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.light_body import light_body
from jgcl_ray.meshes.walking_pose import MOVED, other_side

_LEG = ("upperleg01", "lowerleg01", "foot", "toe3-1")
_ARM = ("shoulder01", "upperarm01", "lowerarm01", "wrist", "finger3-1")
_CHAINS = (
    ("root", "spine03", "spine02", "neck02", "head", "eye.L"),
    ("head", "eye.R"),
    *((start, *(f"{joint}.{side}" for joint in chain)) for start, chain in (("root", _LEG), ("spine02", _ARM))
      for side in "LR"),
)  # fmt: skip
_PARENT = {child: parent for chain in _CHAINS for parent, child in pairwise(chain)}
JOINTS = ("root", *_PARENT)  # J joints, parents before their children
SWAPPED = [JOINTS.index(other_side(joint)) for joint in JOINTS]  # rows with left and right exchanged

# Capsules that together cover the body: from joint to joint.
_PARTS = (
    ("root", "spine02"), ("spine02", "neck02"), ("neck02", "head"), ("head", "eye.L"), ("head", "eye.R"),
    ("upperleg01.L", "upperleg01.R"), ("shoulder01.L", "shoulder01.R"),
    *((f"{one}.{side}", f"{other}.{side}") for side in "LR" for one, other in (
        ("shoulder01", "upperleg01"), ("upperleg01", "lowerleg01"), ("lowerleg01", "foot"), ("foot", "toe3-1"),
        ("upperarm01", "lowerarm01"), ("lowerarm01", "wrist"), ("wrist", "finger3-1"),
    )),
)  # fmt: skip


class Skeleton(nn.Module):
    """Anny's joints and the thickness of what is around them, as quadratic functions of the phenotypes.

    Fitted to the body model on random phenotypes: the joints to about a centimetre (test_skeleton.py).
    """

    heads: Tensor  # (28, J * 3), metres: of the reference pose
    radii: Tensor  # (28, S), metres: of the capsules around the segments
    ends: Tensor  # (S, 2), rows of JOINTS

    def __init__(self, bodies: int = 400, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        shape = rng.uniform(0, 1, (bodies, 6)).astype(np.float32)
        shape[:, 1] = rng.uniform(0.45, 1.0, bodies)  # adults
        reference = np.tile(np.eye(3, dtype=np.float32), (bodies, anny_body().num_joints, 1, 1))
        heads = light_body().joint_positions(shape, reference)[:, [anny_body().joints[joint] for joint in JOINTS]]
        ends = torch.tensor([[JOINTS.index(end) for end in part] for part in _PARTS])
        radii = _thickness(light_body().vertices(shape, reference), heads, ends.numpy())
        terms = quadratic(torch.from_numpy(shape)).double()
        self.register_buffer(
            "heads", torch.linalg.lstsq(terms, torch.from_numpy(heads).double().flatten(1))[0].float()
        )
        self.register_buffer("radii", torch.linalg.lstsq(terms, torch.from_numpy(radii).double())[0].float())
        self.register_buffer("ends", ends)
        self._parents = [JOINTS.index(_PARENT.get(joint, "root")) for joint in JOINTS]
        self._moved = [MOVED.index(joint) if joint in MOVED else None for joint in JOINTS]

    def forward(self, phenotypes: Tensor, rotations: Tensor) -> Tensor:
        """Phenotypes (B, 6), rotations (B, M, 3, 3) of MOVED -> joints (B, J, 3) in metres, the root at the origin.

        Axes as the body's (AnnyBody): z up, facing -y.
        """
        heads = (quadratic(phenotypes) @ self.heads).unflatten(1, (-1, 3))
        heads = heads - heads[:, :1]
        turns: list[Tensor] = [rotations[:, 0]]
        places: list[Tensor] = [heads[:, 0]]
        for joint in range(1, len(JOINTS)):
            parent, moved = self._parents[joint], self._moved[joint]
            offset = (turns[parent] @ (heads[:, joint] - heads[:, parent])[..., None])[..., 0]
            places.append(places[parent] + offset)
            turns.append(turns[parent] if moved is None else turns[parent] @ rotations[:, moved])
        return torch.stack(places, 1)

    def thickness(self, phenotypes: Tensor) -> Tensor:
        """Radius of the capsule around each segment of `ends`, (B, S), metres."""
        return (quadratic(phenotypes) @ self.radii).clamp(min=0.01)


def quadratic(values: Tensor) -> Tensor:
    """All products of at most two of values (B, C): (B, (C + 1)(C + 2) / 2)."""
    ones = torch.cat([torch.ones_like(values[:, :1]), values], 1)
    rows, columns = torch.triu_indices(ones.shape[1], ones.shape[1])
    return ones[:, rows] * ones[:, columns]


def _thickness(vertices: np.ndarray, heads: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How far the vertices that are nearest to a segment lie from it, (N, S)."""
    radii = np.empty((len(vertices), len(ends)))
    for row, (points, joints) in enumerate(zip(vertices, heads, strict=True)):
        start, along = joints[ends[:, 0]], joints[ends[:, 1]] - joints[ends[:, 0]]
        share = ((points[:, None] - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
        distance = np.linalg.norm(points[:, None] - start - share.clip(0, 1)[..., None] * along, axis=-1)
        nearest = distance.argmin(axis=1)
        radii[row] = [
            np.median(distance[nearest == s, s]) if (nearest == s).any() else 0.02 for s in range(len(ends))
        ]
    return radii
