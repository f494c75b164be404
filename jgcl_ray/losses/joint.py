"""All terms of a step, by name: the same name in weight (config.losses), log, test and table.

A pass of the encoder that only terms of weight 0 would use is not run. Letters: B images, H x W image size, 4C width
of a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from jgcl_ray.config import LossesConfig
from jgcl_ray.losses import adversarial
from jgcl_ray.losses.reconstruction import feature_loss, image_loss
from jgcl_ray.models.discriminator import ScoresWithGradient
from jgcl_ray.models.encoder import EncoderOutput

Terms = dict[str, torch.Tensor]
Maps = Sequence[torch.Tensor]  # per scale (B, 1, h, w)


@dataclass(frozen=True)
class GeneratedImages:
    """What G made of a batch, each (B, 3, H, W) float32; in this order wherever they are joined."""

    reconstruction: torch.Tensor  # x_rec = G(E_str(s), c)
    novel: torch.Tensor  # x_nv = G(E_str(s_nv), c)
    cycle: torch.Tensor  # x_cyc = G(E_str(s), c_nv)

    def joined(self) -> torch.Tensor:
        """All of them as one batch (3B, 3, H, W)."""
        return torch.cat([self.reconstruction, self.novel, self.cycle])

    def detached(self) -> GeneratedImages:
        """The same images, of which no gradient comes back."""
        return GeneratedImages(self.reconstruction.detach(), self.novel.detach(), self.cycle.detach())


@dataclass(frozen=True)
class JointOutputs:
    """The forward pass of one step: METHOD "One step"."""

    generated: GeneratedImages
    real: EncoderOutput  # (c, f) = E_id(x)
    novel: EncoderOutput  # (c_nv, f_nv) = E_id(x_nv)
    reconstruction: EncoderOutput | None  # of x_rec, where a loss uses it
    cycle: EncoderOutput | None  # of x_cyc, where a loss uses it


def uses_encoded_reconstruction(losses: LossesConfig) -> bool:
    """Whether E_id has to see x_rec."""
    return losses.formulation == "official" and losses.feature_reconstruction > 0


def uses_encoded_cycle(losses: LossesConfig) -> bool:
    """Whether E_id has to see x_cyc."""
    return losses.feature_cycle > 0


def reconstruction_terms(outputs: JointOutputs, image: torch.Tensor, losses: LossesConfig) -> Terms:
    """`image_*` and `feature_*`; `paper` compares codes of x_nv and x_cyc, `official` those of x_rec and x_cyc."""
    terms: Terms = {}
    if losses.image_reconstruction > 0:
        terms["image_reconstruction"] = image_loss(outputs.generated.reconstruction, image)
    if losses.image_cycle > 0:
        terms["image_cycle"] = image_loss(outputs.generated.cycle, image)
    if outputs.reconstruction is not None:
        terms["feature_reconstruction"] = feature_loss(outputs.reconstruction.code, outputs.real.code)
    if losses.formulation == "paper" and losses.feature_novel > 0:
        terms["feature_novel"] = feature_loss(outputs.novel.code, outputs.real.code)
    if outputs.cycle is not None:
        terms["feature_cycle"] = feature_loss(outputs.cycle.code, outputs.real.code)
    return terms


def adversarial_terms(maps_of_fakes: Maps) -> Terms:
    """`adversarial_*`, from the maps of GeneratedImages.joined()."""
    return {f"adversarial_{name}": adversarial.generator_loss(maps) for name, maps in _by_fake(maps_of_fakes).items()}


def discriminator_terms(maps_of_fakes: Maps, real: ScoresWithGradient, losses: LossesConfig) -> Terms:
    """`discriminator_*`: for each fake its own loss, the real image's and the penalty; the latter two are shared."""
    penalty = adversarial.gradient_penalty(real.gradients)
    shared = adversarial.real_loss(real.maps) + losses.gradient_penalty * penalty
    fakes = _by_fake(maps_of_fakes)
    return {f"discriminator_{name}": adversarial.fake_loss(maps) + shared for name, maps in fakes.items()}


def weighted_sum(terms: Mapping[str, torch.Tensor], losses: LossesConfig) -> torch.Tensor:
    """The sum of all terms, each times the weight of its name."""
    return adversarial.sum_of([getattr(losses, name) * value for name, value in terms.items()])


def _by_fake(maps_of_fakes: Maps) -> dict[str, list[torch.Tensor]]:
    reconstruction, novel, cycle = zip(*(maps.chunk(3) for maps in maps_of_fakes), strict=True)
    return {"reconstruction": list(reconstruction), "novel": list(novel), "cycle": list(cycle)}
