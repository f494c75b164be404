"""OSNet without its classifier, under torchreid's parameter names: light, and the backbone most people hold.

Sources: Zhou et al., Omni-Scale Feature Learning (ICCV 2019); `ibn` and `ain`: Learning Generalisable Omni-Scale
Representations (TPAMI 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.models.backbone import Backbone, ByHand, initialise_convolutions
from jgcl_ray.models.batch_norm import Domain, DomainBatchNorm, InstanceNorm

STREAMS = 4  # of a block, with 1 to 4 light convolutions: receptive fields of 3 to 9 pixels
GATE_REDUCTION = 16


@dataclass(frozen=True)
class Architecture:
    """What tells one OSNet from another. `instance`: where a block has instance norm, if it has any."""

    channels: tuple[int, int, int, int]
    kind: Literal["plain", "ibn", "ain"] = "plain"


ARCHITECTURES: dict[str, Architecture] = {
    "osnet_x1_0": Architecture((64, 256, 384, 512)),
    "osnet_x0_75": Architecture((48, 192, 288, 384)),
    "osnet_x0_5": Architecture((32, 128, 192, 256)),
    "osnet_x0_25": Architecture((16, 64, 96, 128)),
    "osnet_ibn_x1_0": Architecture((64, 256, 384, 512), "ibn"),
    "osnet_ain_x1_0": Architecture((64, 256, 384, 512), "ain"),
}
# Where the residual and the shortcut meet: `outside` norms their sum, `inside` the residual alone.
InstancePlace = Literal["none", "outside", "inside"]
# Of the two blocks in each of the three stages.
_PLACES: dict[str, tuple[tuple[InstancePlace, InstancePlace], ...]] = {
    "plain": (("none", "none"), ("none", "none"), ("none", "none")),
    "ibn": (("outside", "outside"), ("none", "none"), ("none", "none")),
    "ain": (("inside", "inside"), ("none", "inside"), ("inside", "none")),
}


class ConvNorm(nn.Module):
    """Convolution, norm (batch, instance or none) and, unless it is linear, ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        norm: DomainBatchNorm | InstanceNorm | None,
        kernel: int = 1,
        stride: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
        if norm is not None:
            self.bn = norm
        self.normed, self.linear = norm is not None, linear

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        x = self.conv(x)
        if self.normed:
            x = self.bn(x, domain)
        return x if self.linear else F.relu(x, inplace=True)


class LightConv(nn.Module):
    """A 3 x 3 convolution factorised: 1 x 1, depthwise 3 x 3, batch norm, ReLU."""

    def __init__(self, channels: int, separate: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = DomainBatchNorm(channels, separate)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        return F.relu(self.bn(self.conv2(self.conv1(x)), domain), inplace=True)


class Stream(nn.Module):
    """Light convolutions one after the other, as `ain` names them."""

    def __init__(self, layers: Iterable[LightConv]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Gate(nn.Module):
    """Weights of the channels from their means, one network for all streams of a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // GATE_REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // GATE_REDUCTION, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """1 x 1 to a quarter of the width, four gated streams, 1 x 1 back, and a shortcut."""

    def __init__(self, channels_in: int, channels: int, separate: bool, place: InstancePlace, listed: bool) -> None:
        """listed: streams are named `conv2.0` to `conv2.3`, as in `ain`; otherwise `conv2a` to `conv2d`."""
        super().__init__()
        middle, self.place, self.listed = channels // 4, place, listed
        self.conv1 = ConvNorm(channels_in, middle, DomainBatchNorm(middle, separate))
        streams = [[LightConv(middle, separate) for _ in range(depth)] for depth in range(1, STREAMS + 1)]
        if listed:
            self.conv2 = nn.ModuleList(Stream(layers) for layers in streams)
        else:
            self.conv2a = streams[0][0]
            self.conv2b, self.conv2c, self.conv2d = (nn.ModuleList(layers) for layers in streams[1:])
        self.gate = Gate(middle)
        inside = place == "inside"
        self.conv3 = ConvNorm(middle, channels, None if inside else DomainBatchNorm(channels, separate), linear=True)
        self.downsample: ConvNorm | None = None
        if channels_in != channels:
            self.downsample = ConvNorm(channels_in, channels, DomainBatchNorm(channels, separate), linear=True)
        if place != "none":
            self.IN = InstanceNorm(channels)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        narrow = self.conv1(x, domain)
        gated = []
        for layers in self._streams():
            out = narrow
            for layer in layers:
                out = layer(out, domain)
            gated.append(self.gate(out))
        out = self.conv3(gated[0] + gated[1] + gated[2] + gated[3], domain)
        if self.place == "inside":
            out = self.IN(out, domain)
        out = out + (x if self.downsample is None else self.downsample(x, domain))
        if self.place == "outside":
            out = self.IN(out, domain)
        return F.relu(out, inplace=True)

    def _streams(self) -> Iterator[Iterable[nn.Module]]:
        if self.listed:
            yield from (stream.layers for stream in self.conv2)  # type: ignore[misc]
        else:
            yield from ([self.conv2a], self.conv2b, self.conv2c, self.conv2d)


class OSNet(nn.Module):
    """Images (B, 3, H, W) -> the last map (B, C, H/16, W/16)."""

    def __init__(self, architecture: Architecture, separate: bool) -> None:
        super().__init__()
        widths, kind = architecture.channels, architecture.kind
        self.listed = kind == "ain"
        first_norm = DomainBatchNorm(widths[0], separate) if kind == "plain" else InstanceNorm(widths[0])
        self.conv1 = ConvNorm(3, widths[0], first_norm, kernel=7, stride=2)
        stages: list[nn.ModuleList] = []
        for before, width, places in zip(widths[:-1], widths[1:], _PLACES[kind], strict=True):
            blocks = [Block(before, width, separate, places[0], self.listed)]
            blocks.append(Block(width, width, separate, places[1], self.listed))
            stages.append(nn.ModuleList(blocks))
        self.conv2, self.conv3, self.conv4 = stages
        narrowing = [nn.ModuleList([_pointwise(width, separate)]) for width in widths[1:3]]
        if self.listed:
            self.pool2, self.pool3 = narrowing
        else:
            self.conv2.append(narrowing[0])
            self.conv3.append(narrowing[1])
        self.conv5 = _pointwise(widths[3], separate)
        initialise_convolutions(self)

    def forward(self, image: torch.Tensor, domain: Domain) -> torch.Tensor:
        x = F.max_pool2d(self.conv1(image, domain), 3, stride=2, padding=1)
        for blocks, narrow in zip((self.conv2, self.conv3), self._narrowing(), strict=True):
            x = blocks[1](blocks[0](x, domain), domain)
            x = F.avg_pool2d(narrow(x, domain), 2, stride=2)
        x = self.conv4[1](self.conv4[0](x, domain), domain)
        return self.conv5(x, domain)

    def _narrowing(self) -> tuple[nn.Module, nn.Module]:
        """What ends the first two stages, before the map is halved."""
        pair = (self.pool2, self.pool3) if self.listed else (self.conv2[2], self.conv3[2])
        return pair[0][0], pair[1][0]  # type: ignore[index]


def _pointwise(channels: int, separate: bool) -> ConvNorm:
    return ConvNorm(channels, channels, DomainBatchNorm(channels, separate))


BACKBONES = {
    name: Backbone(
        partial(OSNet, architecture),
        architecture.channels[-1],
        ByHand(f"{name}_imagenet.pth of torchreid's model zoo"),
        heads=("classifier.", "fc."),
    )
    for name, architecture in ARCHITECTURES.items()
}
