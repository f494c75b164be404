"""The view contrast against the sums of its definition, written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jgcl_ray.config import MemoryBankConfig
from jgcl_ray.losses.view_contrast import view_contrast
from jgcl_ray.memories.instances import ContrastDraw, MemoryBank

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "contrast.npz")
NAMES = ("contrast_image", "contrast_views", "contrast_novel")
FORMULATIONS = ("paper", "official")
LABELS = [0, 0, 0, 1, 1, -1, 2, -1, 1, 0, 3, 1]


def make_bank(labels: list[int], **config: object) -> MemoryBank:
    features = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return MemoryBank(features, torch.tensor(labels), MemoryBankConfig(**config))


def make_features(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    f = torch.randn(2, batch, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return f[0].clone().requires_grad_(), f[1].clone().requires_grad_()


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def slow_view_contrast(
    f: torch.Tensor, f_novel: torch.Tensor, bank: MemoryBank, draw: ContrastDraw, t: float, formulation: str
) -> dict[str, float]:
    losses: dict[str, list[float]] = {name: [] for name in NAMES}
    for b, i in enumerate(draw.index.tolist()):
        image, novel = f[b] / f[b].norm(), f_novel[b] / f_novel[b].norm()
        v_p, v_p_of_image, v_i = (bank.rows[j] for j in (draw.positive[b], draw.positive_of_image[b], i))
        negatives = [bank.rows[k] for k in range(len(bank)) if draw.negatives[b, k]]

        def nce(a: torch.Tensor, positive: torch.Tensor, with_negatives: torch.Tensor) -> float:
            match = math.exp(dot(a, positive) / t)
            others = sum(math.exp(dot(with_negatives, v_k) / t) for v_k in negatives)  # noqa: B023
            return -math.log(match / (match + others))

        if formulation == "paper":
            losses["contrast_image"].append(nce(image, v_p, image))
            losses["contrast_views"].append(nce(image, novel, image))
        else:
            losses["contrast_image"].append(nce(image, v_p_of_image, novel))
            losses["contrast_views"].append(nce(novel, v_i, novel))
        losses["contrast_novel"].append(nce(novel, v_p, novel))
    return {name: sum(values) / len(values) for name, values in losses.items()}


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("negatives", [2, 8192])
@pytest.mark.parametrize("temperature", [0.04, 0.5])
def test_equals_the_sums_written_out(formulation: str, negatives: int, temperature: float) -> None:
    bank = make_bank(LABELS, negatives=negatives)
    index = torch.tensor([0, 5, 6, 11, 3, 3])
    f, f_novel = make_features(6)
    draw = bank.draw(index, seed=1, step=2, formulation=formulation)
    terms = view_contrast(f, f_novel, bank, draw, temperature, formulation)
    expected = slow_view_contrast(f.detach(), f_novel.detach(), bank, draw, temperature, formulation)
    assert tuple(terms) == NAMES
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("labels", [LABELS, [0] * 11 + [1], [0] * 12], ids=["mixed", "one negative", "no negative"])
def test_gradients_equal_finite_differences(formulation: str, labels: list[int]) -> None:
    bank = make_bank(labels, negatives=4)
    draw = bank.draw(torch.tensor([0, 5, 6]), seed=1, step=2, formulation=formulation)

    def terms(f: torch.Tensor, f_novel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(view_contrast(f, f_novel, bank, draw, 0.2, formulation).values())

    assert torch.autograd.gradcheck(terms, make_features(3))


def test_both_sides_of_the_views_term_carry_gradient() -> None:
    bank = make_bank(LABELS)
    f, f_novel = make_features(2)
    draw = bank.draw(torch.tensor([0, 3]), seed=0, step=0)
    view_contrast(f, f_novel, bank, draw, 0.04)["contrast_views"].backward()
    assert f.grad.abs().sum() > 0
    assert f_novel.grad.abs().sum() > 0


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_without_negatives_the_loss_and_its_gradient_are_zero(formulation: str) -> None:
    bank = make_bank([0] * 12)
    f, f_novel = make_features(3)
    draw = bank.draw(torch.tensor([0, 5, 5]), seed=1, step=2, formulation=formulation)
    terms = view_contrast(f, f_novel, bank, draw, 0.04, formulation)
    sum(terms.values()).backward()
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    assert not f_novel.grad.any()
    assert not f.grad.any()


def test_equals_the_authors_implementation() -> None:
    golden = {name: torch.from_numpy(GOLDEN[name]) for name in GOLDEN.files}
    bank = MemoryBank(golden["bank"], golden["labels"], MemoryBankConfig())
    f, f_novel = golden["f"], golden["f_novel"]
    # Their clusters hold two equal rows, so that whichever is drawn the loss is the same.
    draw = bank.draw(golden["index"], seed=0, step=0, formulation="official")
    total = sum(view_contrast(f, f_novel, bank, draw, 0.04, "official").values())
    assert total.item() == pytest.approx(golden["loss"].item(), rel=1e-5)
    bank.update(golden["index"], f)
    torch.testing.assert_close(bank.rows, golden["bank_after"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_autocast_leaves_the_logits_in_float32(formulation: str) -> None:
    bank = MemoryBank(torch.randn(50, 32), torch.arange(50) // 5, MemoryBankConfig(negatives=20))
    f, f_novel = F.normalize(torch.randn(2, 4, 32), dim=2).bfloat16().requires_grad_()
    draw = bank.draw(torch.tensor([0, 20, 33, 49]), seed=0, step=0, formulation=formulation)
    expected = view_contrast(f.float(), f_novel.float(), bank, draw, 0.04, formulation)
    with torch.autocast("cpu", torch.bfloat16):
        terms = view_contrast(f, f_novel, bank, draw, 0.04, formulation)
    for name in NAMES:
        assert terms[name].dtype == torch.float32
        assert torch.equal(terms[name], expected[name])


def test_trust_scales_the_losses_of_each_image() -> None:
    bank, (f, f_novel) = make_bank(LABELS), make_features(2)
    draw = bank.draw(torch.tensor([0, 3]), seed=1, step=2)
    trusted = view_contrast(f, f_novel, bank, draw, 0.1, trust=torch.tensor([0.0, 1.0]))
    alone = bank.draw(torch.tensor([3]), seed=1, step=2)
    only = view_contrast(f[1:], f_novel[1:], bank, alone, 0.1)
    for name in NAMES:
        assert trusted[name].item() == pytest.approx(only[name].item() / 2)
