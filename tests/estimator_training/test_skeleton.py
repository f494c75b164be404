"""The differentiable skeleton against the body model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jgcl_ray.data.walkers.people import draw_people
from jgcl_ray.estimator_training.skeleton import JOINTS, SWAPPED, Skeleton, quadratic
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.gait import draw_gait, joint_rotations
from jgcl_ray.meshes.walking_pose import rotation_vectors, to_matrices


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Skeleton()


def test_joints_are_annys(skeleton: Skeleton) -> None:
    rng, body = np.random.default_rng(3), anny_body()
    people = draw_people(rng, 24)
    gaits = [draw_gait(rng, person.arms) for person in people]
    shape = np.array([person.shape for person in people], np.float32)
    pose = np.stack([joint_rotations(gait, body) for gait in gaits]).astype(np.float32)
    true = body.joint_positions(shape, pose)[:, [body.joints[joint] for joint in JOINTS]]
    vectors = torch.from_numpy(np.stack([rotation_vectors(gait, body) for gait in gaits])).float()
    found = skeleton(torch.from_numpy(shape), to_matrices(vectors)).numpy()
    error = np.linalg.norm(found - true, axis=2)
    assert error.mean() < 0.01 and error.max() < 0.04  # metres


def test_gradients_reach_shape_and_pose(skeleton: Skeleton) -> None:
    phenotypes = torch.full((2, 6), 0.5, requires_grad=True)
    rotations = torch.eye(3).repeat(2, 17, 1, 1).requires_grad_()
    (skeleton(phenotypes, rotations).square().sum() + skeleton.thickness(phenotypes).sum()).backward()
    for leaf in (phenotypes, rotations):
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all() and leaf.grad.abs().sum() > 0


def test_limbs_are_as_thick_as_limbs(skeleton: Skeleton) -> None:
    radii = skeleton.thickness(torch.full((1, 6), 0.5))[0]
    assert radii.min() > 0.015 and radii.max() < 0.2


def test_sides_change_places() -> None:
    assert [JOINTS[row] for row in SWAPPED][JOINTS.index("wrist.L")] == "wrist.R"
    assert JOINTS[SWAPPED[JOINTS.index("head")]] == "head"


def test_products_of_at_most_two() -> None:
    values = torch.tensor([[2.0, 3.0]])
    assert sorted(quadratic(values)[0].tolist()) == [1, 2, 3, 4, 6, 9]
