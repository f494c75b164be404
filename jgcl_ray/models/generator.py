"""The structure encoder E_str and the generator G (GCL 3.1; METHOD "Networks").

G(E_str(mesh), code): the shape of a mesh projection in the appearance of a code. Letters: B images, H x W image size,
w `generator.width` (METHOD: 16), Q = 4C width of the appearance code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from jgcl_ray.config import GeneratorConfig
from jgcl_ray.errors import UserError
from jgcl_ray.floats import at_least_float32
from jgcl_ray.models.blocks import (
    LayerNorm,
    Layers,
    ResidualBlock,
    UpsampledConv,
    adaptive_instance_norm,
    instance_norm,
    leaky_relu,
    mlp,
    reflect_conv,
)

BLOCKS = 4  # residual blocks with AdaIN, and slices of the appearance code
DILATIONS = (3, 6, 9)


@dataclass(frozen=True)
class Style:
    """AdaIN parameters of a batch: a gain and an offset for each of the two norms of each residual block."""

    gain: torch.Tensor  # (B, BLOCKS, 2, 8w)
    offset: torch.Tensor  # (B, BLOCKS, 2, 8w)

    def of_block(self, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Gain and offset of one block, (B, 2, 8w) each."""
        return self.gain[:, block], self.offset[:, block]


class StructureEncoder(nn.Module):
    """E_str: a mesh projection -> a structure map."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        w = config.width
        self.stem = Layers[nn.Conv2d](
            [
                reflect_conv(1, w, 3, stride=2),
                reflect_conv(w, 2 * w, 3),
                reflect_conv(2 * w, 2 * w, 3),
                reflect_conv(2 * w, 4 * w, 3, stride=2),
            ]
        )
        self.blocks = Layers[ResidualBlock](ResidualBlock(4 * w) for _ in range(BLOCKS))
        self.pyramid_point = reflect_conv(4 * w, 2 * w, 1)
        self.pyramid_reduce = nn.ModuleList(reflect_conv(4 * w, 2 * w, 1) for _ in DILATIONS)
        self.pyramid_dilated = nn.ModuleList(reflect_conv(2 * w, 2 * w, 3, padding=d, dilation=d) for d in DILATIONS)
        self.fuse = reflect_conv(8 * w, 8 * w, 1)
        _initialise(self)

    def forward(self, mesh: torch.Tensor) -> torch.Tensor:
        """mesh (B, 1, H, W) in [-1, 1] -> (B, 8w, H/4, W/4)."""
        check_image_size(*mesh.shape[2:])
        x = mesh
        for conv in self.stem:
            x = leaky_relu(instance_norm(conv(x)))
        for block in self.blocks:
            x = x + instance_norm(block.conv2(leaky_relu(instance_norm(block.conv1(x)))))
        pyramid = [instance_norm(self.pyramid_point(x))]
        for reduce, dilated in zip(self.pyramid_reduce, self.pyramid_dilated, strict=True):
            pyramid.append(instance_norm(dilated(leaky_relu(instance_norm(reduce(x))))))
        return instance_norm(self.fuse(torch.cat(pyramid, dim=1)))


class Generator(nn.Module):
    """G: a structure map and an appearance code -> an image."""

    code_mean: torch.Tensor
    code_scale: torch.Tensor

    def __init__(self, config: GeneratorConfig, code_width: int) -> None:
        """code_width: Q, the encoder's; a multiple of four."""
        super().__init__()
        channels = 8 * config.width
        style_widths = (code_width // BLOCKS, config.style_width, config.style_width, 2 * channels)
        self.gains = nn.ModuleList(mlp(style_widths) for _ in range(BLOCKS))
        self.offsets = nn.ModuleList(mlp(style_widths) for _ in range(BLOCKS))
        self.blocks = Layers[ResidualBlock](ResidualBlock(channels) for _ in range(BLOCKS))
        self.up = nn.ModuleList(
            [
                UpsampledConv(channels, channels // 2, config.fold_upsampling),
                UpsampledConv(channels // 2, channels // 4, config.fold_upsampling),
            ]
        )
        self.up_norms = nn.ModuleList([LayerNorm(channels // 2), LayerNorm(channels // 4)])
        self.refine = nn.ModuleList(reflect_conv(channels // 4, channels // 4, 3) for _ in range(2))
        self.to_image = reflect_conv(channels // 4, 3, 1)
        self.standardises = config.standardise_codes
        if self.standardises:
            self.register_buffer("code_mean", torch.zeros(code_width))
            self.register_buffer("code_scale", torch.ones(code_width))
        _initialise(self)

    def standardise(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Take codes of this mean and deviation, (Q,) each, for codes of zero mean and unit variance from now on.

        After rectifiers most of a code is the same for all images: standardised, what differs is what G sees first.
        Entries that hardly vary stay small.
        """
        self.code_mean.copy_(mean)
        self.code_scale.copy_(deviation + 0.1 * deviation.mean())

    def forward(self, structure: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """structure (B, 8w, H/4, W/4), code (B, Q) -> image (B, 3, H, W) float32, normalised as photos are."""
        return self.decode(structure, self.style(code))

    def style(self, code: torch.Tensor) -> Style:
        """AdaIN parameters: slice k of the code feeds the two networks of residual block k."""
        if self.standardises:
            code = (code - self.code_mean) / self.code_scale
        slices = code.chunk(BLOCKS, dim=1)
        gain = torch.stack([network(part) for network, part in zip(self.gains, slices, strict=True)], dim=1)
        offset = torch.stack([network(part) for network, part in zip(self.offsets, slices, strict=True)], dim=1)
        return Style(gain.unflatten(2, (2, -1)), offset.unflatten(2, (2, -1)))

    def decode(self, structure: torch.Tensor, style: Style) -> torch.Tensor:
        """The image of `structure` in `style`; a style may serve several structures."""
        x = structure
        for k, block in enumerate(self.blocks):
            gain, offset = style.of_block(k)
            hidden = leaky_relu(adaptive_instance_norm(block.conv1(x), gain[:, 0], offset[:, 0]))
            x = x + adaptive_instance_norm(block.conv2(hidden), gain[:, 1], offset[:, 1])
        for up, norm in zip(self.up, self.up_norms, strict=True):
            x = leaky_relu(norm(up(x)))
        for conv in self.refine:
            x = leaky_relu(conv(x))
        return at_least_float32(self.to_image(x))


def check_image_size(height: int, width: int) -> None:
    """UserError unless the widest dilation of the pyramid can reflect and both halvings are even."""
    smallest = 4 * (max(DILATIONS) + 1)
    if height % 4 or width % 4 or min(height, width) < smallest:
        raise UserError(
            f"images of {height} x {width} do not suit the generator: "
            f"data.height and data.width must be multiples of 4, at least {smallest}"
        )


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
