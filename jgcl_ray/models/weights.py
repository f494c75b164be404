"""Weights on disk: our own in safetensors, ImageNet's from a file or the network. Nothing loads in part."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from jgcl_ray.config import EncoderConfig
from jgcl_ray.errors import UserError
from jgcl_ray.models.batch_norm import DomainBatchNorm
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.resnet import ARCHITECTURES

State = Mapping[str, torch.Tensor]
# What torch.load raises at files that are not, or no longer, its own; a text file is often read as pickle's opcodes.
_UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError, LookupError, ValueError, TypeError)


def build_encoder(config: EncoderConfig) -> IdentityEncoder:
    """The encoder with the backbone weights that `config.weights` names; its head starts random."""
    encoder = IdentityEncoder(config)
    if config.weights == "imagenet":
        load_imagenet(encoder, config)
    return encoder


def load_imagenet(encoder: IdentityEncoder, config: EncoderConfig) -> None:
    """ImageNet weights into the backbone, from `config.weights_file` or by torch.hub's downloader, checksum compared.

    The file's classifier (`fc.*`) is left out; any other surplus or missing name is a UserError.
    """
    if config.weights_file is not None:
        source, state = str(config.weights_file), read_state(config.weights_file)
    else:
        source = ARCHITECTURES[config.backbone].weights_url
        try:
            state = torch.hub.load_state_dict_from_url(source, map_location="cpu", check_hash=True, weights_only=True)
        except (URLError, OSError) as error:
            raise UserError(
                f"ImageNet weights of {config.backbone} cannot be fetched from {source} ({error}): save that file "
                "where there is a network and give its path as encoder.weights_file=PATH, or start from random "
                "weights with encoder.weights=random"
            ) from None
        except RuntimeError as error:  # the checksum
            raise UserError(f"{source}: {error}; delete the file in torch's hub folder and start again") from None
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    load_state(encoder.backbone, complete_batch_norm(encoder.backbone, backbone), source)


def save_weights(module: nn.Module, path: Path) -> None:
    """All parameters and buffers of `module` as safetensors."""
    save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """What `save_weights` wrote into a module of the same configuration; UserError otherwise."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    load_state(module, state, str(path))


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A file of torch.save as names and tensors, without unpickling anything else.

    Unwraps {'state_dict' | 'model': ...} and {'id' | 'gen' | 'dis': ...}, and takes off DataParallel's `module.`.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*_UNREADABLE, RuntimeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable file of PyTorch weights ({first_line})") from None
    for wrapper in ("state_dict", "model", "id", "gen", "dis"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: holds no mapping of names to tensors; expected the state dict of a network")
    if content and all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Strict: UserError that lists what is missing from, surplus in or misshapen in `source`."""
    check_names(set(module.state_dict()), set(state), source)
    own = module.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if state[name].shape != value.shape
    ]
    if wrong:
        raise UserError(
            f"{source}: {len(wrong)} tensors of another shape: {_listed(wrong)}; is it of another config?"
        )
    module.load_state_dict(dict(state), strict=True)


def check_names(expected: set[str], found: set[str], source: str) -> None:
    """UserError that lists missing and surplus names, if there are any."""
    missing, surplus = sorted(expected - found), sorted(found - expected)
    if missing or surplus:
        parts = [
            f"{len(names)} names {word}: {_listed(names)}"
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


def _listed(items: list[str], shown: int = 8) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more
