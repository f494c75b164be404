"""Checkpoints of the GCL authors: their parameter names to ours and back (`id_*.pt`, `gen_*.pt`, `dis_*.pt`).

JVTC's stage-1 encoders have the names of `id`. Loading is strict: what is missing or surplus is listed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from jgcl_ray.errors import UserError
from jgcl_ray.models import discriminator as dis
from jgcl_ray.models import generator as gen
from jgcl_ray.models.discriminator import Discriminator
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.generator import Generator, StructureEncoder
from jgcl_ray.models.weights import State, check_names, complete_batch_norm, load_state, read_state


def load_encoder(encoder: IdentityEncoder, path: Path) -> None:
    """`id_*.pt` of GCL or an encoder of JVTC into a ResNet-50 with the head `linear`, D = 512."""
    state = _renamed(read_state(path), _encoder_names(encoder), str(path), optional=_counters(encoder))
    load_state(encoder, complete_batch_norm(encoder, state), str(path))


def load_generator(structure_encoder: StructureEncoder, generator: Generator, path: Path) -> None:
    """`gen_*.pt`: E_str and G in one file."""
    state = read_state(path)
    placeholders = set(_placeholders(generator))
    check_names(set(_generator_names()) | placeholders, set(state), str(path))
    state = _renamed({n: v for n, v in state.items() if n not in placeholders}, _generator_names(), str(path))
    load_state(structure_encoder, _part(state, "structure_encoder."), str(path))
    load_state(generator, _part(state, "generator."), str(path))


def load_discriminator(discriminator: Discriminator, path: Path) -> None:
    """`dis_*.pt`."""
    names = _discriminator_names(len(discriminator.scales))
    load_state(discriminator, _renamed(read_state(path), names, str(path)), str(path))


def save_encoder(encoder: IdentityEncoder, path: Path) -> None:
    """The encoder as `id_*.pt`; statistics of generated images, which that format lacks, stay behind."""
    torch.save({"id": _exported(encoder.state_dict(), _encoder_names(encoder))}, path)


def save_generator(structure_encoder: StructureEncoder, generator: Generator, path: Path) -> None:
    """E_str and G as `gen_*.pt`."""
    ours = {f"structure_encoder.{name}": value for name, value in structure_encoder.state_dict().items()}
    ours |= {f"generator.{name}": value for name, value in generator.state_dict().items()}
    torch.save({"gen": _exported(ours, _generator_names()) | _placeholders(generator)}, path)


def save_discriminator(discriminator: Discriminator, path: Path) -> None:
    """The discriminator as `dis_*.pt`."""
    names = _discriminator_names(len(discriminator.scales))
    torch.save({"dis": _exported(discriminator.state_dict(), names)}, path)


def _encoder_names(encoder: IdentityEncoder) -> dict[str, str]:
    """Their name -> ours."""
    if not isinstance(encoder.embed, nn.Linear):
        raise UserError("official checkpoints have the head `linear`: set encoder.head=linear, encoder.embedding=512")
    names = {}
    for ours in encoder.state_dict():
        if "generated_" not in ours:
            theirs = ours.removeprefix("backbone.").replace("embed_norm.", "feat_bn.").replace("embed.", "feat.")
            names[theirs] = ours
    return names


def _counters(encoder: IdentityEncoder) -> set[str]:
    return {theirs for theirs in _encoder_names(encoder) if theirs.endswith("num_batches_tracked")}


def _generator_names() -> dict[str, str]:
    layers: dict[str, str] = {f"enc_content.model.{i}.conv": f"structure_encoder.stem.{i}" for i in range(4)}
    pyramid = "enc_content.model.5"
    layers |= {
        f"enc_content.model.4.model.{block}.model.{i}.conv": f"structure_encoder.blocks.{block}.conv{i + 1}"
        for block in range(gen.BLOCKS)
        for i in range(2)
    }
    layers[f"{pyramid}.conv1.conv"] = "structure_encoder.pyramid_point"
    for i, dilation in enumerate(gen.DILATIONS):
        layers[f"{pyramid}.conv{2 * dilation}.0.conv"] = f"structure_encoder.pyramid_reduce.{i}"
        layers[f"{pyramid}.conv{2 * dilation}.1.conv"] = f"structure_encoder.pyramid_dilated.{i}"
    layers[f"{pyramid}.fuse.conv"] = "structure_encoder.fuse"
    for block in range(gen.BLOCKS):
        for i in range(2):
            layers[f"dec.model.1.model.{block}.model.{i}.conv"] = f"generator.blocks.{block}.conv{i + 1}"
        for i in range(3):
            layers[f"mlp_w{block + 1}.model.{i}.fc"] = f"generator.gains.{block}.{2 * i}"
            layers[f"mlp_b{block + 1}.model.{i}.fc"] = f"generator.offsets.{block}.{2 * i}"
    layers |= {f"dec.model.{3 + 2 * i}.conv": f"generator.up.{i}" for i in range(2)}
    layers |= {f"dec.model.{6 + i}.conv": f"generator.refine.{i}" for i in range(2)}
    layers["dec.model.8.conv"] = "generator.to_image"
    names = _with_parameters(layers)
    for i in range(2):
        names[f"dec.model.{3 + 2 * i}.norm.gamma"] = f"generator.up_norms.{i}.gain"
        names[f"dec.model.{3 + 2 * i}.norm.beta"] = f"generator.up_norms.{i}.offset"
    return names


def _placeholders(generator: Generator) -> dict[str, torch.Tensor]:
    """Running statistics that their AdaIN layers register and never use."""
    channels = generator.to_image.in_channels * 4
    values = {}
    for block in range(gen.BLOCKS):
        for i in range(2):
            norm = f"dec.model.1.model.{block}.model.{i}.norm"
            values[f"{norm}.running_mean"] = torch.zeros(channels)
            values[f"{norm}.running_var"] = torch.ones(channels)
    return values


def _discriminator_names(scales: int) -> dict[str, str]:
    layers: dict[str, str] = {}
    for s in range(scales):
        layers |= {f"cnns.{s}.{i}.conv": f"scales.{s}.stem.{i}" for i in range(5)}
        for block in range(dis.BLOCKS):
            for i in range(2):
                layers[f"cnns.{s}.{5 + block}.model.{i}.conv"] = f"scales.{s}.blocks.{block}.conv{i + 1}"
        layers[f"cnns.{s}.{5 + dis.BLOCKS}"] = f"scales.{s}.head"
    return _with_parameters(layers)


def _with_parameters(layers: dict[str, str]) -> dict[str, str]:
    return {f"{a}.{p}": f"{b}.{p}" for a, b in layers.items() for p in ("weight", "bias")}


def _renamed(
    state: State, names: dict[str, str], source: str, optional: set[str] | frozenset[str] = frozenset()
) -> dict[str, torch.Tensor]:
    check_names(set(names), set(state) | optional, source)
    return {names[theirs]: value for theirs, value in state.items()}


def _exported(state: State, names: dict[str, str]) -> dict[str, torch.Tensor]:
    return {theirs: state[ours].detach().cpu().contiguous() for theirs, ours in names.items()}


def _part(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
