"""SMPL parameters by a checkpoint of SPIN's kind, for those who have one and SMPL's files: the paper's way.

The network of HMR (Kanazawa et al., CVPR 2018, 3.2) as SPIN (Kolotouros et al., ICCV 2019) released it: ResNet-50 and
a regressor that corrects its own answer three times. Rotations in six numbers (Zhou et al., CVPR 2019, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, read_image, resize
from jgcl_ray.meshes.body_parameters import BodyParameters
from jgcl_ray.models.resnet import ARCHITECTURES, ResNet
from jgcl_ray.models.weights import complete_batch_norm, load_state, read_state

SIDE = 224  # pixels of the input
JOINTS, BETAS, ITERATIONS = 24, 10, 3
BATCH = 16

_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class SpinNetwork(nn.Module):
    """Under the parameter names of SPIN's release: torchvision's of ResNet-50 without `fc`, and the regressor's."""

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self) -> None:
        super().__init__()
        trunk = ResNet(ARCHITECTURES["resnet50"], separate=False)
        for name in ("layer4.0.conv2", "layer4.0.downsample.0"):
            convolution = trunk.get_submodule(name)
            assert isinstance(convolution, nn.Conv2d)
            convolution.stride = (2, 2)  # 1 in re-identification; torchvision's is 2
        for name, part in trunk.named_children():
            self.add_module(name, part)
        self._trunk = (trunk,)  # in a tuple: its parts are registered already, under their own names
        channels = ARCHITECTURES["resnet50"].channels
        self.fc1 = nn.Linear(channels + 6 * JOINTS + BETAS + 3, 1024)
        self.fc2 = nn.Linear(1024, 1024)
        self.decpose, self.decshape, self.deccam = (nn.Linear(1024, size) for size in (6 * JOINTS, BETAS, 3))
        for name, size in (("init_pose", 6 * JOINTS), ("init_shape", BETAS), ("init_cam", 3)):
            self.register_buffer(name, torch.zeros(1, size))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 224, 224), ImageNet mean/std normalised -> rotations (B, 24, 3, 3), and (B, 13).

        The 13: betas, and s, tx, ty of a weak-perspective camera.
        """
        features = self._trunk[0](images, "real").mean((2, 3))
        start = torch.cat([self.init_pose, self.init_shape, self.init_cam], 1)
        answer = start.expand(len(images), -1)
        for _ in range(ITERATIONS):
            hidden = self.fc2(self.fc1(torch.cat([features, answer], 1)))
            answer = answer + torch.cat([self.decpose(hidden), self.decshape(hidden), self.deccam(hidden)], 1)
        pose, rest = answer.split([6 * JOINTS, BETAS + 3], 1)
        return from_six(pose.unflatten(1, (JOINTS, 6))), rest


def from_six(numbers: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of six numbers (..., 6): two columns side by side in rows, made orthonormal."""
    one, two = numbers.unflatten(-1, (3, 2)).unbind(-1)
    first = functional.normalize(one, dim=-1)
    second = functional.normalize(two - (first * two).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


class SpinEstimator:
    """The network with the weights of a checkpoint."""

    def __init__(self, checkpoint: Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        network = SpinNetwork()
        state = complete_batch_norm(network, read_state(checkpoint))
        load_state(network, state, str(checkpoint))
        self._network = network.eval().to(self.device)

    @torch.inference_mode()
    def estimate(
        self, folder: Path, names: Sequence[str], watch: Callable[[Iterable[range]], Iterable[range]] = iter
    ) -> BodyParameters:
        """The SMPL bodies on images given by their names in a folder; UserError where one cannot be read."""
        pose, rest, sizes = [], [], []
        for rows in watch([range(s, min(s + BATCH, len(names))) for s in range(0, len(names), BATCH)]):
            read = [_read(folder / names[row]) for row in rows]
            sizes += [size for _, size in read]
            rotations, others = self._network(torch.stack([square for square, _ in read]).to(self.device))
            pose.append(rotations.cpu().numpy())
            rest.append(others.cpu().numpy())
        betas, camera = np.split(np.concatenate(rest), [BETAS], axis=1)
        if (bad := np.flatnonzero(camera[:, 0] <= 0)).size:
            raise UserError(
                f"the checkpoint finds no person on {names[bad[0]]} ({bad.size:,} such): its camera has no positive "
                "scale; remove them, or take another checkpoint"
            )
        return BodyParameters(
            tuple(names), "smpl", betas, np.concatenate(pose), camera.astype(np.float64), np.array(sizes, np.float64)
        )


def _read(path: Path) -> tuple[Tensor, tuple[int, int]]:
    """The image in the middle of a square as wide as its longer side, normalised; its height and width in pixels."""
    try:
        whole = read_image(path)
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read as an image ({error}): restore or remove it") from None
    size = (whole.height, whole.width)
    scale = SIDE / max(size)
    small = resize(whole.rgb, max(1, round(whole.height * scale)), max(1, round(whole.width * scale)))
    pixels = (torch.from_numpy(small.copy()).float() / 255 - _MEAN) / _STD
    square = torch.zeros(3, SIDE, SIDE)
    top, left = (SIDE - pixels.shape[0]) // 2, (SIDE - pixels.shape[1]) // 2
    square[:, top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels.permute(2, 0, 1)
    return square, size
