"""The identity encoder: shapes, the layout of the code, heads, backbones, statistics of two domains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from worker_group import run_workers

from jgcl_ray.config import EncoderConfig
from jgcl_ray.distributed import average_buffers, sum_over_workers
from jgcl_ray.models.batch_norm import DomainBatchNorm, group_statistics, synchronise_statistics
from jgcl_ray.models.encoder import GeneralisedMean, IdentityEncoder


def make_encoder(**fields: Any) -> IdentityEncoder:
    torch.manual_seed(0)
    return IdentityEncoder(EncoderConfig(**({"weights": "random", "backbone": "resnet18"} | fields)))


def test_default_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        encoder = IdentityEncoder(EncoderConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 24_558_144
    assert (encoder.code_width, encoder.embedding_width) == (8192, 512)


@pytest.mark.parametrize(
    ("fields", "code", "embedding"),
    [
        ({"embedding": 16}, 2048, 16),
        ({"head": "pool", "backbone": "resnet34"}, 2048, 512),
        ({"head": "pool", "backbone": "resnet50"}, 8192, 2048),
        ({"backbone": "resnet50_ibn_a", "pooling": "gem"}, 8192, 512),
    ],
)
def test_code_and_embedding_have_the_widths_of_backbone_and_head(fields: Any, code: int, embedding: int) -> None:
    encoder = make_encoder(**fields)
    out = encoder(torch.randn(2, 3, 64, 32))
    assert out.code.shape == (2, code) == (2, encoder.code_width)
    assert out.embedding.shape == (2, embedding) == (2, encoder.embedding_width)


def test_last_stage_keeps_its_size_and_the_code_is_channel_first() -> None:
    encoder = make_encoder().eval()
    image = torch.randn(2, 3, 128, 64)
    last = encoder.backbone(image, "real")
    assert last.shape == (2, 512, 8, 4)
    code = encoder(image).code
    for channel, cell in ((0, 0), (3, 2), (511, 3)):
        torch.testing.assert_close(
            code[:, 4 * channel + cell], last[:, channel, 2 * cell : 2 * cell + 2].mean((1, 2))
        )


def test_embedding_is_the_normed_projection_of_the_pooled_map() -> None:
    encoder = make_encoder(embedding=8).eval()
    encoder.embed_norm.running_mean.normal_()
    image = torch.randn(2, 3, 64, 32)
    pooled = encoder.backbone(image, "real").mean((2, 3))
    normal = (encoder.embed(pooled) - encoder.embed_norm.running_mean) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(encoder(image).embedding, normal, rtol=1e-4, atol=1e-5)


def test_generalised_mean_is_the_mean_for_power_one_and_near_the_maximum_for_a_large_one() -> None:
    pool, x = GeneralisedMean(), torch.rand(2, 3, 4, 5) + 0.1
    torch.testing.assert_close(pool(x)[0, 0, 0, 0], x[0, 0].pow(3).mean().pow(1 / 3))
    pool.power.data.fill_(1.0)
    torch.testing.assert_close(pool(x), x.mean((2, 3), keepdim=True))
    pool.power.data.fill_(60.0)
    torch.testing.assert_close(pool(x), x.amax((2, 3), keepdim=True), rtol=0.1, atol=0)


def test_generalised_mean_learns_its_power() -> None:
    encoder = make_encoder(pooling="gem", embedding=8).train()
    encoder(torch.randn(4, 3, 64, 32)).embedding.square().sum(0)[0].backward()
    assert "pool.power" in dict(encoder.named_parameters())
    assert encoder.pool.power.grad is not None and encoder.pool.power.grad.abs() > 0


def test_generalised_mean_has_the_gradient_of_its_formula() -> None:
    pool, x = GeneralisedMean(), torch.rand(2, 3, 4, 5) + 0.1
    slope, step = torch.randn(2, 3, 1, 1), 1e-3
    (pool(x) * slope).sum().backward()

    def value(power: float) -> torch.Tensor:
        return (x.double().pow(power).mean((2, 3), keepdim=True).pow(1 / power) * slope).sum()

    numeric = (value(3 + step) - value(3 - step)) / (2 * step)
    torch.testing.assert_close(pool.power.grad, numeric.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("backbone", "last"), [("resnet18_ibn_a", 1), ("resnet34_ibn_a", 5), ("resnet50_ibn_a", 5)])
def test_ibn_a_norms_half_of_the_first_norm_by_instance_in_three_stages(backbone: str, last: int) -> None:
    with torch.device("meta"):
        names = set(IdentityEncoder(EncoderConfig(backbone=backbone)).backbone.state_dict())
    assert {"layer1.0.bn1.IN.weight", f"layer3.{last}.bn1.BN.running_mean", "layer4.0.bn1.weight"} <= names
    assert not any("layer4" in name and "IN" in name for name in names)


def test_generated_images_leave_the_statistics_of_real_ones_alone() -> None:
    encoder = make_encoder(separate_batch_norm=True).train()
    image = torch.randn(4, 3, 64, 32) + 2
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(image, "generated")
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("generated_" in name for name in changed)

    encoder.eval()
    assert not torch.equal(encoder(image, "generated").embedding, encoder(image, "real").embedding)


def test_without_separate_statistics_the_domain_makes_no_difference() -> None:
    encoder = make_encoder(separate_batch_norm=False).train()
    image = torch.randn(4, 3, 64, 32) + 2
    encoder(image, "generated")
    assert encoder.backbone.bn1.running_mean.abs().sum() > 0
    encoder.eval()
    assert torch.equal(encoder(image, "generated").code, encoder(image, "real").code)


def test_synchronised_batch_norm_is_that_of_all_workers_together(tmp_path: Path) -> None:
    run_workers(2, _uneven_shares, tmp_path)


def _uneven_shares(rank: int, join: Callable[[], None]) -> None:
    """Five rows in all, two and three a worker: outputs, gradients and running statistics are torch's of the five."""
    x = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(2)).mul(3).add(1)
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))

    def run(norm: DomainBatchNorm, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        part = x[rows].clone().requires_grad_()
        out = norm(part, "real")
        (out * slope[rows]).sum().backward()
        return out.detach(), part.grad

    plain, synchronised = DomainBatchNorm(4, False), DomainBatchNorm(4, False)
    expected = run(plain, slice(None))
    synchronise_statistics(synchronised)
    join()
    rows = [slice(0, 2), slice(2, 5)][rank]
    for ours, theirs in zip(run(synchronised, rows), expected, strict=True):
        torch.testing.assert_close(ours, theirs[rows], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(synchronised.running_mean, plain.running_mean)
    torch.testing.assert_close(synchronised.running_var, plain.running_var)


def test_synchronised_encoder_does_not_see_how_its_batch_is_shared(tmp_path: Path) -> None:
    run_workers(2, _shares_of_an_encoder, tmp_path)


def _shares_of_an_encoder(rank: int, join: Callable[[], None]) -> None:
    """In float64: small batches make batch norm so steep that float32 leaves two digits of a gradient."""
    x = torch.randn(6, 3, 48, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slope = torch.randn(6, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def run(rows: slice) -> IdentityEncoder:
        encoder = make_encoder(embedding=16).double()
        synchronise_statistics(encoder)
        out = encoder.train()(x[rows])
        ((out.embedding * slope[rows]).sum() + out.code.square().mean(1).sum()).backward()
        return encoder

    whole = run(slice(None))
    join()
    half = run([slice(0, 2), slice(2, 6)][rank])
    for (name, ours), (_, theirs) in zip(half.named_parameters(), whole.named_parameters(), strict=True):
        total = sum_over_workers(ours.grad)
        assert (total - theirs.grad).norm() <= 1e-8 * theirs.grad.norm() + 1e-8, name
    for (name, ours), (_, theirs) in zip(half.named_buffers(), whole.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8, msg=name)


def test_groups_are_normalised_each_by_itself() -> None:
    x = torch.randn(6, 4, 3, 2, generator=torch.Generator().manual_seed(2)).mul(3).add(1)
    norm = DomainBatchNorm(4, separate=True).train()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    group_statistics(norm, 2)
    means, variances, expected = [], [], []
    for group in (x[0:2], x[2:4], x[4:6]):
        mean, var = group.mean((0, 2, 3), keepdim=True), group.var((0, 2, 3), correction=0, keepdim=True)
        scaled = norm.weight.view(1, -1, 1, 1) * (group - mean) / (var + 1e-5).sqrt() + norm.bias.view(1, -1, 1, 1)
        expected.append(scaled)
        means.append(mean.flatten())
        variances.append(group.var((0, 2, 3)))
    torch.testing.assert_close(norm(x, "generated"), torch.cat(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.generated_mean, 0.1 * torch.stack(means).mean(0))
    torch.testing.assert_close(norm.generated_var, 0.9 + 0.1 * torch.stack(variances).mean(0))
    assert norm.running_mean.count_nonzero() == 0 and norm.num_batches_tracked == 0
    norm(x, "real")
    assert norm.num_batches_tracked == 1
    with pytest.raises(ValueError, match="5 images does not divide into batch-norm groups of 2"):
        norm(x[:5], "real")
    norm.eval()
    assert norm(x[:5], "real").shape == (5, 4, 3, 2)


def test_groups_make_an_encoder_blind_to_the_number_of_workers(tmp_path: Path) -> None:
    run_workers(2, _groups_of_an_encoder, tmp_path)


def _groups_of_an_encoder(rank: int, join: Callable[[], None]) -> None:
    """32 images in groups of 8: on one worker, or 16 on each of two. In float64, as above."""
    x = torch.randn(32, 3, 32, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slope = torch.randn(32, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def run(rows: slice, group: int | None = 8) -> IdentityEncoder:
        encoder = make_encoder(embedding=16, batch_norm_group=group).double()
        out = encoder.train()(x[rows])
        ((out.embedding * slope[rows]).sum() + out.code.square().mean(1).sum()).backward()
        return encoder

    whole, ungrouped = run(slice(None)), run(slice(None), None)
    gradient = whole.backbone.conv1.weight.grad
    assert (gradient - ungrouped.backbone.conv1.weight.grad).norm() > 0.01 * gradient.norm()
    join()
    half = run([slice(0, 16), slice(16, 32)][rank])
    average_buffers(half)
    for (name, ours), (_, theirs) in zip(half.named_parameters(), whole.named_parameters(), strict=True):
        total = sum_over_workers(ours.grad)
        assert (total - theirs.grad).norm() <= 1e-8 * theirs.grad.norm() + 1e-8, name
    for (name, ours), (_, theirs) in zip(half.named_buffers(), whole.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8, msg=name)
