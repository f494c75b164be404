"""The basis of walking poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.estimator_network import COMPONENTS
from jgcl_ray.meshes.gait import ARMS, draw_gait, joint_rotations
from jgcl_ray.meshes.walking_pose import MOVED, WalkingPoses, mirrored, rotation_vectors, to_matrices


@pytest.fixture(scope="module")
def poses() -> WalkingPoses:
    return WalkingPoses(COMPONENTS).fit(walks=800, seed=0)


def walks(anny: AnnyBody, count: int) -> torch.Tensor:
    rng = np.random.default_rng(5)
    gaits = [draw_gait(rng, ARMS[row % 4]) for row in range(count)]
    return torch.from_numpy(np.stack([rotation_vectors(gait, anny) for gait in gaits])).float()


def test_only_these_joints_move(anny: AnnyBody) -> None:
    pose = joint_rotations(draw_gait(np.random.default_rng(0), "phone"), anny)
    moved = {joint for joint, row in anny.joints.items() if not np.allclose(pose[row], np.eye(3))}
    assert moved <= set(MOVED)


def test_matrices() -> None:
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
    torch.testing.assert_close(to_matrices(vectors), expected)
    still = torch.zeros(2, 3, requires_grad=True)
    to_matrices(still).sum().backward()
    assert still.grad is not None and torch.isfinite(still.grad).all()


def test_walks_that_were_not_fitted_are_in_the_basis(anny: AnnyBody, poses: WalkingPoses) -> None:
    for vectors in (walks(anny, 60), mirrored(walks(anny, 60))):
        between = poses(poses.encode(vectors)).mT @ to_matrices(vectors)
        trace = between.diagonal(dim1=-2, dim2=-1).sum(-1)
        angle = torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos())
        assert angle.mean() < 1.5 and angle.max() < 15


def test_a_mirror_shows_the_mirrored_pose(anny: AnnyBody, poses: WalkingPoses) -> None:
    """Reflected at x = 0, the joints of the left are those of the right in the mirrored pose."""
    vectors = walks(anny, 4)
    torch.testing.assert_close(mirrored(mirrored(vectors)), vectors)
    shape = np.full((4, 6), 0.6, np.float32)
    here, there = (
        anny.joint_positions(shape, full_pose(anny, to_matrices(pose).numpy()))
        for pose in (vectors, mirrored(vectors))
    )
    for joint, row in anny.joints.items():
        twin = anny.joints[joint[:-1] + {"L": "R", "R": "L"}[joint[-1]] if joint.endswith((".L", ".R")) else joint]
        np.testing.assert_allclose(there[:, twin], here[:, row] * [-1, 1, 1], atol=0.01)
    coefficients = poses.encode(vectors)
    torch.testing.assert_close(coefficients @ poses.mirror, poses.encode(mirrored(vectors)), atol=0.05, rtol=0)


def full_pose(anny: AnnyBody, rotations: np.ndarray) -> np.ndarray:
    pose = np.tile(np.eye(3, dtype=np.float32), (len(rotations), anny.num_joints, 1, 1))
    pose[:, [anny.joints[joint] for joint in MOVED]] = rotations
    return pose
