"""ResNet without its classifier, stride of the last stage 1, under torchvision's parameter names.

Every layer is told which domain the images come from: where `separate_batch_norm` is on, generated images have
running statistics of their own. Sources: He et al. 2016; IBN-a: Pan et al. 2018 (names of the IBN-Net release).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.distributed import stack_with_gradient

Domain = Literal["real", "generated"]


class DomainBatchNorm(nn.Module):
    """Batch norm over all but dimension 1, under the names of torch's own.

    Trained, it normalises by the statistics of the batch, in evaluation by running ones: those of real images, or
    those of generated images where these are kept apart (generated_mean, generated_var). Gain and offset are shared.
    Where `synchronised` is set the batch is that of all workers together: two workers with half a batch each
    compute what one does with the whole, for two collectives a layer and pass.
    """

    EPSILON, MOMENTUM = 1e-5, 0.1  # torch's

    weight: nn.Parameter
    running_mean: torch.Tensor
    running_var: torch.Tensor
    generated_mean: torch.Tensor
    generated_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, channels: int, separate: bool) -> None:
        super().__init__()
        self.separate, self.synchronised = separate, False
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.int64))
        if separate:
            self.register_buffer("generated_mean", torch.zeros(channels))
            self.register_buffer("generated_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var
        if self.separate and domain == "generated":
            mean, var = self.generated_mean, self.generated_var
        elif self.training:
            self.num_batches_tracked += 1
        if self.training and self.synchronised:
            return self._over_all_workers(x, mean, var)
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.MOMENTUM, self.EPSILON)

    def _over_all_workers(
        self, x: torch.Tensor, running_mean: torch.Tensor, running_var: torch.Tensor
    ) -> torch.Tensor:
        """Chan et al. 1979: the variance of all from each worker's count, mean and variance."""
        wide, channelwise = x.to(torch.promote_types(x.dtype, torch.float32)), (1, -1, *(1 for _ in x.shape[2:]))
        own_var, own_mean = torch.var_mean(wide, [d for d in range(x.ndim) if d != 1], correction=0)
        count = own_mean.new_full((1,), x.numel() / x.shape[1])
        counts, means, variances = stack_with_gradient(torch.cat([count, own_mean, own_var])).tensor_split(
            [1, 1 + len(own_mean)], dim=1
        )
        share = (counts / counts.sum()).detach()
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean).square())).sum(0)
        with torch.no_grad():
            all_of_them = counts.sum()
            running_mean.lerp_(mean, self.MOMENTUM)
            running_var.lerp_(var * all_of_them / (all_of_them - 1).clamp(min=1), self.MOMENTUM)
        scale = self.weight * (var + self.EPSILON).rsqrt()
        return ((wide - mean.view(channelwise)) * scale.view(channelwise) + self.bias.view(channelwise)).to(x.dtype)


def share_statistics(module: nn.Module) -> None:
    """Let generated images start from the running statistics of real ones, wherever they have their own."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm) and part.separate:
            part.generated_mean.copy_(part.running_mean)
            part.generated_var.copy_(part.running_var)


def synchronise_statistics(module: nn.Module) -> None:
    """Let every batch norm in training count the batches of all workers as one."""
    for part in module.modules():
        if isinstance(part, DomainBatchNorm):
            part.synchronised = True


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
ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2), _TORCHVISION + "resnet18-f37072fd.pth"),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3), _TORCHVISION + "resnet34-b627a593.pth"),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3), _TORCHVISION + "resnet50-0676ba61.pth"),
    "resnet50_ibn_a": Architecture(
        Bottleneck,
        (3, 4, 6, 3),
        "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/resnet50_ibn_a-d9d0bb7b.pth",
        ibn=True,
    ),
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
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: torch.Tensor, domain: Domain) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(image), domain), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in blocks:
                x = block(x, domain)
        return x
