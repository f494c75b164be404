"""The mesh estimator: a crop of a person in, the body to draw out; nothing to download, no licence to accept.

`python -m jgcl_ray.meshes.estimator estimate --images DIR --out bodies.npz` writes the body parameters of all images
below a folder, `... train --out FILE.safetensors` makes other weights. The network is small (estimator_network.py);
what it saw is rendered (jgcl_ray/estimator_training).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from jgcl_ray.errors import UserError
from jgcl_ray.image_files import UnreadableImage, read_image, resize
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.body_parameters import BodyParameters
from jgcl_ray.meshes.estimator_network import HEIGHT, WIDTH, BodyEstimate, EstimatorNetwork, circular_deviation
from jgcl_ray.meshes.walking_pose import MOVED
from jgcl_ray.models.weights import load_weights

WEIGHTS = Path(__file__).parents[1] / "weights" / "estimator.safetensors"
BATCH = 64
UNSURE_ABOVE = 45.0  # degrees of standard deviation of the yaw

Watch = Callable[[Iterable[range]], Iterable[range]]  # sees the batches go by


@dataclass(frozen=True, eq=False)
class BodyEstimates:
    """The bodies on N images, as the network found them."""

    names: tuple[str, ...]
    yaw: np.ndarray  # (N,) degrees in (-180, 180]; 0 faces the camera, counter-clockwise seen from above
    deviation: np.ndarray  # (N,) degrees: circular standard deviation of the yaw's distribution
    turn: np.ndarray  # (N, 3, 3): the body's axes (z up, facing -y) in the camera's (x right, y down, z forward)
    pose: np.ndarray  # (N, M, 3, 3): rotations of walking_pose.MOVED
    phenotypes: np.ndarray  # (N, 6) in [0, 1]
    scale: np.ndarray  # (N,) half heights of the image that a metre takes
    root: np.ndarray  # (N, 2): where the pelvis is, -1 and 1 are the image's edges
    size: np.ndarray  # (N, 2) height and width of the images, pixels

    def unsure(self, above: float = UNSURE_ABOVE) -> np.ndarray:
        """(N,) bool: who may well face another way; `above` degrees of standard deviation."""
        return self.deviation > above

    def to_parameters(self) -> BodyParameters:
        """As the projections are drawn from; of Anny."""
        body = anny_body()
        pose = np.tile(np.eye(3, dtype=np.float32), (len(self.names), body.num_joints, 1, 1))
        pose[:, [body.joints[joint] for joint in MOVED]] = self.pose
        pose[:, body.joints["root"]] = self.turn @ pose[:, body.joints["root"]]
        height, width = self.size.T
        half = self.size.max(axis=1) / 2
        scale = self.scale * (height / 2) / half
        shift = self.root * np.stack([width, height], 1) / 2 / half[:, None] / scale[:, None]
        camera = np.column_stack([scale, shift]).astype(np.float64)
        up = self.turn[:, :, 2].astype(np.float64)
        return BodyParameters(self.names, "anny", self.phenotypes, pose, camera, self.size.astype(np.float64), up)


class BodyEstimator:
    """The network with its weights."""

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        network = load_estimator(weights or WEIGHTS).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub
        # It was trained in bf16, which CPUs with matrix units work out in a third of the time.
        self._in_bf16 = self.device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))

    def estimate(self, folder: Path, names: Sequence[str], watch: Watch = iter) -> BodyEstimates:
        """The bodies on images given by their names in a folder; UserError where one cannot be read."""
        if not names:
            raise UserError(f"{folder}: no images")
        batches = [range(start, min(start + BATCH, len(names))) for start in range(0, len(names), BATCH)]
        crops = np.empty((BATCH, HEIGHT, WIDTH, 3), np.uint8)
        found: list[dict[str, np.ndarray]] = []
        sizes = np.empty((len(names), 2))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            for rows in watch(batches):
                read = readers.map(lambda row: _read(folder / names[row]), rows)
                for place, (row, (pixels, size)) in enumerate(zip(rows, read, strict=True)):
                    crops[place], sizes[row] = pixels, size
                found.append(self._numbers(crops[: len(rows)], sizes[rows.start : rows.stop]))
        joined = {name: np.concatenate([numbers[name] for numbers in found]) for name in found[0]}
        return BodyEstimates(names=tuple(names), size=sizes, **joined)

    def directions_of(self, crops: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of n crops in memory the yaw and its deviation, each (n,), as in BodyEstimates.

        crops: uint8 (n, HEIGHT, WIDTH, 3). sizes: (n, 2), heights and widths in pixels before they were resized.
        """
        parts = [slice(start, start + BATCH) for start in range(0, len(crops), BATCH)]
        found = [self._numbers(crops[part], sizes[part]) for part in parts]
        yaw, deviation = (np.concatenate([numbers[name] for numbers in found]) for name in ("yaw", "deviation"))
        return yaw, deviation

    @torch.inference_mode()
    def _numbers(self, crops: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        pixels = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 255
        proportions = torch.from_numpy(sizes[:, 1] / sizes[:, 0]).float().to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bf16):
            estimate = self.network.both_ways(pixels, proportions)
        return {name: tensor.cpu().numpy() for name, tensor in self._named(estimate).items()}

    def _named(self, estimate: BodyEstimate) -> dict[str, Tensor]:
        return {
            "yaw": torch.rad2deg(estimate.yaw),
            "deviation": circular_deviation(estimate.concentration),
            "turn": estimate.turns(),
            "pose": self.network.poses(estimate.pose),
            "phenotypes": estimate.phenotypes,
            "scale": estimate.scale,
            "root": estimate.root,
        }


def load_estimator(weights: Path) -> EstimatorNetwork:
    """The network of a weights file; UserError where it is none of ours."""
    network = EstimatorNetwork()
    load_weights(network, _existing(weights))
    return network.eval()


def weights_metadata(weights: Path = WEIGHTS) -> dict[str, str]:
    """How the weights were made: command, seed, time, machine."""
    with safe_open(weights, "pt") as file:
        return dict(file.metadata() or {})


@lru_cache(maxsize=4)
def weights_digest(weights: Path = WEIGHTS) -> str:
    """SHA-256 of a weights file."""
    with _existing(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _existing(weights: Path) -> Path:
    if not weights.is_file():
        why = "a folder" if weights.is_dir() else "no such file"
        raise UserError(f"{weights}: {why}; give weights of python -m jgcl_ray.pretrain estimator --out FILE")
    return weights


def _read(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """An image for the network, (HEIGHT, WIDTH, 3) uint8, and its height and width in pixels."""
    try:
        whole = read_image(path, (HEIGHT, WIDTH))
    except UnreadableImage as error:
        raise UserError(f"{path} cannot be read as an image ({error}): restore or remove it") from None
    return resize(whole.rgb, HEIGHT, WIDTH), (whole.height, whole.width)
