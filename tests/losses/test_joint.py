"""The terms of a step, their names and weights; the discriminator's against three passes of their own."""

from __future__ import annotations

import pytest
import torch

from jgcl_ray.config import DiscriminatorConfig, LossesConfig
from jgcl_ray.losses.joint import (
    FAKES,
    JointOutputs,
    StepPlan,
    adversarial_terms,
    discriminator_terms,
    reconstruction_terms,
    weighted_sum,
)
from jgcl_ray.losses.reconstruction import Fake
from jgcl_ray.models.discriminator import Discriminator, ScoresWithGradient
from jgcl_ray.models.encoder import EncoderOutput


def encoded() -> EncoderOutput:
    return EncoderOutput(torch.randn(2, 8), torch.randn(2, 4))


def make_outputs(plan: StepPlan) -> JointOutputs:
    images = {fake: torch.randn(2, 3, 8, 4) for fake in plan.drawn}
    return JointOutputs(encoded(), images, {fake: encoded() for fake in plan.encoded})


def plan_of(contrasts: bool = True, **weights: object) -> StepPlan:
    return StepPlan.of(LossesConfig(**weights), contrasts=contrasts)  # type: ignore[arg-type]


NO_CYCLE = dict.fromkeys(("image_cycle", "feature_cycle", "adversarial_cycle", "discriminator_cycle"), 0)
NO_RECONSTRUCTION = {f"{kind}_reconstruction": 0 for kind in ("image", "adversarial", "discriminator")}
NOTHING_OF_NOVEL = dict.fromkeys(("feature_novel", "adversarial_novel", "discriminator_novel"), 0)


@pytest.mark.parametrize(
    ("plan", "drawn", "seen"),
    [
        (plan_of(), FAKES, ("novel", "cycle")),
        (plan_of(formulation="official"), FAKES, FAKES),
        (plan_of(feature_cycle=0), FAKES, ("novel",)),
        (plan_of(**NO_CYCLE), ("reconstruction", "novel"), ("novel",)),
        (plan_of(**NO_CYCLE, **NO_RECONSTRUCTION), ("novel",), ("novel",)),
        (plan_of(contrasts=False, **NO_CYCLE, feature_novel=0), ("reconstruction", "novel"), ()),
        (plan_of(contrasts=False, **NO_CYCLE, **NOTHING_OF_NOVEL), ("reconstruction",), ()),
        (plan_of(contrasts=True, **NO_CYCLE, **NOTHING_OF_NOVEL), ("reconstruction", "novel"), ("novel",)),
        (plan_of(contrasts=False, **NOTHING_OF_NOVEL), FAKES, ("novel", "cycle")),
    ],
)
def test_a_plan_leaves_out_what_no_loss_uses(plan: StepPlan, drawn: tuple[Fake, ...], seen: tuple[Fake, ...]) -> None:
    """x_cyc is made of the code of x_nv, so with it x_nv is drawn and encoded, whatever its own terms weigh."""
    assert (plan.drawn, plan.encoded) == (drawn, seen)
    assert {*plan.judged, *plan.discriminated} <= {*plan.drawn}


def test_formulations_compare_different_codes() -> None:
    image = torch.randn(2, 3, 8, 4)
    paper = reconstruction_terms(make_outputs(plan_of()), image, plan_of())
    assert set(paper) == {"image_reconstruction", "image_cycle", "feature_novel", "feature_cycle"}
    official = plan_of(formulation="official")
    terms = reconstruction_terms(make_outputs(official), image, official)
    assert set(terms) == {"image_reconstruction", "image_cycle", "feature_reconstruction", "feature_cycle"}


def test_each_term_compares_what_its_name_says() -> None:
    image, outputs = torch.randn(2, 3, 8, 4), make_outputs(plan_of())
    terms = reconstruction_terms(outputs, image, plan_of())
    expected = {
        "image_reconstruction": outputs.images["reconstruction"] - image,
        "image_cycle": outputs.images["cycle"] - image,
        "feature_novel": outputs.encoded["novel"].code - outputs.real.code,
        "feature_cycle": outputs.encoded["cycle"].code - outputs.real.code,
    }
    for name, difference in expected.items():
        torch.testing.assert_close(terms[name], difference.abs().mean())


def test_a_term_of_weight_zero_is_absent() -> None:
    plan = plan_of(image_cycle=0, feature_novel=0)
    terms = reconstruction_terms(make_outputs(plan), torch.randn(2, 3, 8, 4), plan)
    assert set(terms) == {"image_reconstruction", "feature_cycle"}


def test_terms_are_summed_by_the_weights_of_their_names() -> None:
    losses = LossesConfig(image_cycle=2.0, adversarial_novel=0.5)
    terms = {"image_cycle": torch.tensor(3.0), "adversarial_novel": torch.tensor(4.0)}
    assert weighted_sum(terms, losses).item() == pytest.approx(8.0)
    with pytest.raises(AttributeError):
        weighted_sum({"unheard_of": torch.tensor(1.0)}, losses)


def test_adversarial_terms_are_those_of_their_fake() -> None:
    fakes = torch.tensor([1.0, 0.0, 3.0]).repeat_interleave(2)[:, None, None, None]
    terms = adversarial_terms([fakes, fakes], plan_of())
    assert {name: value.item() for name, value in terms.items()} == {
        "adversarial_reconstruction": 0.0,
        "adversarial_novel": 4.0,
        "adversarial_cycle": 16.0,
    }
    some = adversarial_terms([fakes[2:], fakes[2:]], plan_of(adversarial_reconstruction=0))
    assert some == {name: value for name, value in terms.items() if name != "adversarial_reconstruction"}


def test_discriminator_terms_and_gradients_equal_three_passes_with_double_backward() -> None:
    torch.manual_seed(0)
    D = Discriminator(DiscriminatorConfig(width=3))
    for parameter in D.parameters():
        parameter.data.normal_(std=0.3)
    image, fakes = torch.randn(2, 3, 40, 40), [torch.randn(2, 3, 40, 40) for _ in range(3)]
    losses = LossesConfig(discriminator_novel=0.5, gradient_penalty=0.3)
    terms = discriminator_terms(D(torch.cat(fakes)), D.with_input_gradient(image), losses, plan_of())
    ours = torch.autograd.grad(weighted_sum(terms, losses), list(D.parameters()))

    expected = []
    for fake in fakes:
        x = image.clone().requires_grad_()
        term = torch.tensor(0.0)
        for of_fake, of_real in zip(D(fake), D(x), strict=True):
            (gradient,) = torch.autograd.grad(of_real.sum(), x, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            term = term + of_fake.square().mean() + (of_real - 1).square().mean() + 0.3 * penalty
        expected.append(term)
    for name, term in zip(("reconstruction", "novel", "cycle"), expected, strict=True):
        torch.testing.assert_close(terms[f"discriminator_{name}"], term, rtol=1e-4, atol=1e-5)
    bare, lazy = (
        discriminator_terms(D(torch.cat(fakes)), real, losses, plan_of(), penalty_every=4)
        for real in (ScoresWithGradient(D(image), ()), D.with_input_gradient(image))
    )
    for name, term in terms.items():
        torch.testing.assert_close(lazy[name] - bare[name], 4 * (term - bare[name]), rtol=1e-4, atol=1e-5)
    total = expected[0] + 0.5 * expected[1] + expected[2]
    for found, wanted in zip(ours, torch.autograd.grad(total, list(D.parameters())), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
