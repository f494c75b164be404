"""Files of an encoder whose header says what it is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from jgcl_ray.arguments import LARGEST_SIDE
from jgcl_ray.config import EncoderConfig
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import Resampling
from jgcl_ray.models.backbone import State
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.origin import unpacked
from jgcl_ray.models.resnet import IBN, with_instance_norm
from jgcl_ray.models.weights import check_file_of_weights, complete_batch_norm, load_state
from jgcl_ray.stored_files import checked, parse_json

METADATA = "jgcl_ray.encoder"  # key in the header of a safetensors file: JSON of an EncoderSpec
_PARTS = ("backbone", "head", "embedding", "pooling", "separate_batch_norm")

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is built from, and the images it expects."""

    architecture: EncoderConfig
    height: int  # pixels
    width: int  # pixels
    resampling: Resampling = "bicubic"
    multi_scale: bool | None = None  # None: of a file that does not say

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        wanted = self.architecture.model_dump(include=set(_PARTS))
        return {
            "encoder": wanted,
            "height": self.height,
            "width": self.width,
            "resampling": self.resampling,
        } | ({} if self.multi_scale is None else {"multi_scale": self.multi_scale})


@dataclass(frozen=True)
class _Document:
    """`EncoderSpec.document`, as it is read again."""

    encoder: dict[str, Any]
    height: Side
    width: Side
    resampling: Resampling = "bicubic"
    multi_scale: bool | None = None


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; UserError where it is none."""
    check_file_of_weights(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, unpacked where they are; UserError where it is none."""
    check_file_of_weights(path)
    try:
        return unpacked(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def read_spec(text: str, path: Path) -> EncoderSpec:
    """What the header of `path` holds under METADATA."""
    source, remedy = f"{path}, its header {METADATA}", "export it again by this version"
    read = parse_json(text, _Document, source, remedy)
    architecture = checked(read.encoder | {"weights": "random"}, EncoderConfig, source, remedy)
    return EncoderSpec(architecture, read.height, read.width, read.resampling, read.multi_scale)


def check_fits(path: Path, config: EncoderConfig, option: str) -> None:
    """UserError where `path` says that it holds another encoder than the config's."""
    text = read_header(path).get(METADATA)
    if text is None:
        return
    held = read_spec(text, path).architecture
    wrong = [name for name in _PARTS[:-1] if getattr(held, name) != getattr(config, name)]
    if held.head == "pool" and "embedding" in wrong:
        wrong.remove("embedding")  # no part of it
    if wrong:
        settings = " ".join(f"encoder.{name}={getattr(held, name)}" for name in wrong)
        raise UserError(f"{option} holds another encoder than the configuration's; to start from it set {settings}")


def load_encoder(encoder: IdentityEncoder, config: EncoderConfig, path: Path, option: str) -> None:
    """Weights of this package into an encoder of the same kind, strictly.

    Where the file lacks the statistics of generated images they start from those of real ones.
    """
    check_fits(path, config, option)
    _load(encoder, read_tensors(path), path)


def check_start(path: Path, config: EncoderConfig, option: str) -> None:
    """As `check_fits`, for `start_from`."""
    check_fits(path, _plain(config) if _holds_plain(path, config) else config, option)


def start_from(encoder: IdentityEncoder, config: EncoderConfig, path: Path, option: str) -> None:
    """As `load_encoder`, but a ResNet with IBN-a may start from the plain one, too (resnet.with_instance_norm)."""
    check_start(path, config, option)
    state = read_tensors(path)
    _load(encoder, with_instance_norm(state, encoder) if _holds_plain(path, config) else state, path)


def _load(encoder: IdentityEncoder, state: State, path: Path) -> None:
    load_state(encoder, complete_batch_norm(encoder, state) if METADATA in read_header(path) else state, str(path))


def _holds_plain(path: Path, config: EncoderConfig) -> bool:
    text = read_header(path).get(METADATA)
    return (
        text is not None
        and config.backbone.endswith(IBN)
        and read_spec(text, path).architecture.backbone == _plain(config).backbone
    )


def _plain(config: EncoderConfig) -> EncoderConfig:
    return config.model_copy(update={"backbone": config.backbone.removesuffix(IBN)})
