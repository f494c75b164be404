"""One batch: the forward pass, the discriminator's update, the generator's, and the memory bank (GCL 3; METHOD 1).

Data parallel without wrappers: every worker calls the same step on its own batch, gradients are averaged by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.batches import ImageBatch, PairedBatch
from jgcl_ray.config import Config
from jgcl_ray.distributed import all_reduce_gradients
from jgcl_ray.errors import UserError
from jgcl_ray.losses.joint import (
    CONTRAST,
    JointOutputs,
    StepPlan,
    Terms,
    adversarial_terms,
    detached,
    discriminator_terms,
    joined,
    reconstruction_terms,
    weighted_sum,
)
from jgcl_ray.losses.reconstruction import Fake
from jgcl_ray.losses.view_contrast import view_contrast
from jgcl_ray.memories.instances import MemoryBank
from jgcl_ray.models.discriminator import ScoresWithGradient
from jgcl_ray.models.encoder import EncoderOutput
from jgcl_ray.models.networks import Networks
from jgcl_ray.training.optim import Optimisers
from jgcl_ray.training.precision import autocast, laid_out
from jgcl_ray.training.seen_photos import SeenPhotos


@dataclass(frozen=True)
class StepResult:
    """What one step leaves for the log: nothing here holds a graph."""

    terms: Mapping[
        str, torch.Tensor
    ]  # each term of config.losses, unweighted, of this worker's batch; and the totals
    images: Mapping[Fake, torch.Tensor]  # that G drew


_REMEDY = (
    "look at these images, and lower the learning rates (warmup.lr, optim.encoder_lr, optim.generator_lr, "
    "optim.discriminator_lr) or set precision.dtype=float32, under another run.name"
)


class NonFiniteLossError(UserError):
    """A loss term is NaN or infinite; nothing was stepped by the update it belongs to.

    It ends a run with exit code 2: the same command would come to the same step again.
    """

    def __init__(self, term: str, step: int, rows: Sequence[int], files: Sequence[str] = ()) -> None:
        """rows: of the batch, in the data set; files: their names, for whoever knows them."""
        self.term, self.step, self.rows, self.files = term, step, tuple(rows), tuple(files)
        batch = f"files {', '.join(files)}" if files else f"rows {', '.join(map(str, rows))}"
        super().__init__(f"loss term {term} is not finite at step {step}; the batch: {batch}; {_REMEDY}")

    def __reduce__(self) -> tuple[type[NonFiniteLossError], tuple[object, ...]]:
        """Exceptions are pickled by their message alone; this one travels from Ray's workers."""
        return type(self), (self.term, self.step, self.rows, self.files)

    def naming(self, files: Sequence[str]) -> NonFiniteLossError:
        """The same error with the files of its rows."""
        return NonFiniteLossError(self.term, self.step, self.rows, files)


def generator_step(
    networks: Networks,
    optimisers: Optimisers,
    batch: PairedBatch,
    config: Config,
    step: int,
    seen: SeenPhotos | None = None,
) -> StepResult:
    """Stage 2: E_str, G and D learn; E_id is frozen, in evaluation mode: gradients pass through, none stays.

    seen: what E_id said of photos in steps before, with the same weights.
    """
    plan = StepPlan.of(config.losses, contrasts=False)
    networks.encoder.eval()
    known = None if seen is None else seen.of(batch.index)
    with frozen(networks.encoder):
        outputs = translate(networks, batch, config, plan, known)
        if seen is not None and known is None:
            seen.keep(batch.index, outputs.real)
        discriminated = update_discriminator(networks, optimisers, outputs, batch, config, plan, step)

        terms = generator_terms(networks, outputs, batch, config, plan)
        total = weighted_sum(terms, config.losses)
        descend(total, terms, [optimisers.generator], batch, step)
    return StepResult(as_numbers(discriminated, terms, generator_total=total), detached(outputs.images))


def joint_step(
    networks: Networks,
    optimisers: Optimisers,
    bank: MemoryBank,
    batch: PairedBatch,
    config: Config,
    step: int,
    trust: torch.Tensor | None = None,
) -> StepResult:
    """Stage 3: all four networks learn, E_id from the contrast of views and memory besides; then the memory.

    trust (B,): factors on the contrast losses of each image; None: all alike.
    """
    plan = StepPlan.of(config.losses, contrasts=True)
    networks.encoder.train()
    outputs = translate(networks, batch, config, plan)
    discriminated = update_discriminator(networks, optimisers, outputs, batch, config, plan, step)

    terms = generator_terms(networks, outputs, batch, config, plan)
    terms |= contrast_terms(outputs, bank, batch, config, plan, step, trust)
    total = weighted_sum(terms, config.losses)
    descend(total, terms, [optimisers.generator, optimisers.encoder], batch, step)

    bank.update(batch.index, F.normalize(outputs.real.embedding.detach()))
    return StepResult(as_numbers(discriminated, terms, generator_total=total), detached(outputs.images))


def translate(
    networks: Networks, batch: PairedBatch, config: Config, plan: StepPlan, real: EncoderOutput | None = None
) -> JointOutputs:
    """The forward pass of METHOD "One step", as far as the plan goes; real: E_id of the photos, where it is known."""
    E_id, E_str, G = networks.encoder, networks.structure_encoder, networks.generator
    images: dict[Fake, torch.Tensor] = {}
    encoded: dict[Fake, EncoderOutput] = {}

    def see(fake: Fake) -> None:
        if fake in plan.encoded:
            encoded[fake] = E_id(images[fake], "generated")

    with autocast(config.precision, batch.image.device):
        real = E_id(laid_out(batch.image, config.precision)) if real is None else real
        meshes = laid_out(torch.cat([batch.mesh, batch.mesh_novel]), config.precision)
        structure, structure_novel = E_str(meshes).chunk(2)
        style = G.style(real.code)
        if "reconstruction" in plan.drawn:
            images["reconstruction"] = G.decode(structure, style)
        if "novel" in plan.drawn:
            images["novel"] = G.decode(structure_novel, style)
            see("novel")
        if "cycle" in plan.drawn:
            images["cycle"] = G(structure, encoded["novel"].code)
        see("reconstruction")
        see("cycle")
    return JointOutputs(real, images, encoded)


def update_discriminator(
    networks: Networks,
    optimisers: Optimisers,
    outputs: JointOutputs,
    batch: PairedBatch,
    config: Config,
    plan: StepPlan,
    step: int,
) -> Terms:
    """D's step on the fakes, detached, and the real image, seen once and weighed by their number.

    step: of the run, which says whether the gradient penalty's turn has come.
    """
    if not plan.discriminated:
        return {}
    D, every = networks.discriminator, config.discriminator.penalty_every
    x = laid_out(batch.image, config.precision)
    penalised = config.losses.gradient_penalty > 0 and step % every == 0
    with autocast(config.precision, batch.image.device):
        real = D.with_input_gradient(x) if penalised else ScoresWithGradient(D(x), ())
        maps_of_fakes = D(joined(detached(outputs.images), plan.discriminated))
    terms = discriminator_terms(maps_of_fakes, real, config.losses, plan, every)
    total = weighted_sum(terms, config.losses)
    descend(total, terms, [optimisers.discriminator], batch, step)
    return as_numbers(terms, discriminator_total=total)


def generator_terms(
    networks: Networks, outputs: JointOutputs, batch: PairedBatch, config: Config, plan: StepPlan
) -> Terms:
    """Reconstruction and adversarial terms; D judges, and takes no gradient."""
    terms = reconstruction_terms(outputs, batch.image, plan)
    if plan.judged:
        D = networks.discriminator
        with frozen(D), autocast(config.precision, batch.image.device):
            maps_of_fakes = D(joined(outputs.images, plan.judged))
        terms |= adversarial_terms(maps_of_fakes, plan)
    return terms


def contrast_terms(
    outputs: JointOutputs,
    bank: MemoryBank,
    batch: PairedBatch,
    config: Config,
    plan: StepPlan,
    step: int,
    trust: torch.Tensor | None = None,
) -> Terms:
    """L_vi, L_vi' and L_vi'' against the memory bank."""
    if not plan.terms & set(CONTRAST):
        return {}
    formulation = config.losses.formulation
    draw = bank.draw(batch.index, seed=config.run.seed, step=step, formulation=formulation)
    f, f_nv = outputs.real.embedding, outputs.encoded["novel"].embedding
    losses = view_contrast(f, f_nv, bank, draw, config.memory_bank.temperature, formulation, trust)
    return {name: loss for name, loss in losses.items() if name in plan.terms}


def descend(
    total: torch.Tensor,
    terms: Terms,
    optimisers: Sequence[torch.optim.Optimizer],
    batch: ImageBatch | PairedBatch,
    step: int,
) -> None:
    """One backward, gradients averaged over workers, one step of `optimisers`; only if every term is finite."""
    check_finite(terms, batch, step)
    for optimiser in optimisers:
        optimiser.zero_grad()
    total.backward()
    for optimiser in optimisers:
        all_reduce_gradients(parameter for group in optimiser.param_groups for parameter in group["params"])
        optimiser.step()


def check_finite(terms: Terms, batch: ImageBatch | PairedBatch, step: int) -> None:
    """NonFiniteLossError that names the first term which is not finite."""
    finite = torch.stack(list(terms.values())).isfinite()
    if not finite.all():
        first = list(terms)[finite.tolist().index(False)]
        raise NonFiniteLossError(first, step, batch.index.tolist())


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """While it lasts the module's parameters take no gradient; gradients still pass through to its input."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def as_numbers(*groups: Terms, **more: torch.Tensor) -> Terms:
    """All terms as numbers without a graph."""
    return {name: value.detach() for group in (*groups, more) for name, value in group.items()}
