"""The trained generator, for use: people seen from another side.

Letters: B images, H x W image size, Q width of the appearance code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from jgcl_ray.config import Config, override
from jgcl_ray.data.transforms import denormalise_images
from jgcl_ray.encoder import pick_device
from jgcl_ray.errors import UserError
from jgcl_ray.models import official
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.generator import Generator, StructureEncoder, check_image_size
from jgcl_ray.models.shipped import SHIPPED
from jgcl_ray.models.weights import load_weights
from jgcl_ray.places import absolute
from jgcl_ray.training.checkpoint import Manifest, checkpoints_in, config_of, read_manifest


@dataclass(frozen=True, eq=False)
class ViewGenerator:
    """E_id, E_str and G in evaluation mode, on `device`."""

    encoder: IdentityEncoder
    structure_encoder: StructureEncoder
    generator: Generator
    config: Config
    device: torch.device

    @classmethod
    def load(cls, path: Path, device: str = "auto", overrides: Sequence[str] = ()) -> Self:
        """From a run folder (its best checkpoint if that has a trained generator, else its latest), a checkpoint, or
        a folder with `id_*.pt` and `gen_*.pt` of the GCL authors.

        overrides: `section.field=value`, changes to the configuration of the run. UserError where the generator is
        untrained.
        """
        path, on = absolute(path), pick_device(device)
        theirs = sorted(path.glob("gen_*.pt"))
        if theirs:
            networks, config = _official(theirs[-1], overrides)
        else:
            networks, config = _own(_trained(checkpoints_in(path)), overrides)
        for module in networks:
            module.eval().requires_grad_(False).to(on)
        encoder, structure_encoder, generator = networks
        return cls(encoder, structure_encoder, generator, config, on)

    @torch.inference_mode()
    def codes(self, images: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W), normalised -> appearance codes (B, Q) on the device."""
        return self.encoder(images.to(self.device)).code

    @torch.inference_mode()
    def draw(self, meshes: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Projections (B, 1, H, W) in [-1, 1] and codes (B, Q) -> pictures, uint8 (B, H, W, 3) on the CPU."""
        drawn = self.generator(self.structure_encoder(meshes.to(self.device)), codes.to(self.device))
        return denormalise_images(drawn).cpu()


ENCODER_FILES = (".safetensors", ".pt", ".pth", ".tar")

_Networks = tuple[IdentityEncoder, StructureEncoder, Generator]


def _own(checkpoint: Path, overrides: Sequence[str]) -> tuple[_Networks, Config]:
    config = override(config_of(read_manifest(checkpoint), checkpoint), overrides)
    networks = _build(config)
    for name, module in zip(("encoder", "structure_encoder", "generator"), networks, strict=True):
        load_weights(module, checkpoint / f"{name}.safetensors")
    return networks, config


def _official(file: Path, overrides: Sequence[str]) -> tuple[_Networks, Config]:
    encoder_file = file.with_name("id" + file.name.removeprefix("gen"))
    if not encoder_file.is_file():
        raise UserError(f"{file}: its encoder, {encoder_file.name}, is not beside it")
    config = override(Config(), ["encoder.separate_batch_norm=false", *overrides])
    networks = _build(config)
    official.load_encoder(networks[0], encoder_file)
    official.load_generator(networks[1], networks[2], file)
    return networks, config


def _build(config: Config) -> _Networks:
    check_image_size(config.data.height, config.data.width)
    encoder = IdentityEncoder(config.encoder)
    return encoder, StructureEncoder(config.generator), Generator(config.generator, encoder.code_width)


def _trained(checkpoints: Sequence[Path]) -> Path:
    for checkpoint in checkpoints:
        manifest = read_manifest(checkpoint)
        if _generator_is_trained(config_of(manifest, checkpoint), manifest):
            return checkpoint
    raise UserError(
        f"{checkpoints[0]}: its generator is untrained, the run has not come to the stage `generation`; give another "
        "checkpoint, let it train on if it has that stage, or take the photos' own pixels by --surface"
    )


def _generator_is_trained(config: Config, manifest: Manifest) -> bool:
    here = manifest.position
    begun = config.run.stages[: here.stage + (here.epoch > 0 or here.batch > 0)]
    return _starts_from_a_run(config) or any(config.uses_generator(stage) for stage in begun)


def _starts_from_a_run(config: Config) -> bool:
    """Rather than from an encoder alone, such as `rendered`: of a run all networks are taken over."""
    start = config.run.init_from
    return start is not None and str(start) not in SHIPPED and Path(start).suffix not in ENCODER_FILES
