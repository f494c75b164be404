"""One batch: who is updated by what, in which order, and that workers share it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from worker_group import run_workers

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config, load_config
from jgcl_ray.losses.joint import StepPlan
from jgcl_ray.memories.instances import MemoryBank
from jgcl_ray.models.encoder import EncoderOutput
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training import seen_photos
from jgcl_ray.training import step as step_module
from jgcl_ray.training.optim import build_optimisers
from jgcl_ray.training.precision import prepare
from jgcl_ray.training.seen_photos import SeenPhotos
from jgcl_ray.training.step import NonFiniteLossError, generator_step, joint_step, translate

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = (
    "data.height=48",
    "data.width=40",
    "encoder.backbone=resnet18",
    "encoder.embedding=8",
    "encoder.weights=random",
    "generator.width=2",
    "generator.style_width=8",
    "discriminator.width=3",
    "memory_bank.negatives=16",
)
LABELS = torch.arange(6).repeat_interleave(2)  # clusters of two: the positive is the other one


def make_config(*overrides: str) -> Config:
    return load_config(overrides=[*SMALL, *overrides])


def make_networks(config: Config, dtype: torch.dtype = torch.float32) -> Networks:
    torch.manual_seed(0)
    networks = prepare(build_networks(config), config.precision)
    for _, module in networks.named():
        module.to(dtype)
    return networks


def make_bank(config: Config, dtype: torch.dtype = torch.float32) -> MemoryBank:
    rows = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    return MemoryBank(rows.to(dtype), LABELS, config.memory_bank)


def make_batch(index: list[int], dtype: torch.dtype = torch.float32) -> PairedBatch:
    draws = torch.Generator().manual_seed(2)
    images, meshes = torch.randn(12, 3, 48, 40, generator=draws), torch.rand(24, 1, 48, 40, generator=draws) * 2 - 1
    images, meshes = images.to(dtype), meshes.to(dtype)
    rows = torch.tensor(index)
    return PairedBatch(images[rows], meshes[rows], meshes[12 + rows], torch.full((len(index),), 45), rows)


def snapshot(networks: Networks) -> dict[str, dict[str, torch.Tensor]]:
    return {name: copy.deepcopy(module.state_dict()) for name, module in networks.named()}


def changed(networks: Networks, before: dict[str, dict[str, torch.Tensor]]) -> set[str]:
    return {
        name
        for name, module in networks.named()
        if any(not torch.equal(value, before[name][key]) for key, value in module.state_dict().items())
    }


def flat_gradient(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


class SlowStep:
    """The joint step as METHOD writes it: every pass on its own, three penalties by double backward."""

    def __init__(self, networks: Networks, bank: MemoryBank, batch: PairedBatch, config: Config) -> None:
        self.networks, self.bank, self.batch, self.config = networks, bank, batch, config

    def discriminator_loss(self) -> torch.Tensor:
        D, total = self.networks.discriminator, torch.tensor(0.0)
        for fake in self.fakes():
            x = self.batch.image.clone().requires_grad_()
            for of_fake, of_real in zip(D(fake.detach()), D(x), strict=True):
                (gradient,) = torch.autograd.grad(of_real.sum(), x, create_graph=True)
                penalty = gradient.square().sum((1, 2, 3)).mean()
                total = total + of_fake.square().mean() + (of_real - 1).square().mean() + 0.01 * penalty
        return total

    def fakes(self) -> list[torch.Tensor]:
        E_id, E_str, G = self.networks.encoder, self.networks.structure_encoder, self.networks.generator
        self.real = E_id(self.batch.image, "real")
        x_rec = G(E_str(self.batch.mesh), self.real.code)
        x_nv = G(E_str(self.batch.mesh_novel), self.real.code)
        self.novel = E_id(x_nv, "generated")
        x_cyc = G(E_str(self.batch.mesh), self.novel.code)
        self.cycle = E_id(x_cyc, "generated")
        return [x_rec, x_nv, x_cyc]

    def generator_loss(self) -> torch.Tensor:
        x_rec, x_nv, x_cyc = self.fakes()
        x, goal = self.batch.image, self.real.code.detach()
        total = 5 * (x_rec - x).abs().mean() + 5 * (x_cyc - x).abs().mean()
        total = total + 5 * (self.novel.code - goal).abs().mean() + 5 * (self.cycle.code - goal).abs().mean()
        for fake in (x_rec, x_nv, x_cyc):
            for scores in self.networks.discriminator(fake):
                total = total + 2 * (scores - 1).square().mean()
        return total + self.contrast()

    def contrast(self) -> torch.Tensor:
        f, f_nv = F.normalize(self.real.embedding), F.normalize(self.novel.embedding)
        total, rows = torch.tensor(0.0), self.bank.rows
        for b, i in enumerate(self.batch.index.tolist()):
            positive = rows[i ^ 1]
            negatives = rows[LABELS[i] != LABELS]
            for a, p in ((f[b], positive), (f[b], f_nv[b]), (f_nv[b], positive)):
                logits = torch.cat([(a @ p)[None], negatives @ a]) / 0.04
                total = total - logits.log_softmax(0)[0] / len(f)
        return total


def test_joint_step_equals_the_slow_one() -> None:
    """In float64: batch norm over four images multiplies rounding, and with it what another processor may change."""
    config = make_config()
    batch, bank = make_batch([0, 3, 5, 10], torch.float64), make_bank(config, torch.float64)
    networks, slow_networks = (make_networks(config, torch.float64) for _ in range(2))
    slow = SlowStep(slow_networks, make_bank(config, torch.float64), batch, config)
    optimisers, slow_optimisers = (
        build_optimisers(networks, config.optim),
        build_optimisers(slow_networks, config.optim),
    )

    result = joint_step(networks, optimisers, bank, batch, config, step=0)

    slow_networks.encoder.train()
    of_discriminator = slow.discriminator_loss()
    of_discriminator.backward()
    slow_optimisers.discriminator.step()
    for _, module in slow_networks.named():
        module.zero_grad()
    of_generator = slow.generator_loss()
    of_generator.backward()

    torch.testing.assert_close(result.terms["discriminator_total"], of_discriminator.detach(), rtol=1e-8, atol=0)
    torch.testing.assert_close(result.terms["generator_total"], of_generator.detach(), rtol=1e-8, atol=0)
    for name in ("encoder", "structure_encoder", "generator"):
        ours, theirs = (flat_gradient(getattr(n, name)) for n in (networks, slow_networks))
        assert (ours - theirs).norm() < 1e-8 * theirs.norm(), name
    for i, feature in zip(batch.index, F.normalize(slow.real.embedding.detach()), strict=True):
        old = slow.bank.rows[i]
        torch.testing.assert_close(bank.rows[i], F.normalize(0.2 * old + 0.8 * feature, dim=0), rtol=0, atol=1e-8)


def test_terms_have_the_names_of_their_weights_and_carry_no_graph() -> None:
    for formulation in ("paper", "official"):
        config = make_config(f"losses.formulation={formulation}")
        networks = make_networks(config)
        optimisers = build_optimisers(networks, config.optim)
        result = joint_step(networks, optimisers, make_bank(config), make_batch([0, 3]), config, step=0)
        totals = {"generator_total", "discriminator_total"}
        weights = set(type(config.losses).model_fields) - {"formulation", "gradient_penalty"}
        unused = "feature_reconstruction" if formulation == "paper" else "feature_novel"
        assert set(result.terms) == (weights - {unused}) | totals
        assert not any(value.requires_grad for value in result.terms.values())
        assert not any(image.requires_grad for image in result.images.values())


def test_generator_step_freezes_the_encoder() -> None:
    config = make_config()
    networks = make_networks(config)
    before = snapshot(networks)
    optimisers = build_optimisers(networks, config.optim)
    for step in range(2):
        generator_step(networks, optimisers, make_batch([0, 3]), config, step)
    assert changed(networks, before) == {"structure_encoder", "generator", "discriminator"}
    assert not networks.encoder.training
    assert all(parameter.grad is None for parameter in networks.encoder.parameters())
    assert all(parameter.requires_grad for parameter in networks.encoder.parameters())


def test_gradients_pass_through_the_frozen_encoder_but_nothing_of_the_real_image_is_kept() -> None:
    config = make_config()
    networks = make_networks(config)
    networks.encoder.eval()
    with step_module.frozen(networks.encoder):
        outputs = translate(networks, make_batch([0, 3]), config, StepPlan.of(config.losses, contrasts=False))
    assert outputs.real.code.grad_fn is None
    outputs.encoded["cycle"].code.sum().backward()
    assert networks.generator.to_image.weight.grad is not None


def test_discriminator_takes_no_gradient_from_the_generators_update(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    networks = make_networks(config)
    after_its_own_update: list[torch.Tensor] = []
    update = step_module.update_discriminator

    def recorded(*arguments: object) -> object:
        terms = update(*arguments)  # type: ignore[arg-type]
        after_its_own_update.extend(p.grad.clone() for p in networks.discriminator.parameters())
        return terms

    monkeypatch.setattr(step_module, "update_discriminator", recorded)
    optimisers = build_optimisers(networks, config.optim)
    joint_step(networks, optimisers, make_bank(config), make_batch([0, 3]), config, step=0)
    for parameter, gradient in zip(networks.discriminator.parameters(), after_its_own_update, strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        ([], ["real", "generated", "generated"]),
        (["losses.formulation=official"], ["real", "generated", "generated", "generated"]),
        (["losses.feature_cycle=0"], ["real", "generated"]),
    ],
)
def test_encoder_sees_only_what_a_loss_uses(overrides: list[str], passes: list[str]) -> None:
    config = make_config(*overrides)
    networks = make_networks(config)
    seen: list[str] = []

    def record(module: nn.Module, inputs: tuple[object, ...]) -> None:
        seen.append(str(inputs[1]) if len(inputs) > 1 else "real")

    networks.encoder.register_forward_pre_hook(record)
    translate(networks, make_batch([0, 3]), config, StepPlan.of(config.losses, contrasts=True))
    assert seen == passes


NO_CYCLE = [f"losses.{kind}_cycle=0" for kind in ("image", "feature", "adversarial", "discriminator")]


def test_a_step_without_the_cycle_is_the_step_with_its_weights_alone() -> None:
    """The same updates as if x_cyc were drawn and weighed by 0, and D's weights where it learns from nothing."""
    config = make_config(*NO_CYCLE)
    networks, bank = make_networks(config, torch.float64), make_bank(config, torch.float64)
    drawn: list[int] = []
    networks.generator.register_forward_pre_hook(lambda *_: drawn.append(1))
    optimisers = build_optimisers(networks, config.optim)
    result = joint_step(networks, optimisers, bank, make_batch([0, 3], torch.float64), config, step=0)
    assert set(result.images) == {"reconstruction", "novel"} and not drawn
    assert not any(name.endswith("_cycle") for name in result.terms)

    whole = make_config()
    slow_networks = make_networks(whole, torch.float64)
    slow = SlowStep(slow_networks, make_bank(whole, torch.float64), make_batch([0, 3], torch.float64), whole)
    slow_networks.encoder.train()
    x_rec, x_nv, _ = slow.fakes()
    goal = slow.real.code.detach()
    expected = 5 * (x_rec - slow.batch.image).abs().mean() + 5 * (slow.novel.code - goal).abs().mean()
    for fake in (x_rec, x_nv):  # after D's update, as the step has it
        expected = expected + sum(2 * (s - 1).square().mean() for s in networks.discriminator(fake))
    expected = expected + slow.contrast()
    torch.testing.assert_close(result.terms["generator_total"], expected.detach(), rtol=1e-8, atol=0)


def test_a_discriminator_without_a_loss_stays() -> None:
    config = make_config(*(f"losses.discriminator_{fake}=0" for fake in ("reconstruction", "novel", "cycle")))
    networks = make_networks(config)
    before = snapshot(networks)
    optimisers = build_optimisers(networks, config.optim)
    joint_step(networks, optimisers, make_bank(config), make_batch([0, 3]), config, step=0)
    assert changed(networks, before) == {"encoder", "structure_encoder", "generator"}


@pytest.mark.parametrize("term", ["discriminator_novel", "image_cycle"])
def test_a_term_that_is_not_finite_stops_before_its_update(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    networks = make_networks(config)
    name = "discriminator_terms" if term.startswith("discriminator") else "reconstruction_terms"
    function: Callable[..., dict[str, torch.Tensor]] = getattr(step_module, name)
    monkeypatch.setattr(step_module, name, lambda *given: function(*given) | {term: torch.tensor(float("nan"))})
    bank = make_bank(config)
    rows, before = bank.rows.clone(), snapshot(networks)
    with pytest.raises(NonFiniteLossError, match=rf"{term} is not finite at step 7; the batch: rows 0, 3") as caught:
        joint_step(networks, build_optimisers(networks, config.optim), bank, make_batch([0, 3]), config, step=7)
    assert str(caught.value.naming(["a.jpg", "b.jpg"])).startswith(
        f"loss term {term} is not finite at step 7; the batch: files a.jpg, b.jpg; look at"
    )
    assert torch.equal(bank.rows, rows)
    trained = {"encoder", "structure_encoder", "generator"} | ({"discriminator"} if "discrim" in term else set())
    for part, module in networks.named():
        if part in trained:
            assert all(torch.equal(p, before[part][key]) for key, p in module.named_parameters())


def test_bf16_comes_near_float32_and_losses_stay_in_float32() -> None:
    terms = {}
    for dtype in ("float32", "bf16"):
        config = make_config(f"precision.dtype={dtype}")
        networks = make_networks(config)
        optimisers = build_optimisers(networks, config.optim)
        terms[dtype] = generator_step(networks, optimisers, make_batch([0, 3]), config, step=0).terms
    for name, value in terms["float32"].items():
        assert terms["bf16"][name].dtype == torch.float32
        torch.testing.assert_close(terms["bf16"][name], value, rtol=5e-2, atol=5e-2)


def penalised_step(step: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> tuple[torch.Tensor, list[str]]:
    """D's gradient in one step of the discriminator, and which of D's passes it took."""
    config = make_config(*overrides)
    networks, batch = make_networks(config, torch.float64), make_batch([0, 3], torch.float64)
    plan, passes = StepPlan.of(config.losses, contrasts=False), []
    D = networks.discriminator
    for name in ("forward", "with_input_gradient"):
        call = getattr(D, name)
        monkeypatch.setattr(D, name, lambda x, call=call, name=name: (passes.append(name), call(x))[1])
    outputs = translate(networks, batch, config, plan)
    optimisers = build_optimisers(networks, config.optim)
    step_module.update_discriminator(networks, optimisers, outputs, batch, config, plan, step)
    return flat_gradient(D), passes


def test_a_lazy_penalty_weighs_more_on_its_steps_and_is_not_computed_on_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lazy, none = "discriminator.penalty_every=4", "losses.gradient_penalty=0"
    published, passes = penalised_step(7, monkeypatch)
    assert passes == ["with_input_gradient", "forward"]
    bare, passes = penalised_step(7, monkeypatch, none)
    assert passes == ["forward", "forward"] and (published - bare).norm() > 0
    for step in (7, 10):
        skipped, passes = penalised_step(step, monkeypatch, lazy)
        assert passes == ["forward", "forward"]
        torch.testing.assert_close(skipped, bare, rtol=1e-9, atol=1e-15)
    due, passes = penalised_step(8, monkeypatch, lazy)
    assert passes == ["with_input_gradient", "forward"]
    torch.testing.assert_close(due - bare, 4 * (published - bare), rtol=1e-6, atol=1e-12)


def test_photos_that_were_seen_are_not_encoded_again_and_the_step_is_the_same() -> None:
    config = make_config()
    results, passes = [], []
    for remembers in (True, False):
        networks, seen = make_networks(config), SeenPhotos(12) if remembers else None
        domains: list[str] = []
        networks.encoder.register_forward_pre_hook(
            lambda _, given, domains=domains: domains.append(given[1] if len(given) > 1 else "real")
        )
        optimisers = build_optimisers(networks, config.optim)
        for step, rows in enumerate(([0, 3], [5, 3], [7, 10], [3, 0], [5, 10], [10, 11])):
            terms = generator_step(networks, optimisers, make_batch(rows), config, step, seen).terms
        results.append((snapshot(networks), terms))
        passes.append(domains.count("real"))
    assert passes == [4, 6]  # [3, 0] and [5, 10]: all rows known
    (networks, terms), (wanted, wanted_terms) = results
    assert {name: float(value) for name, value in terms.items()} == {n: float(v) for n, v in wanted_terms.items()}
    for part, state in networks.items():
        assert all(torch.equal(value, wanted[part][key]) for key, value in state.items()), part


def test_photos_of_too_large_a_set_are_encoded_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    output = EncoderOutput(torch.randn(2, 32), torch.randn(2, 8))
    for room, kept in ((12 * 4 * 40, True), (12 * 4 * 40 - 1, False)):
        monkeypatch.setattr(seen_photos, "LARGEST", room)
        seen = SeenPhotos(12)
        seen.keep(torch.tensor([0, 3]), output)
        assert (seen.of(torch.tensor([3, 0])) is not None) == kept


def test_two_workers_with_half_a_batch_are_one_with_all_of_it(tmp_path: Path) -> None:
    """In a step with a gradient penalty and in one without."""
    run_workers(2, _half_of_the_batch, tmp_path)


def _half_of_the_batch(rank: int, join: Callable[[], None]) -> None:
    def run(index: list[int]) -> tuple[Networks, MemoryBank]:
        config = make_config("optim.encoder_lr=0.01", "discriminator.penalty_every=2")
        networks, bank = make_networks(config, torch.float64), make_bank(config, torch.float64)
        plain = build_optimisers(networks, config.optim)
        # Adam's first steps are the signs of gradients, in which rounding shows; plain descent shows the gradients.
        optimisers = replace(
            plain,
            generator=torch.optim.SGD(plain.generator.param_groups[0]["params"], lr=0.01),
            discriminator=torch.optim.SGD(plain.discriminator.param_groups[0]["params"], lr=0.01),
        )
        # Batch norm by running statistics: those of the batch would be of another batch.
        networks.encoder.train = lambda mode=True: nn.Module.train(networks.encoder, False)  # type: ignore[method-assign]
        networks.encoder.train()
        for step in range(2):
            joint_step(networks, optimisers, bank, make_batch(index, torch.float64), config, step)
        return networks, bank

    whole, whole_bank = run([0, 3, 5, 10])
    join()
    half, half_bank = run([[0, 3], [5, 10]][rank])
    torch.testing.assert_close(half_bank.rows, whole_bank.rows, rtol=0, atol=1e-8)
    for (name, ours), (_, theirs), (_, start) in zip(half.named(), whole.named(), start_networks(), strict=True):
        moved, expected = movement(ours, start), movement(theirs, start)
        assert expected.norm() > 0
        assert (moved - expected).norm() < 1e-8 * expected.norm(), name


def start_networks() -> Iterator[tuple[str, nn.Module]]:
    return make_networks(make_config(), torch.float64).named()


def movement(module: nn.Module, start: nn.Module) -> torch.Tensor:
    pairs = zip(module.parameters(), start.parameters(), strict=True)
    return torch.cat([(after - before).flatten() for after, before in pairs]).detach()
