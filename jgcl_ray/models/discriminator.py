"""The multi-scale discriminator D (LSGAN on patches; METHOD "Networks").

D has no norm, only convolutions and leaky ReLUs: it is piecewise linear, and the gradient of its scores by the
image is the same network run backwards, transposed convolutions between the masks of the forward pass. Written
out, that gradient is an ordinary differentiable output, and the penalty on it needs no double backward (whose weight
gradients are several times slower in PyTorch, and which torch.compile does not take).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.config import DiscriminatorConfig
from jgcl_ray.floats import at_least_float32
from jgcl_ray.models.blocks import SLOPE, Layers, ResidualBlock, leaky_relu, reflect_conv

BLOCKS = 4


@dataclass(frozen=True)
class ScoresWithGradient:
    """What D says of a batch, and how its sum over each map changes with the image."""

    maps: tuple[torch.Tensor, ...]  # per scale (B, 1, h, w)
    gradients: tuple[torch.Tensor, ...]  # per scale (B, 3, H, W): d (sum of the map) / d image; empty: not computed


class Discriminator(nn.Module):
    """Copies of one network on the image, its half and its quarter."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.scales = Layers[PatchNetwork](PatchNetwork(config.width) for _ in range(config.scales))
        if config.initialisation == "kaiming":
            self._initialise_by_fan_in()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """image (B, 3, H, W) -> one float32 map of scores (B, 1, H/4, W/4), (B, 1, H/8, W/8), ... per scale."""
        maps = []
        for scale, network in enumerate(self.scales):
            image = _halve(image) if scale else image
            maps.append(at_least_float32(network(image)))
        return tuple(maps)

    def with_input_gradient(self, image: torch.Tensor) -> ScoresWithGradient:
        """`forward`, and the gradient of each map's sum with respect to the image; both differentiable."""
        maps, gradients = [], []
        pyramid = [image]
        for scale, network in enumerate(self.scales):
            if scale:
                pyramid.append(_halve(pyramid[-1]))
            scores, gradient = network.with_input_gradient(pyramid[-1])
            for finer in reversed(pyramid[:-1]):
                gradient = _halve_adjoint(gradient, finer)
            maps.append(at_least_float32(scores))
            gradients.append(at_least_float32(gradient))
        return ScoresWithGradient(tuple(maps), tuple(gradients))

    def _initialise_by_fan_in(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, a=SLOPE)
                if name.endswith("conv2.weight") or "head" in name:  # small beside what they are added to
                    parameter.data.mul_(0.3)


class PatchNetwork(nn.Module):
    """One scale: image -> map of scores at a quarter of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Layers[nn.Conv2d](
            [
                reflect_conv(3, width, 1),
                reflect_conv(width, width, 3),
                reflect_conv(width, width, 3, stride=2),
                reflect_conv(width, width, 3),
                reflect_conv(width, 2 * width, 3, stride=2),
            ]
        )
        self.blocks = Layers[ResidualBlock](ResidualBlock(2 * width) for _ in range(BLOCKS))
        self.head = reflect_conv(2 * width, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.stem:
            x = leaky_relu(conv(x))
        for block in self.blocks:
            x = x + block.conv2(leaky_relu(block.conv1(x)))
        return self.head(x)

    def with_input_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores, and the gradient of their sum with respect to x."""
        inputs, activations = [], []
        for conv in self.stem:
            inputs.append(x)
            x = leaky_relu(conv(x))
            activations.append(x)
        block_activations = []
        for block in self.blocks:
            hidden = leaky_relu(block.conv1(x))
            block_activations.append(hidden)
            x = x + block.conv2(hidden)
        scores = self.head(x)

        gradient = _conv_adjoint(self.head, torch.ones_like(scores), x)
        for block, hidden in reversed([*zip(self.blocks, block_activations, strict=True)]):
            inner = _lrelu_adjoint(_conv_adjoint(block.conv2, gradient, hidden), hidden)
            gradient = gradient + _conv_adjoint(block.conv1, inner, x)
        for conv, x_in, activation in reversed([*zip(self.stem, inputs, activations, strict=True)]):
            gradient = _conv_adjoint(conv, _lrelu_adjoint(gradient, activation), x_in)
        return scores, gradient


def _halve(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def _halve_adjoint(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.avg_pool2d_backward(gradient.to(x.dtype), x, [3, 3], [2, 2], [1, 1], False, False, None)


def _lrelu_adjoint(gradient: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """The mask of a leaky ReLU on its way back; the mask itself carries no gradient (it is piecewise constant)."""
    return torch.ops.aten.leaky_relu_backward(gradient, result.detach(), SLOPE, True)


def _conv_adjoint(conv: nn.Conv2d, gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Transpose of `reflect_conv` at an input of x's shape."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    rest = [
        size + 2 * padding - kernel - stride * (out - 1)
        for size, out in zip(x.shape[2:], gradient.shape[2:], strict=True)
    ]
    padded = F.conv_transpose2d(gradient, conv.weight, stride=stride, output_padding=rest)
    if not padding:
        return padded
    return torch.ops.aten.reflection_pad2d_backward(padded, x.detach().to(padded.dtype), [padding] * 4)
