"""All terms of a step, by name: the same name in weight (config.losses), log, test and table.

Letters: B images, H x W image size, 4C width of a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from jgcl_ray.config import LossesConfig
from jgcl_ray.losses import adversarial
from jgcl_ray.losses.reconstruction import CODE_TERMS, IMAGE_TERMS, Fake
from jgcl_ray.models.discriminator import ScoresWithGradient
from jgcl_ray.models.encoder import EncoderOutput

Terms = dict[str, torch.Tensor]
Maps = Sequence[torch.Tensor]  # per scale (B, 1, h, w)
FAKES: tuple[Fake, ...] = ("reconstruction", "novel", "cycle")  # in this order wherever they are joined
CONTRAST = tuple(name for name in LossesConfig.model_fields if name.startswith("contrast_"))  # of view_contrast


@dataclass(frozen=True)
class StepPlan:
    """What a step draws, encodes and judges: what only terms of weight 0 would use is left out."""

    terms: frozenset[str]  # of a weight above 0
    drawn: tuple[Fake, ...]  # by G
    encoded: tuple[Fake, ...]  # seen by E_id
    judged: tuple[Fake, ...]  # by D, for G
    discriminated: tuple[Fake, ...]  # that D learns from

    @classmethod
    def of(cls, losses: LossesConfig, *, contrasts: bool) -> StepPlan:
        """By the weights of the losses; contrasts: whether E_id learns from views, as in the joint stage."""
        other = "feature_novel" if losses.formulation == "official" else "feature_reconstruction"
        names = set(LossesConfig.model_fields) - {"formulation", "gradient_penalty", other}
        terms = frozenset(name for name in names if getattr(losses, name) > 0 and (contrasts or name not in CONTRAST))
        judged = tuple(fake for fake in FAKES if f"adversarial_{fake}" in terms)
        discriminated = tuple(fake for fake in FAKES if f"discriminator_{fake}" in terms)
        seen = {fake for name, (fake, _) in CODE_TERMS.items() if name in terms}
        drawn = {fake for name, (fake, _) in IMAGE_TERMS.items() if name in terms} | seen | {*judged, *discriminated}
        if terms & set(CONTRAST) or "cycle" in drawn:  # x_cyc is made of the code of x_nv
            seen.add("novel")
        drawn |= seen
        return cls(terms, _ordered(drawn), _ordered(seen), judged, discriminated)


@dataclass(frozen=True)
class JointOutputs:
    """The forward pass of one step, as far as its plan goes: METHOD "One step"."""

    real: EncoderOutput  # (c, f) = E_id(x)
    images: Mapping[Fake, torch.Tensor]  # drawn by G, each (B, 3, H, W) float32
    encoded: Mapping[Fake, EncoderOutput]  # E_id of them


def detached(images: Mapping[Fake, torch.Tensor]) -> dict[Fake, torch.Tensor]:
    """The same images, of which no gradient comes back."""
    return {fake: image.detach() for fake, image in images.items()}


def joined(images: Mapping[Fake, torch.Tensor], fakes: Sequence[Fake]) -> torch.Tensor:
    """Some of them as one batch (len(fakes) * B, 3, H, W)."""
    return torch.cat([images[fake] for fake in fakes])


def reconstruction_terms(outputs: JointOutputs, image: torch.Tensor, plan: StepPlan) -> Terms:
    """`image_*` and `feature_*`; `paper` compares codes of x_nv and x_cyc, `official` those of x_rec and x_cyc."""
    of_images = {
        name: loss(outputs.images[fake], image) for name, (fake, loss) in IMAGE_TERMS.items() if name in plan.terms
    }
    of_codes = {
        name: loss(outputs.encoded[fake].code, outputs.real.code)
        for name, (fake, loss) in CODE_TERMS.items()
        if name in plan.terms
    }
    return of_images | of_codes


def adversarial_terms(maps_of_fakes: Maps, plan: StepPlan) -> Terms:
    """`adversarial_*`, from the maps of the judged fakes, joined."""
    of_each = _by_fake(maps_of_fakes, plan.judged)
    return {f"adversarial_{fake}": adversarial.generator_loss(maps) for fake, maps in of_each.items()}


def discriminator_terms(
    maps_of_fakes: Maps, real: ScoresWithGradient, losses: LossesConfig, plan: StepPlan, penalty_every: int = 1
) -> Terms:
    """`discriminator_*`: for each fake its own loss, the real image's and the penalty; the latter two are shared.

    penalty_every: the penalty stands for so many steps; without gradients of `real` there is none.
    """
    shared = adversarial.real_loss(real.maps)
    if real.gradients:
        weight = losses.gradient_penalty * penalty_every
        shared = shared + weight * adversarial.gradient_penalty(real.gradients)
    of_each = _by_fake(maps_of_fakes, plan.discriminated)
    return {f"discriminator_{fake}": adversarial.fake_loss(maps) + shared for fake, maps in of_each.items()}


def weighted_sum(terms: Mapping[str, torch.Tensor], losses: LossesConfig) -> torch.Tensor:
    """The sum of all terms, each times the weight of its name."""
    return adversarial.sum_of([getattr(losses, name) * value for name, value in terms.items()])


def _by_fake(maps_of_fakes: Maps, fakes: Sequence[Fake]) -> dict[Fake, list[torch.Tensor]]:
    parts = zip(*(maps.chunk(len(fakes)) for maps in maps_of_fakes), strict=True)
    return {fake: list(maps) for fake, maps in zip(fakes, parts, strict=True)}


def _ordered(fakes: set[Fake]) -> tuple[Fake, ...]:
    return tuple(fake for fake in FAKES if fake in fakes)
