"""A generator that refines drafts: views of a person whose pixels were moved along the surface of the body.

The draft (meshes.correspondence) keeps clothes and their patterns, but knows nothing of what the photo hides, of what
sticks out of the body, or of how people look. A U-Net with skips sees it with what is known of each pixel and says
what to add to it. A blend of the draft and a painting, learnt with both, fell to the draft everywhere within a
hundred steps: the first paintings are worse than any draft, and a blend of zero lets no gradient through.

The appearance code comes from an encoder of its own: the package's E_id may be replaced, and codes of another one
would be noise to the generator.

Letters: B photos, V = B * T views of them, T of each photo one after the other; H x W pixels, multiples of 8; Q code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jgcl_ray.batches import WarpedView
from jgcl_ray.errors import UserError
from jgcl_ray.floats import at_least_float32
from jgcl_ray.models.blocks import Layers, leaky_relu
from jgcl_ray.models.encoder_files import read_tensors
from jgcl_ray.models.weights import load_state

WIDTHS = (32, 48, 96, 128)  # channels at the full size, its half, quarter and eighth
BLOCKS = 4  # residual blocks in the middle, each of which the code modulates
CODE = 128  # Q
CELLS = 4  # of the photo, from head to foot, that the code is read from
MULTIPLE = 2 ** (len(WIDTHS) - 1)
LEAST = 2 * MULTIPLE
STROKE = 0.1  # of what the last layer says; a step of Adam moves all of its weights at once
WEIGHTS = Path(__file__).parents[1] / "weights" / "views.safetensors"  # python -m jgcl_ray.pretrain generator


class TexturedGenerator(nn.Module):
    """Drafts and the photos' appearance -> views."""

    def __init__(self) -> None:
        super().__init__()
        full, half, quarter, eighth = WIDTHS
        self.appearance = AppearanceEncoder()
        self.enter = Layers[nn.Conv2d]([_conv(12, full), _conv(full, half, stride=2), _conv(half, quarter, stride=2)])
        self.follow = Layers[nn.Conv2d]([_conv(full, full), _conv(half, half), _conv(quarter, quarter)])
        self.bottom = _conv(quarter, eighth, stride=2)
        self.blocks = Layers[ModulatedBlock](ModulatedBlock(eighth) for _ in range(BLOCKS))
        widths = ((eighth, quarter), (quarter, half), (half, full))
        self.join = Layers[nn.Conv2d](_conv(below + skip, skip) for below, skip in widths)
        self.settle = Layers[nn.Conv2d](_conv(skip, skip) for _, skip in widths)
        self.tone = nn.Linear(CODE, 2 * quarter)
        self.paint = _conv(full, 3)
        _initialise(self)
        nn.init.zeros_(self.tone.weight)
        nn.init.zeros_(self.paint.weight)  # at first views are the drafts

    def forward(self, draft: WarpedView, places: Tensor, photos: Tensor, photo_places: Tensor) -> Tensor:
        """Views (V, 3, H, W) float32, in [0, 1] but for overshoot, of V drafts.

        places (V, H, W, 3) and photo_places (B, H, W, 3): points of the body of reference that pixels of the views
        and of the photos see, metres, NaN for none; photos (B, 3, H, W) in [0, 1]. UserError at a size that does not
        suit.
        """
        return draft.picture + self.added(draft, places, self.appearance(photos, photo_places))

    def added(self, draft: WarpedView, places: Tensor, code: Tensor) -> Tensor:
        """What is painted over the draft, (V, 3, H, W) float32; code (B, Q)."""
        check_size(*draft.picture.shape[2:])
        code = code.repeat_interleave(len(draft.picture) // len(code), 0)
        known = [draft.confidence[:, None], draft.cover[:, None]]
        x = torch.cat([2 * draft.picture - 1, 2 * draft.sharp - 1, *known, _located(places)], dim=1)
        skips = []
        for enter, follow in zip(self.enter, self.follow, strict=True):
            x = leaky_relu(enter(_laid(x)))
            x = leaky_relu(follow(x))
            skips.append(x)
        x = leaky_relu(self.bottom(x))
        for block in self.blocks:
            x = block(x, code)
        for level, (join, settle) in enumerate(zip(self.join, self.settle, strict=True)):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = leaky_relu(join(_laid(torch.cat([x, skips.pop()], dim=1))))
            if level == 0:
                x = _modulated(x, self.tone(code))
            x = leaky_relu(settle(x))
        return STROKE * at_least_float32(self.paint(x))


class AppearanceEncoder(nn.Module):
    """A photo and the points of the body that its pixels see -> what the person looks like, and in which light."""

    def __init__(self) -> None:
        super().__init__()
        widths = (7, 32, 64, 96, 128)
        self.down = Layers[nn.Conv2d](_conv(widths[i], widths[i + 1], stride=2) for i in range(len(widths) - 1))
        self.read = nn.Linear(CELLS * widths[-1], CODE)

    def forward(self, photos: Tensor, places: Tensor) -> Tensor:
        """photos (B, 3, H, W) in [0, 1], places (B, H, W, 3) -> (B, Q)."""
        x = _laid(torch.cat([2 * photos - 1, _located(places)], dim=1))
        for conv in self.down:
            x = leaky_relu(conv(x))
        return self.read(functional.adaptive_avg_pool2d(x, (CELLS, 1)).flatten(1))


class ModulatedBlock(nn.Module):
    """Two convolutions beside the input; a code sets gain and offset of each channel between them (FiLM)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)
        self.style = nn.Linear(CODE, 2 * channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x (V, C, h, w), code (V, Q) -> the shape of x."""
        inner = _modulated(self.conv1(x), self.style(code))
        return x + 0.5 * self.conv2(leaky_relu(inner))


def load_views(path: Path = WEIGHTS, device: torch.device | None = None) -> TexturedGenerator:
    """The generator in a file of `python -m jgcl_ray.pretrain generator`, by default the package's, strictly.

    UserError where the file is none.
    """
    generator = TexturedGenerator()
    load_state(generator, {name: tensor.float() for name, tensor in read_tensors(path).items()}, str(path))
    return generator.eval().requires_grad_(False).to(device or torch.device("cpu"))


@torch.no_grad()
def refined(
    generator: TexturedGenerator, draft: WarpedView, places: Tensor, photos: Tensor, photo_places: Tensor
) -> Tensor:
    """Views (V, 3, H, W) in [0, 1], on the CPU; arguments as of TexturedGenerator.forward, on any device."""
    device = next(generator.parameters()).device
    there = WarpedView(**{name: tensor.to(device) for name, tensor in vars(draft).items()})
    return generator(there, places.to(device), photos.to(device), photo_places.to(device)).clamp(0, 1).cpu()


def suits(height: int, width: int) -> bool:
    """Whether the three halvings are even and leave something."""
    return not height % MULTIPLE and not width % MULTIPLE and min(height, width) >= LEAST


def check_size(height: int, width: int) -> None:
    """UserError where a size does not suit."""
    if not suits(height, width):
        raise UserError(
            f"images of {height} x {width} do not suit the generator of views: data.height and data.width must be "
            f"multiples of {MULTIPLE}, at least {LEAST}; bare drafts (--drafts) may have any size"
        )


def _located(places: Tensor) -> Tensor:
    """(V, H, W, 3) with NaN -> (V, 4, H, W): metres, 0 where no body is seen, and whether one is."""
    found = places.movedim(-1, 1).float()
    return torch.cat([torch.nan_to_num(found), (~torch.isnan(found[:, :1])).float()], dim=1)


def _modulated(x: Tensor, style: Tensor) -> Tensor:
    gain, offset = style.to(x.dtype).chunk(2, dim=1)
    return x * (1 + gain[..., None, None]) + offset[..., None, None]


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)


def _laid(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0.2, mode="fan_in")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ModulatedBlock):
            nn.init.zeros_(module.style.weight)
