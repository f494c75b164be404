"""The poses of people who walk, in a few numbers: principal components of the rotations of the joints that move.

The rotations are those of gait.py over its random walks and all habits of the arms, and of their mirror images.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from jgcl_ray.meshes.body_models import AnnyBody, anny_body
from jgcl_ray.meshes.gait import ARMS, Gait, draw_gait, joint_rotations

_SIDED = ("upperleg01", "lowerleg01", "foot", "shoulder01", "upperarm01", "lowerarm01")
MOVED = (
    *("root", "spine03", "spine02", "neck02", "head"),
    *(f"{joint}.{side}" for side in "LR" for joint in _SIDED),
)  # M joints; the others keep the reference pose


def rotation_vectors(gait: Gait, body: AnnyBody) -> np.ndarray:
    """A gait as axis times angle of each joint of MOVED, (M, 3) float64, radians."""
    from scipy.spatial.transform import Rotation

    pose = joint_rotations(gait, body)
    vectors: np.ndarray = Rotation.from_matrix(pose[[body.joints[joint] for joint in MOVED]]).as_rotvec()
    return vectors


def other_side(joint: str) -> str:
    """The name of the joint on the other side of the body; its own where there is but one."""
    return joint[:-1] + {"L": "R", "R": "L"}[joint[-1]] if joint.endswith((".L", ".R")) else joint


def mirrored(vectors: Tensor) -> Tensor:
    """The pose (..., M, 3) as a mirror shows it: left and right change places, x turns round."""
    swapped = [MOVED.index(other_side(joint)) for joint in MOVED]
    return vectors[..., swapped, :] * vectors.new_tensor([1.0, -1.0, -1.0])


def to_matrices(vectors: Tensor) -> Tensor:
    """Axis times angle (..., 3), radians -> rotation matrices (..., 3, 3), differentiable at zero too (Rodrigues)."""
    squared = (vectors * vectors).sum(-1)[..., None, None]
    angle = squared.clamp(min=1e-12).sqrt()
    x, y, z = vectors.unbind(-1)
    none = torch.zeros_like(x)
    cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + angle.sin() / angle * cross + (1 - angle.cos()) / angle**2 * (cross @ cross)


class WalkingPoses(nn.Module):
    """A linear basis of poses. Its buffers are part of an estimator's weights."""

    mean: Tensor  # (M * 3,), radians
    components: Tensor  # (K, M * 3), each scaled to one standard deviation
    mirror: Tensor  # (K, K), of coefficients: the pose that a mirror shows

    def __init__(self, components: int) -> None:
        super().__init__()
        width = 3 * len(MOVED)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(components, width))
        self.register_buffer("mirror", torch.zeros(components, components))

    @torch.no_grad()
    def fit(self, walks: int = 4000, seed: int = 0) -> WalkingPoses:
        """Set the basis by random walks, half of them mirrored; takes seconds."""
        vectors = torch.from_numpy(_random_walks(walks, seed))
        both = torch.cat([vectors, mirrored(vectors)]).flatten(1)
        mean = both.mean(0)
        _, deviations, axes = torch.linalg.svd(both - mean, full_matrices=False)
        count = len(self.components)
        axes = axes[:count] * axes[:count].gather(1, axes[:count].abs().argmax(1, keepdim=True)).sign()
        scale = deviations[:count, None] / len(both) ** 0.5
        self.mean.copy_(mean)
        self.components.copy_(axes * scale)
        turned = mirrored((axes * scale).unflatten(1, (-1, 3))).flatten(1)
        self.mirror.copy_(turned @ (axes / scale).T)
        return self

    def encode(self, vectors: Tensor) -> Tensor:
        """Poses (N, M, 3) -> coefficients (N, K), of standard deviation one over random walks."""
        scale = (self.components**2).sum(1)
        return (vectors.flatten(1) - self.mean) @ self.components.T / scale

    def forward(self, coefficients: Tensor) -> Tensor:
        """Coefficients (N, K) -> rotation matrices (N, M, 3, 3) of the joints in MOVED."""
        return to_matrices((self.mean + coefficients @ self.components).unflatten(1, (-1, 3)))


@lru_cache(maxsize=2)
def _random_walks(count: int, seed: int) -> np.ndarray:
    """Poses (count, M, 3); takes seconds."""
    rng = np.random.default_rng(seed)
    gaits = [draw_gait(rng, ARMS[row % len(ARMS)]) for row in range(count)]
    return np.stack([rotation_vectors(gait, anny_body()) for gait in gaits])
