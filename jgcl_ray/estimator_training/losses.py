"""What the estimator is trained on: one dict of terms, each a mean over the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from jgcl_ray.estimator_training.pictures import MASK, PictureBatch
from jgcl_ray.estimator_training.skeleton import SWAPPED, Skeleton
from jgcl_ray.meshes.estimator_network import BodyEstimate, EstimatorNetwork

WEIGHTS = {
    "yaw": 1.0,
    "joints": 15.0,
    "silhouette": 3.0,
    "pose": 1.0,
    "pitch": 10.0,
    "phenotypes": 3.0,
    "prior": 0.01,
}
_OTHER_SIDE = 1.25  # what it costs to take the left limbs for the right ones
_EDGE = 0.03  # half heights over which a capsule's edge fades


def estimator_losses(
    found: BodyEstimate, batch: PictureBatch, network: EstimatorNetwork, skeleton: Skeleton
) -> dict[str, Tensor]:
    """The terms under the names of WEIGHTS."""
    joints = projected(found, batch.proportions, network, skeleton)
    width = torch.stack([batch.proportions, torch.ones_like(batch.proportions)], 1)[:, None]  # half heights
    pose = network.poses.encode(batch.pose)
    capsules = capsule_mask(joints * width, found, batch.proportions, skeleton)
    return {
        "yaw": von_mises(found.direction, batch.yaw).mean(),
        "joints": either_side(joints * width, batch.joints * width, batch.joints[:, SWAPPED] * width, beta=0.05),
        "silhouette": 1 - overlap(capsules, batch.mask).mean(),
        "pose": 2 * either_side(found.pose, pose, pose @ network.poses.mirror, beta=1.0),
        "pitch": functional.mse_loss(found.pitch, batch.pitch),
        "phenotypes": functional.mse_loss(found.phenotypes, batch.phenotypes),
        "prior": found.pose.square().mean(),
    }


def either_side(found: Tensor, true: Tensor, swapped: Tensor, beta: float) -> Tensor:
    """Huber loss of (B, ...) against the truth, or, at a price, against the truth with left and right exchanged.

    From the side, few pixels tell the left leg from the right one. The mean of both, legs together, would be the best
    guess of a loss that insists, and is never the truth.
    """
    own, other = (
        functional.smooth_l1_loss(found, wanted, beta=beta, reduction="none").flatten(1).mean(1)
        for wanted in (true, swapped)
    )
    return own.minimum(_OTHER_SIDE * other).mean()


def von_mises(direction: Tensor, angle: Tensor) -> Tensor:
    """Negative log likelihood, without log(2 pi), of angles (B,) in radians, (B,).

    `direction` (B, 2) = kappa (cos mu, sin mu): log I0(kappa) - kappa cos(angle - mu) (Mardia and Jupp, Directional
    Statistics, 3.5.4).
    """
    concentration = direction.norm(dim=1)
    aligned = direction[:, 0] * angle.cos() + direction[:, 1] * angle.sin()
    return torch.special.i0e(concentration).log() + concentration - aligned


def projected(found: BodyEstimate, proportions: Tensor, network: EstimatorNetwork, skeleton: Skeleton) -> Tensor:
    """The joints of the found bodies in the crop, (B, J, 2): -1 and 1 are its edges."""
    joints = skeleton(found.phenotypes, network.poses(found.pose)) @ found.turns().mT
    scale = torch.stack([found.scale / proportions, found.scale], 1)
    return found.root[:, None] + joints[..., :2] * scale[:, None]


def capsule_mask(joints: Tensor, found: BodyEstimate, proportions: Tensor, skeleton: Skeleton) -> Tensor:
    """Share of each cell that capsules around the limbs cover, (B, *MASK); joints (B, J, 2) in half heights."""
    high, wide = MASK
    y = (torch.arange(high, device=joints.device) + 0.5) * 2 / high - 1
    x = (torch.arange(wide, device=joints.device) + 0.5) * 2 / wide - 1
    cells = torch.stack(
        [(x[None, None] * proportions[:, None, None]).expand(-1, high, -1), y[:, None].expand(len(joints), -1, wide)],
        -1,
    ).flatten(1, 2)
    start, end = joints[:, skeleton.ends[:, 0]], joints[:, skeleton.ends[:, 1]]
    along, offset = end - start, cells[:, :, None] - start[:, None]
    share = (offset * along[:, None]).sum(-1) / along.square().sum(-1).clamp(min=1e-6)[:, None]
    distance = (offset - share.clamp(0, 1)[..., None] * along[:, None]).square().sum(-1).clamp(min=1e-9).sqrt()
    radius = skeleton.thickness(found.phenotypes) * found.scale[:, None]
    return torch.sigmoid((radius[:, None] - distance).amax(2) / _EDGE).unflatten(1, MASK)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of masks (B, h, w) of partly covered cells, (B,)."""
    return one.minimum(other).sum((1, 2)) / one.maximum(other).sum((1, 2)).clamp(min=1e-6)
