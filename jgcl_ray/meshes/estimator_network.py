"""The network of the mesh estimator: a crop of a person in, how the person's body stands before the camera out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from jgcl_ray.meshes.walking_pose import WalkingPoses

HEIGHT, WIDTH = 96, 48  # pixels of the input
COMPONENTS = 12  # K, of the pose: 99.9 % of the variance of walks


@dataclass(frozen=True, eq=False)
class BodyEstimate:
    """How B bodies stand before their cameras, as tensors."""

    direction: Tensor  # (B, 2): cosine and sine of the yaw times the concentration of its von Mises distribution
    pitch: Tensor  # (B,) radians by which the camera looks down
    pose: Tensor  # (B, K) coefficients of WalkingPoses
    phenotypes: Tensor  # (B, 6) in (0, 1), AnnyBody.PHENOTYPES
    scale: Tensor  # (B,) half heights of the crop that a metre takes
    root: Tensor  # (B, 2) where the pelvis is, x and y: -1 and 1 are the crop's edges

    @property
    def yaw(self) -> Tensor:
        """(B,) radians; 0 faces the camera, counter-clockwise seen from above."""
        return torch.atan2(self.direction[:, 1], self.direction[:, 0])

    @property
    def concentration(self) -> Tensor:
        """(B,) kappa of the yaw's von Mises distribution."""
        return self.direction.norm(dim=1)

    def turns(self) -> Tensor:
        """Rotations (B, 3, 3) from the body's axes to the camera's: x right, y down, z forward."""
        (cos, sin), pitch = functional.normalize(self.direction, dim=1).unbind(1), self.pitch
        down, ahead, none = pitch.sin(), pitch.cos(), torch.zeros_like(pitch)
        rows = [cos, -sin, none, -down * sin, -down * cos, -ahead, ahead * sin, ahead * cos, -down]
        return torch.stack(rows, -1).unflatten(-1, (3, 3))


class EstimatorNetwork(nn.Module):
    """A residual network of 3.1 M parameters on crops of 96 x 48 pixels, stretched, and their proportions.

    `poses` is the basis that the pose coefficients are of.
    """

    def __init__(self, components: int = COMPONENTS) -> None:
        super().__init__()
        self.poses = WalkingPoses(components)
        self.body = nn.Sequential(
            _convolution(3, 32, 2),
            _Residual(32, 32, 1),
            _Residual(32, 64, 2),
            _Residual(64, 64, 1),
            _Residual(64, 128, 2),
            _Residual(128, 128, 1),
            _Residual(128, 256, 2),
            _Residual(256, 256, 1),
            _convolution(256, 64, 1, size=1),
        )
        self.sizes = (2, 1, components, 6, 1, 2)
        last = nn.Linear(256, sum(self.sizes))
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(64 * (HEIGHT // 16) * (WIDTH // 16) + 1, 256), nn.ReLU(), last)

    def forward(self, crops: Tensor, proportions: Tensor) -> BodyEstimate:
        """Crops (B, 3, 96, 48), sRGB in [0, 1], and their width over their height (B,)."""
        features = self.body((crops - 0.45) / 0.25).flatten(1)
        out = self.head(torch.cat([features, (proportions / 0.4).log()[:, None].to(features)], 1)).float()
        direction, pitch, pose, phenotypes, scale, root = out.split(self.sizes, 1)
        return BodyEstimate(
            direction=direction,
            pitch=0.2 + 0.2 * pitch[:, 0],
            pose=pose,
            phenotypes=phenotypes.sigmoid(),
            scale=1.05 * (0.2 * scale[:, 0]).exp(),
            root=0.2 * root,
        )

    @torch.no_grad()
    def both_ways(self, crops: Tensor, proportions: Tensor) -> BodyEstimate:
        """The mean of what crops show and what their mirror images show, mirrored back: surer, and symmetric."""
        here, there = self(crops, proportions), self(crops.flip(3), proportions)
        return BodyEstimate(
            direction=(here.direction + there.direction * here.direction.new_tensor([1.0, -1.0])) / 2,
            pitch=(here.pitch + there.pitch) / 2,
            pose=(here.pose + there.pose @ self.poses.mirror) / 2,
            phenotypes=(here.phenotypes + there.phenotypes) / 2,
            scale=(here.scale * there.scale).sqrt(),
            root=(here.root + there.root * here.root.new_tensor([-1.0, 1.0])) / 2,
        )


def circular_deviation(concentration: Tensor) -> Tensor:
    """Standard deviation in degrees of a von Mises distribution of this kappa: sqrt(-2 log(I1 / I0))."""
    ratio = torch.special.i1e(concentration) / torch.special.i0e(concentration)
    return (-2 * ratio.clamp(min=1e-9).log()).sqrt() * (180 / math.pi)


class _Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels, out, stride)
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def _convolution(channels: int, out: int, stride: int, size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())
