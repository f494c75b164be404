"""The losses: at the truth they are small, elsewhere larger, and each is what its name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import vonmises

from jgcl_ray.estimator_training.cutouts import Cutouts
from jgcl_ray.estimator_training.losses import (
    WEIGHTS,
    capsule_mask,
    either_side,
    estimator_losses,
    overlap,
    projected,
    von_mises,
)
from jgcl_ray.estimator_training.pictures import PictureBatch, draw_pictures
from jgcl_ray.estimator_training.skeleton import Skeleton
from jgcl_ray.meshes.estimator_network import BodyEstimate, EstimatorNetwork


@pytest.fixture(scope="module")
def network() -> EstimatorNetwork:
    network = EstimatorNetwork()
    network.poses.fit(walks=800)
    return network


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Skeleton(bodies=200)


@pytest.fixture(scope="module")
def batch(cutouts: Cutouts) -> PictureBatch:
    return draw_pictures(cutouts, 24, seed=0, number=0)


def width(batch: PictureBatch) -> torch.Tensor:
    return torch.stack([batch.proportions, torch.ones_like(batch.proportions)], 1)[:, None]


@pytest.fixture(scope="module")
def true(batch: PictureBatch, network: EstimatorNetwork, skeleton: Skeleton) -> BodyEstimate:
    """What the truth is in the network's terms; scale and place by least squares over the joints."""
    found = BodyEstimate(
        direction=50 * torch.stack([batch.yaw.cos(), batch.yaw.sin()], 1),
        pitch=batch.pitch,
        pose=network.poses.encode(batch.pose),
        phenotypes=batch.phenotypes,
        scale=torch.ones(len(batch.yaw)),
        root=torch.zeros(len(batch.yaw), 2),
    )
    here, there = projected(found, batch.proportions, network, skeleton) * width(batch), batch.joints * width(batch)
    mean, wanted = here.mean(1, keepdim=True), there.mean(1, keepdim=True)
    scale = ((here - mean) * (there - wanted)).sum((1, 2)) / (here - mean).square().sum((1, 2))
    root = (wanted - scale[:, None, None] * mean)[:, 0] / width(batch)[:, 0]
    return BodyEstimate(found.direction, found.pitch, found.pose, found.phenotypes, scale, root)


def test_the_truth_projects_onto_the_truth(
    true: BodyEstimate, batch: PictureBatch, network: EstimatorNetwork, skeleton: Skeleton
) -> None:
    """Mirrored pictures included: half of a batch is."""
    joints = projected(true, batch.proportions, network, skeleton) * width(batch)
    assert (joints - batch.joints * width(batch)).norm(dim=2).mean() < 0.025  # half heights
    mask = capsule_mask(joints, true, batch.proportions, skeleton)
    assert overlap(mask, batch.mask).mean() > 0.65


def test_errors_cost(true: BodyEstimate, batch: PictureBatch, network: EstimatorNetwork, skeleton: Skeleton) -> None:
    at_truth = estimator_losses(true, batch, network, skeleton)
    assert at_truth.keys() == WEIGHTS.keys()
    changes: dict[str, dict[str, torch.Tensor]] = {
        "yaw": {"direction": -true.direction},
        "pitch": {"pitch": true.pitch + 0.3},
        "pose": {"pose": true.pose + torch.linspace(-2, 2, 12)},
        "phenotypes": {"phenotypes": 1 - true.phenotypes},
        "joints": {"root": true.root + 0.2},
        "silhouette": {"scale": 1.3 * true.scale},
        "prior": {"pose": 3 * true.pose},
    }
    for term, change in changes.items():
        worse = estimator_losses(BodyEstimate(**{**vars(true), **change}), batch, network, skeleton)
        assert worse[term] > 1.2 * at_truth[term] + 0.001, term


def test_likelihood_of_the_von_mises_distribution() -> None:
    angles, mean, kappa = np.array([0.3, -2.0, 3.0]), np.array([0.0, 2.5, -3.0]), np.array([0.5, 4.0, 60.0])
    direction = torch.from_numpy(kappa[:, None] * np.column_stack([np.cos(mean), np.sin(mean)]))
    expected = -vonmises.logpdf(angles, kappa, loc=mean) - np.log(2 * np.pi)
    np.testing.assert_allclose(von_mises(direction, torch.from_numpy(angles)).numpy(), expected, rtol=1e-6)


def test_the_other_side_costs_more() -> None:
    true, swapped = torch.zeros(1, 4), torch.ones(1, 4)
    assert either_side(true, true, swapped, beta=1.0) == 0 == either_side(swapped, true, swapped, beta=1.0)
    between = torch.full((1, 4), 0.5)
    assert either_side(between, true, swapped, beta=1.0) == pytest.approx(0.125)  # the truth's, not 1.25 times it
    near_swapped = torch.full((1, 4), 0.9)
    assert either_side(near_swapped, true, swapped, beta=1.0) == pytest.approx(1.25 * 0.005)


def test_overlap_of_masks() -> None:
    one = torch.zeros(1, 4, 4)
    one[0, :2] = 1
    other = torch.zeros(1, 4, 4)
    other[0, 1:3] = 1
    assert overlap(one, one) == 1 and overlap(one, other) == pytest.approx(1 / 3)
    assert overlap(one / 2, one) == pytest.approx(0.5)
