"""A trained encoder, for use: images in, embeddings out.

    from jgcl_ray import Encoder
    encoder = Encoder.load("runs/walkers")
    embeddings = encoder.embed(["crops/a.jpg", "crops/b.jpg"])

Letters: n images given, D embedding width, H x W image size.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save

from jgcl_ray.camera_means import Camera, CameraMeans
from jgcl_ray.config import Config, EncoderConfig
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import Resampling, UnreadableImage, as_rgb, read_rgb, resize
from jgcl_ray.models import official
from jgcl_ray.models.backbone import State
from jgcl_ray.models.backbones import BACKBONES, backbone_of
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.encoder_files import METADATA, EncoderSpec, read_header, read_spec, read_tensors
from jgcl_ray.models.shipped import SHIPPED, shipped
from jgcl_ray.models.weights import (
    ENCODER,
    kind_of,
    load_foreign,
    load_state,
    load_weights,
    read_state,
    torchreid_head,
)
from jgcl_ray.places import at_home
from jgcl_ray.progress import tracked
from jgcl_ray.training.checkpoint import MANIFEST, checkpoints_in, config_of, read_manifest
from jgcl_ray.wording import counted

FOREIGN_SIZE = (256, 128)  # H, W of files that do not say: the usual ones of the field
SCALES = (5 / 6, 4 / 3)  # what `multi_scale` adds, in the encoder's own size: 80 x 40 and 128 x 64 to 96 x 48
_READERS = min(8, os.cpu_count() or 1)

# A file, an encoded image (bytes of a JPEG, PNG, ...) or a decoded one.
ImageLike = Image.Image | str | Path | bytes


class Encoder:
    """E_id in evaluation mode, with the size of image it expects.

    module: the network, on its device. height, width: of its input, pixels. architecture: what `module` was built
    from. config: of the whole run, where the weights come from a checkpoint of one. description: a line for people.
    flip: whether an embedding is the mean of those of image and mirror image, normalised again; twice the time.
    multi_scale: whether it is the mean of those of the image read at H x W, 5/6 and 4/3 of it (multi-scale testing);
    3.5 times the time. sizes: H, W of each reading, the encoder's own first. resampling: how images are resized,
    bicubic as in this package's training, or bilinear as in torchreid's.
    """

    def __init__(
        self,
        module: IdentityEncoder,
        architecture: EncoderConfig,
        height: int,
        width: int,
        *,
        device: str | torch.device = "auto",
        config: Config | None = None,
        source: str = "encoder",
        flip: bool = False,
        multi_scale: bool = False,
        resampling: Resampling = "bicubic",
    ) -> None:
        self.device = pick_device(device)
        self.module = module.eval().requires_grad_(False).to(self.device)
        self.architecture = architecture
        self.height, self.width, self.resampling = height, width, resampling
        self.config = config
        self.flip, self.multi_scale = flip, multi_scale
        more = [(_eighths(height * scale), _eighths(width * scale)) for scale in SCALES] if multi_scale else []
        self.sizes = ((height, width), *more)
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes)
        self.description = (
            f"{source}: {architecture.backbone}, images of {sizes}, embeddings of {module.embedding_width}"
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "auto",
        height: int | None = None,
        width: int | None = None,
        flip: bool = False,
        multi_scale: bool | None = None,
    ) -> Self:
        """An encoder from `path`, strictly; UserError where it is none.

        path: `rendered`, the encoder that the package ships, made of rendered people; a run folder (its best
        checkpoint, else its latest), a checkpoint folder, a file of `python -m jgcl_ray.export --format safetensors`
        or `python -m jgcl_ray.pretrain encoder`, `id_*.pt` of the GCL authors, an OSNet of torchreid (the embedding
        is torchreid's feature), or a ResNet under torchvision's names or an EfficientNet-lite0 under its releases'
        (.pth or .safetensors; the pooled last map is the embedding). device: auto takes a GPU where there is one.
        height, width: of the images; None: those of the training, 256 x 128 for files that do not say. flip: embed
        image and mirror image, multi_scale: read images at three sizes, see above; None: `rendered` and other files
        of `pretrain encoder`, which never saw how people fill a camera's crops, are read so, others are not.
        """
        given = shipped(at_home(Path(path)))
        if given.is_dir():
            parts = _from_checkpoint(checkpoints_in(given)[0])
        elif given.is_file():
            parts = _from_file(given)
        else:
            raise UserError(
                f"{given}: no such file or folder; give a run folder, a checkpoint, a file of weights, or "
                f"{', '.join(SHIPPED)}, which comes with the package"
            )
        size = parts.size[0] if height is None else height, parts.size[1] if width is None else width
        if -(-size[0] // 16) * -(-size[1] // 16) < 2:  # one point has no instance norm
            raise UserError(
                f"images of {size[0]} x {size[1]}: the encoder's last map, at 1/16, would be a point; give a height "
                "and a width of 32 and 16 or more"
            )
        return cls(
            parts.module,
            parts.architecture,
            *size,
            device=device,
            config=parts.config,
            source=str(path),
            flip=flip,
            multi_scale=parts.multi_scale if multi_scale is None else multi_scale,
            resampling=parts.resampling,
        )

    @property
    def width_of_embedding(self) -> int:
        """D."""
        return self.module.embedding_width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights as safetensors, hexadecimal: the same wherever and however they were loaded."""
        return hashlib.sha256(save(self.state())).hexdigest()

    def state(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers of the network, on the CPU."""
        return {name: value.detach().cpu().contiguous() for name, value in self.module.state_dict().items()}

    def spec(self) -> dict[str, Any]:
        """What `load` needs besides the weights, ready for JSON."""
        spec = EncoderSpec(self.architecture, self.height, self.width, self.resampling, self.multi_scale)
        return spec.document()

    def embed(
        self,
        images: Sequence[ImageLike],
        batch_size: int = 64,
        progress: bool = False,
        *,
        cameras: Sequence[Camera | None] | None = None,
        camera_means: CameraMeans | None = None,
    ) -> np.ndarray:
        """n images -> (n, D) float32, L2-normalised; the dot product of two rows is their cosine similarity.

        images: files, encoded or decoded images of any size, resized here. batch_size: images on the device at a
        time; others are read meanwhile. progress: a bar on standard error. cameras: of the n images; their camera's
        mean embedding is taken off each, and the rest normalised: `camera_means`, else the means of these images;
        None among them takes off the mean of all. UserError names an unreadable image, and tells of an encoder that
        diverged.
        """
        *_, embeddings = self._embed(images, batch_size, progress, self.flip)
        if cameras is None:
            return embeddings
        known = {row: camera for row, camera in enumerate(cameras) if camera is not None}
        means = camera_means or CameraMeans.of(embeddings[list(known)], list(known.values()))
        return means.centred(embeddings, cameras)

    def embed_with_mirror(
        self, images: Sequence[ImageLike], batch_size: int = 64, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two (n, D) as `embed` gives without and with `flip`, from one reading of the images."""
        own, both = self._embed(images, batch_size, progress, mirrored=True)
        return own, both

    @torch.inference_mode()
    def embed_tensor(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), ImageNet mean/std normalised -> (B, D) float32 on the encoder's device, L2-normalised.

        Of one size, so not for `multi_scale`: ValueError.
        """
        if self.multi_scale:
            raise ValueError(
                "a tensor is an image at one size; with multi_scale give files or decoded images to embed"
            )
        return self._sides([images], self.flip)[-1]

    def _sides(self, sizes: Sequence[torch.Tensor], mirrored: bool) -> list[torch.Tensor]:
        """The images' own embeddings and, if `mirrored`, the means with their mirror images': (B, D) each.

        sizes: (B, 3, H, W) of the same images, for each of `self.sizes`.
        """
        own = [self._of_sizes(sizes)]
        if mirrored:
            own.append(F.normalize(own[0] + self._of_sizes([images.flip(3) for images in sizes])))
        return own

    def _of_sizes(self, sizes: Sequence[torch.Tensor]) -> torch.Tensor:
        found = [F.normalize(self.module(images.to(self.device)).embedding.float()) for images in sizes]
        return found[0] if len(found) == 1 else F.normalize(torch.stack(found).sum(0))

    @torch.inference_mode()
    def _embed(
        self, images: Sequence[ImageLike], batch_size: int, progress: bool, mirrored: bool
    ) -> list[np.ndarray]:
        """As `_sides`, of n images: (n, D) each."""
        found = [np.empty((len(images), self.width_of_embedding), np.float32) for _ in range(1 + mirrored)]
        batches: Iterable[list[Sequence[np.ndarray]]] = self._batches(images, batch_size)
        if progress:
            batches = tracked(batches, "embedding", total=-(-len(images) // batch_size))
        for start, pixels in zip(range(0, len(images), batch_size), batches, strict=True):
            sizes = [normalise_images(of_size) for of_size in zip(*pixels, strict=True)]
            for embeddings, batch in zip(found, self._sides(sizes, mirrored), strict=True):
                embeddings[start : start + batch_size] = batch.cpu().numpy()
        if not all(np.isfinite(embeddings).all() for embeddings in found):
            raise UserError(f"{self.description}: gives embeddings that are no numbers, its training diverged")
        if not all(embeddings.any(axis=1).all() for embeddings in found):
            raise UserError(f"{self.description}: gives embeddings of length 0, its training collapsed")
        return found

    def read(self, image: ImageLike, row: int = 0) -> np.ndarray:
        """An image as the network's uint8 (H, W, 3); `row` is named in the error where there is no file name."""
        return self._read(image, row, self.sizes[:1])[0]

    def _read(self, image: ImageLike, row: int, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """As `read`, at each of the sizes."""
        try:
            if isinstance(image, Image.Image):
                rgb = as_rgb(image)
                return [resize(rgb, *size, self.resampling) for size in sizes]
            encoded = [io.BytesIO(image) if isinstance(image, bytes) else Path(image) for _ in sizes]
            return [read_rgb(given, *size, self.resampling) for given, size in zip(encoded, sizes, strict=True)]
        except UnreadableImage as error:
            name = str(image) if isinstance(image, str | Path) else f"image {row}"
            name += f" ({counted(len(image), 'byte')})" if isinstance(image, bytes) else ""
            raise UserError(f"{name}: cannot be read as an image ({error}); restore it or leave it out") from None

    def _batches(self, images: Sequence[ImageLike], batch_size: int) -> Iterator[list[Sequence[np.ndarray]]]:
        with ThreadPoolExecutor(_READERS) as pool:
            ahead: deque[list[Any]] = deque()
            for start in range(0, len(images), batch_size):
                rows = range(start, min(start + batch_size, len(images)))
                ahead.append([pool.submit(self._read, images[row], row, self.sizes) for row in rows])
                if len(ahead) > 1:
                    yield [future.result() for future in ahead.popleft()]
            while ahead:
                yield [future.result() for future in ahead.popleft()]


def _eighths(pixels: float) -> int:
    """The nearest multiple of 8 that leaves a map at 1/16."""
    return max(16, 8 * round(pixels / 8))


def pick_device(device: str | torch.device) -> torch.device:
    """`auto`: a GPU where there is one, else the CPU; otherwise the named device, UserError where there is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise UserError(f"device {device!r} is unknown: give auto, cpu or cuda") from None
    if picked.type not in ("cpu", "cuda"):
        raise UserError(f"device {device!r} is not one that this package uses: give auto, cpu or cuda")
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {device!r}: PyTorch sees {torch.cuda.device_count() or 'no'} GPU here; give cpu or auto"
        )
    return picked


@dataclass(frozen=True)
class _Parts:
    module: IdentityEncoder
    architecture: EncoderConfig
    size: tuple[int, int]  # H, W
    config: Config | None = None  # of the run
    resampling: Resampling = "bicubic"
    multi_scale: bool = False


def _from_checkpoint(checkpoint: Path) -> _Parts:
    manifest, weights = read_manifest(checkpoint), checkpoint / "encoder.safetensors"
    config = config_of(manifest, checkpoint)
    module = IdentityEncoder(config.encoder)
    load_weights(module, weights)
    with weights.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != manifest.sha256.get(weights.name):
            raise UserError(
                f"{weights}: damaged or altered, {MANIFEST} has another checksum; take another checkpoint"
            )
    return _Parts(module, config.encoder, (config.data.height, config.data.width), config)


def _from_file(path: Path) -> _Parts:
    if path.suffix != ".safetensors":
        return _from_state(read_state(path), path)
    metadata, state = read_header(path), read_tensors(path)
    if METADATA in metadata:
        return _exported(state, metadata, path)
    if (path.parent / MANIFEST).is_file() and path.name == "encoder.safetensors":
        return _from_checkpoint(path.parent.resolve())
    return _from_state(state, path)


def _exported(state: State, metadata: Mapping[str, str], path: Path) -> _Parts:
    spec = read_spec(metadata[METADATA], path)
    module = IdentityEncoder(spec.architecture)
    load_state(module, state, str(path))
    # Files of `pretrain encoder` from before there were scales tell of a recipe.
    multi_scale = "recipe" in metadata if spec.multi_scale is None else spec.multi_scale
    return _Parts(
        module,
        spec.architecture,
        (spec.height, spec.width),
        resampling=spec.resampling,
        multi_scale=multi_scale,
    )


def _from_state(state: State, path: Path) -> _Parts:
    """A file of others: the GCL authors' encoder, or a backbone, with torchreid's head where it has one."""
    if any(name.startswith(("enc_content.", "dec.", "cnns.")) for name in state):
        raise UserError(f"{path}: the GCL authors' generator or discriminator; give their encoder, id_*.pt")
    if "feat.weight" in state:
        architecture = _foreign("resnet50", "linear", embedding=len(state["feat.weight"]))
        module = IdentityEncoder(architecture)
        official.load_encoder(module, path)
        return _Parts(module, architecture, FOREIGN_SIZE)
    backbone, kind = backbone_of(state), kind_of(state)
    if backbone is None and kind not in (None, ENCODER):
        assert kind is not None
        raise UserError(f"{path}: weights of {kind.name}; expected {ENCODER.name}: give a file of {ENCODER.made_by}")
    if backbone is None:
        raise UserError(
            f"{path}: no encoder that is known here (its names begin with {', '.join(sorted(state)[:3])}); give a "
            f"checkpoint of jgcl_ray, id_*.pt of the GCL authors, or a backbone under the names of torchvision, "
            f"torchreid or EfficientNet-lite's releases: {', '.join(BACKBONES)}"
        )
    width = torchreid_head(state)
    architecture = _foreign(backbone, "pool") if width is None else _foreign(backbone, "linear_relu", embedding=width)
    module = IdentityEncoder(architecture)
    load_foreign(module, architecture, state, str(path))
    # Without a head of the file's own there is an untrained batch norm, which multiplies by one number: nothing once
    # normalised.
    # torchreid trains and measures on images that torchvision resized: bilinear, as Pillow's.
    return _Parts(module, architecture, FOREIGN_SIZE, resampling="bicubic" if width is None else "bilinear")


def _foreign(backbone: str, head: str, **fields: Any) -> EncoderConfig:
    values: Mapping[str, Any] = {"backbone": backbone, "head": head, "weights": "random", **fields}
    return EncoderConfig.model_validate({**values, "separate_batch_norm": False})
