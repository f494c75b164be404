"""Layers that the structure encoder, the generator and the discriminator share (METHOD "Networks").

A convolution pads by reflection and has a bias; a norm and an activation follow it. Letters: B images, C channels,
h x w the size of a feature map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.floats import at_least_float32

SLOPE = 0.2  # of every leaky ReLU
LAYER_NORM_EPS = 1e-5  # added to the standard deviation


Layer = TypeVar("Layer", bound=nn.Module)


class Layers(nn.ModuleList, Generic[Layer]):
    """A ModuleList whose members' type is known."""

    def __iter__(self) -> Iterator[Layer]:
        return super().__iter__()  # type: ignore[return-value]


def reflect_conv(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int | None = None, dilation: int = 1
) -> nn.Conv2d:
    """A convolution with reflect padding, by default as much as keeps the size."""
    padding = kernel // 2 if padding is None else padding
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, padding_mode="reflect")


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """LeakyReLU(0.2) in place: its gradient needs only its result, a convolution's none of its own."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def instance_norm(x: torch.Tensor) -> torch.Tensor:
    """Instance norm of x (B, C, h, w) without affine part: biased variance, eps 1e-5."""
    return _normalise_instances(x, None, None)


def adaptive_instance_norm(x: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Instance norm of x (B, C, h, w), then gain and offset (B, C) of each sample and channel (AdaIN)."""
    return _normalise_instances(x, at_least_float32(gain), at_least_float32(offset))


def _normalise_instances(x: torch.Tensor, gain: torch.Tensor | None, offset: torch.Tensor | None) -> torch.Tensor:
    """A batch norm over one sample's channels. Statistics are kept in float32, whatever x is."""
    if x.device.type == "cpu" and not x.is_contiguous():
        # Channels last: all channels of all samples as the channels of one would be a copy there and back.
        gains = gain.unbind() if gain is not None else [None] * len(x)
        offsets = offset.unbind() if offset is not None else [None] * len(x)
        return torch.cat([_train_norm(s, g, o) for s, g, o in zip(x.split(1), gains, offsets, strict=True)])
    flat_gain, flat_offset = (None if v is None else v.flatten() for v in (gain, offset))
    return _train_norm(x.reshape(1, -1, *x.shape[2:]), flat_gain, flat_offset).view(x.shape)


def _train_norm(x: torch.Tensor, gain: torch.Tensor | None, offset: torch.Tensor | None) -> torch.Tensor:
    return F.batch_norm(x, None, None, gain, offset, training=True)


class LayerNorm(nn.Module):
    """Over C, h and w of each sample: (x - mean) / (unbiased std + 1e-5), then gain and offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w), computed in float32 -> the same shape and type."""
        return _LayerNormFunction.apply(x, self.gain, self.offset)


class _LayerNormFunction(torch.autograd.Function):
    """With autograd's own backward every operation of the formula would be a pass over memory there and back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        wide = at_least_float32(x)
        mean, std = wide.mean((1, 2, 3), keepdim=True), wide.std((1, 2, 3), keepdim=True)
        normal = (x - mean).div_(std + LAYER_NORM_EPS)
        ctx.save_for_backward(normal, std, gain)
        return (normal * gain[:, None, None]).add_(offset[:, None, None]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normal, std, gain = ctx.saved_tensors
        size = normal[0].numel()
        of_gain, of_offset = (gradient * normal).sum((2, 3)), at_least_float32(gradient).sum((2, 3))  # (B, C)
        scale = 1 / (std + LAYER_NORM_EPS)
        level = (of_offset @ gain)[:, None, None, None] * scale / size
        slope = (of_gain @ gain)[:, None, None, None] / ((size - 1) * std.clamp(min=1e-12))
        of_x = torch.addcmul(-level, normal, -slope).addcmul_(at_least_float32(gradient), gain[:, None, None] * scale)
        return of_x.to(gradient.dtype), of_gain.sum(0), of_offset.sum(0)


class ResidualBlock(nn.Module):
    """Conv3, norm, lrelu, Conv3, norm, plus the input; which norm, if any, is the caller's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = reflect_conv(channels, channels, 3)
        self.conv2 = reflect_conv(channels, channels, 3)


class UpsampledConv(nn.Conv2d):
    """Nearest up-sampling by two, then Conv5 with reflect padding.

    Folded, the large image is never made. Each of its pixels sees 3 x 3 pixels of the small one, with the taps
    that fall on the same pixel summed: four 3 x 3 convolutions, one per parity of row and column, do the work of one
    5 x 5 on four times the pixels, with 9 instead of 25 products. Reflection splits such pairs on the outermost ring,
    which is therefore computed unfolded.
    """

    def __init__(self, channels_in: int, channels_out: int, folded: bool) -> None:
        super().__init__(channels_in, channels_out, kernel_size=5)
        self.folded = folded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, h, w) -> (B, channels_out, 2h, 2w)."""
        if not self.folded:
            return self._unfolded(_upsample(x), (2, 2, 2, 2))
        assert self.bias is not None
        phases = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self._folded(), self.bias.repeat_interleave(4))
        return _ReplaceRing.apply(
            F.pixel_shuffle(phases, 2),
            self._unfolded(_upsample(x[:, :, :2])[:, :, :3], (2, 2, 2, 0)),
            self._unfolded(_upsample(x[:, :, -2:])[:, :, 1:], (2, 2, 0, 2)),
            self._unfolded(_upsample(x[..., :2])[..., :3], (2, 0, 2, 2)),
            self._unfolded(_upsample(x[..., -2:])[..., 1:], (0, 2, 2, 2)),
        )

    def _unfolded(self, upsampled: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
        return F.conv2d(F.pad(upsampled, padding, mode="reflect"), self.weight, self.bias)

    def _folded(self) -> torch.Tensor:
        """(4 channels_out, C, 3, 3): output channel o, row parity a, column parity b at 4 o + 2 a + b."""
        by_row = _summed_taps(self.weight.unbind(2))  # (a, i, o, c, 5)
        by_both = _summed_taps(by_row.unbind(4))  # (b, j, a, i, o, c)
        return by_both.permute(4, 2, 0, 5, 3, 1).flatten(0, 2)


def _upsample(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _summed_taps(taps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Five taps on an up-sampled line as three on the line itself, for even and for odd places: (2, 3, ...)."""
    a, b, c, d, e = taps
    return torch.stack([torch.stack([a + b, c + d, e]), torch.stack([a, b + c, d + e])])


class _ReplaceRing(torch.autograd.Function):
    """Overwrite the outermost pixels of x (B, C, h, w); top and bottom (B, C, 1, w), left and right (B, C, h, 1)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, top: torch.Tensor, bottom: torch.Tensor, left: torch.Tensor, right: torch.Tensor
    ) -> torch.Tensor:
        ctx.mark_dirty(x)
        x[..., :1], x[..., -1:] = left, right
        x[:, :, :1], x[:, :, -1:] = top, bottom
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inner, sides = gradient.clone(), gradient[..., [0, -1]]
        inner[..., [0, -1]] = 0
        inner[:, :, [0, -1]] = 0
        sides[:, :, [0, -1]] = 0
        return inner, gradient[:, :, :1], gradient[:, :, -1:], sides[..., :1], sides[..., 1:]


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers between `widths`, lrelu between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])
