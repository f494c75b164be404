"""ResNet without its classifier, stride of the last stage 1, under torchvision's parameter names.

Every layer is given which domain the images come from: where `separate_batch_norm` is on, generated images have
running statistics of their own. Sources: He et al. 2016; IBN-a: Pan et al. 2018 (names of the IBN-Net release).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.models.backbone import Backbone, Download, State, initialise_convolutions
from jgcl_ray.models.batch_norm import Domain, DomainBatchNorm


class InstanceBatchNorm(nn.Module):
    """IBN-a: instance norm on the first half of the channels, batch norm on the others."""

    def __init__(self, channels: int, separate: bool) -> None:
        super().__init__()
        self.first_half = channels // 2
        self.IN = nn.InstanceNorm2d(self.first_half, affine=True)
        self.BN = DomainBatchNorm(channels - self.first_half, separate)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        first, second = x.tensor_split([self.first_half], dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous(), domain)], dim=1)


Norm = Callable[[int, bool], nn.Module]


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (ResNet-18, -34)."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int, first_norm: Norm, separate: bool) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, 3, stride)
        self.bn1 = first_norm(channels, separate)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = DomainBatchNorm(channels, separate)
        self.downsample = _shortcut(channels_in, channels, stride, separate)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x), domain), inplace=True)
        out = self.bn2(self.conv2(out), domain)
        return F.relu(out + _shortcut_of(self.downsample, x, domain), inplace=True)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (which carries the stride), 1 x 1 to four times the width, and a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int, first_norm: Norm, separate: bool) -> None:
        super().__init__()
        wide = channels * self.expansion
        self.conv1 = _conv(channels_in, channels, 1)
        self.bn1 = first_norm(channels, separate)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.bn2 = DomainBatchNorm(channels, separate)
        self.conv3 = _conv(channels, wide, 1)
        self.bn3 = DomainBatchNorm(wide, separate)
        self.downsample = _shortcut(channels_in, wide, stride, separate)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x), domain), inplace=True)
        out = F.relu(self.bn2(self.conv2(out), domain), inplace=True)
        out = self.bn3(self.conv3(out), domain)
        return F.relu(out + _shortcut_of(self.downsample, x, domain), inplace=True)


def _shortcut(channels_in: int, channels_out: int, stride: int, separate: bool) -> nn.ModuleList | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.ModuleList([_conv(channels_in, channels_out, 1, stride), DomainBatchNorm(channels_out, separate)])


def _shortcut_of(downsample: nn.ModuleList | None, x: torch.Tensor, domain: Domain) -> torch.Tensor:
    return x if downsample is None else downsample[1](downsample[0](x), domain)


def with_instance_norm(state: State, module: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a ResNet for the same one with IBN-a, `module`, or of what holds it.

    Instance norm takes over gain and offset of the first half of the channels; batch norm keeps the rest. It is a
    start to train on from: the two normalise differently.
    """
    given = dict(state)
    for name, part in module.named_modules():
        if isinstance(part, InstanceBatchNorm) and f"{name}.weight" in given:
            for key in [key for key in given if key.startswith(f"{name}.")]:
                value, of = given.pop(key), key.removeprefix(f"{name}.")
                given[f"{name}.BN.{of}"] = value[part.first_half :].clone() if value.ndim else value
                if of in ("weight", "bias"):
                    given[f"{name}.IN.{of}"] = value[: part.first_half].clone()
    return given


@dataclass(frozen=True)
class Architecture:
    """What tells one ResNet from another, and where its ImageNet weights are."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    weights_url: str  # the end of the file's name is the start of its SHA-256
    ibn: bool = False

    @property
    def channels(self) -> int:
        """C, of the last map."""
        return 512 * self.block.expansion


_TORCHVISION = "https://download.pytorch.org/models/"
_IBN_NET = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
IBN = "_ibn_a"  # ends the name of a ResNet that has it
ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2), _TORCHVISION + "resnet18-f37072fd.pth"),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3), _TORCHVISION + "resnet34-b627a593.pth"),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3), _TORCHVISION + "resnet50-0676ba61.pth"),
    "resnet18_ibn_a": Architecture(BasicBlock, (2, 2, 2, 2), _IBN_NET + "resnet18_ibn_a-2f571257.pth", ibn=True),
    "resnet34_ibn_a": Architecture(BasicBlock, (3, 4, 6, 3), _IBN_NET + "resnet34_ibn_a-94bc1577.pth", ibn=True),
    "resnet50_ibn_a": Architecture(Bottleneck, (3, 4, 6, 3), _IBN_NET + "resnet50_ibn_a-d9d0bb7b.pth", ibn=True),
}


class ResNet(nn.Module):
    """Images (B, 3, H, W) -> the last map (B, C, H/16, W/16)."""

    def __init__(self, architecture: Architecture, separate: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = DomainBatchNorm(64, separate)
        channels_in = 64
        stages = []
        for stage, (depth, stride) in enumerate(zip(architecture.depths, (1, 2, 2, 1), strict=True)):
            channels = 64 * 2**stage
            norm: Norm = InstanceBatchNorm if architecture.ibn and stage < 3 else DomainBatchNorm
            blocks = []
            for place in range(depth):
                blocks.append(architecture.block(channels_in, channels, 1 if place else stride, norm, separate))
                channels_in = channels * architecture.block.expansion
            stages.append(nn.ModuleList(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        initialise_convolutions(self)

    def forward(self, image: torch.Tensor, domain: Domain) -> torch.Tensor:
        x = self._pooled(self._begun(image, domain))
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in blocks:
                x = block(x, domain)
        return x

    def first_maps(self, image: torch.Tensor, stages: int, domain: Domain = "real") -> list[torch.Tensor]:
        """Maps after the first convolution, (B, 64, H/2, W/2), and after each of the first `stages` stages.

        They are all held at once, which `forward` does not do.
        """
        maps = [self._begun(image, domain)]
        x = self._pooled(maps[0])
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4)[:stages]:
            for block in blocks:
                x = block(x, domain)
            maps.append(x)
        return maps

    def _begun(self, image: torch.Tensor, domain: Domain) -> torch.Tensor:
        return F.relu(self.bn1(self.conv1(image), domain), inplace=True)

    @staticmethod
    def _pooled(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 3, stride=2, padding=1)


BACKBONES = {
    name: Backbone(
        partial(ResNet, architecture), architecture.channels, Download(architecture.weights_url), heads=("fc.",)
    )
    for name, architecture in ARCHITECTURES.items()
}
