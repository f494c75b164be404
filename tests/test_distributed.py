"""Several workers compute what one does: collectives, contrast losses and their gradients, banks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from worker_group import run_workers

import jgcl_ray.distributed
from jgcl_ray.config import CentroidMemoryConfig, MemoryBankConfig
from jgcl_ray.distributed import (
    all_reduce_gradients,
    broadcast_module,
    gather_rows,
    gather_rows_with_gradient,
    mean_over_workers,
    rank,
    row_counts,
    sum_over_workers,
    world_size,
)
from jgcl_ray.losses.cluster_contrast import cluster_contrast
from jgcl_ray.losses.view_contrast import view_contrast
from jgcl_ray.memories.centroids import CentroidMemory
from jgcl_ray.memories.instances import build_memory_bank

WIDTH = 6
# A cluster of one, outliers, clusters of several sizes: 23 rows divide by no number of workers.
LABELS = torch.tensor([0, 0, 0, 1, 1, -1, 2, -1, 1, 0, 3, 1, 4, 4, 4, 4, 2, 2, -1, 5, 5, 0, 3])


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_alone_every_collective_is_the_identity() -> None:
    x = random(3, 2, seed=0).requires_grad_()
    assert (world_size(), rank()) == (1, 0)
    assert torch.equal(gather_rows(x), x)
    assert not gather_rows(x).requires_grad
    assert gather_rows_with_gradient(x) is x
    assert row_counts(x) == [3]
    assert torch.equal(sum_over_workers(x), x)
    assert mean_over_workers({"loss": torch.tensor(2.0), "step": 3}) == {"loss": 2.0, "step": 3.0}
    assert mean_over_workers({}) == {}
    layer = torch.nn.Linear(2, 1)
    layer(x).sum().backward()
    before = [parameter.grad.clone() for parameter in layer.parameters()]
    all_reduce_gradients(layer.parameters())
    broadcast_module(layer)
    assert all(torch.equal(p.grad, g) for p, g in zip(layer.parameters(), before, strict=True))


def check_gradients(me: int) -> None:
    """A gradient on all workers (channels_last), on one, on none, not trained, of another type."""
    shapes = {"everywhere": (4, 3, 2, 2), "on one": (5,), "nowhere": (2,), "frozen": (2,)}
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    parameters["double"] = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    parameters["frozen"].requires_grad_(False)
    parameters["everywhere"].grad = random(4, 3, 2, 2, seed=me).to(memory_format=torch.channels_last)
    parameters["double"].grad = random(3, seed=me).double()
    if me == 2:
        parameters["on one"].grad = torch.full((5,), 6.0)
    all_reduce_gradients(parameters.values())
    mean = sum(random(4, 3, 2, 2, seed=r) for r in range(3)) / 3
    torch.testing.assert_close(parameters["everywhere"].grad, mean)
    torch.testing.assert_close(parameters["double"].grad, sum(random(3, seed=r).double() for r in range(3)) / 3)
    assert parameters["on one"].grad.tolist() == [2.0] * 5
    assert parameters["nowhere"].grad is None
    assert parameters["frozen"].grad is None


def check_collectives(me: int, join: Callable[[], None]) -> None:
    join()
    workers = 3
    assert (world_size(), rank()) == (workers, me)

    # Workers hold 2, 0 and 5 rows, of types that gloo can and cannot add.
    counts = [2, 0, 5]
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.int16, torch.bool):
        for shape in ((), (3,), (2, 4)):
            parts = [(10 * random(count, *shape, seed=r)).to(dtype) for r, count in enumerate(counts)]
            gathered = gather_rows(parts[me])
            assert gathered.dtype == dtype
            assert torch.equal(gathered, torch.cat(parts))
    assert row_counts(parts[me]) == counts
    transposed = [random(4, count, seed=r).T for r, count in enumerate(counts)]
    assert torch.equal(gather_rows(transposed[me]), torch.cat(transposed))
    assert torch.equal(gather_rows(torch.zeros(0, 3)), torch.zeros(0, 3))

    # Every worker weighs all rows its own way; each row's gradient is the sum of the weights.
    x = random(counts[me], 3, seed=me).requires_grad_()
    weights = [random(sum(counts), 3, seed=9 + r) for r in range(workers)]
    (gather_rows_with_gradient(x) * weights[me]).sum().backward()
    torch.testing.assert_close(x.grad, sum(weights).split(counts)[me])

    for bucket_bytes in (64, jgcl_ray.distributed.BUCKET_BYTES):
        jgcl_ray.distributed.BUCKET_BYTES = bucket_bytes
        check_gradients(me)

    def network(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        made = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(
            memory_format=torch.channels_last
        )
        made(torch.randn(2, 3, 5, 5))
        return made

    mine = network(me)
    broadcast_module(mine, source=1)
    for tensor, expected in zip(mine.state_dict().values(), network(1).state_dict().values(), strict=True):
        assert torch.equal(tensor, expected)

    scalars = {"b": torch.tensor(float(me)), "a": 3 * me} if me else {"a": 0, "b": 0.0}
    assert mean_over_workers(scalars) == {"a": 3.0, "b": 1.0}


def test_collectives_of_three_workers(tmp_path: Path) -> None:
    run_workers(3, check_collectives, tmp_path)


@dataclass(frozen=True)
class Trained:
    losses: list[dict[str, float]]  # of each step
    gradients: list[torch.Tensor]  # of each step, all parameters joined
    rows: torch.Tensor  # of the memory afterwards


def train_views(me: int, workers: int, formulation: str, config: MemoryBankConfig) -> Trained:
    """Four steps of a linear encoder on this worker's share of 6 images, in float64."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(5, WIDTH, dtype=torch.float64)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    bank = build_memory_bank(random(len(LABELS), WIDTH, seed=1).double(), LABELS, config)
    losses, gradients = [], []
    for step in range(4):
        share = slice(6 * me // workers, 6 * (me + 1) // workers)
        # Row 5, an outlier, and another row come twice: within a worker, and on two.
        index = torch.tensor([5, 3 + step, 5, 5, 3 + step, 20])[share]
        image, novel = (random(6, 5, seed=10 * step + part)[share].double() for part in range(2))
        f, f_novel = encoder(image), encoder(novel)
        draw = bank.draw(index, seed=3, step=step, formulation=formulation)
        terms = view_contrast(f, f_novel, bank, draw, 0.1, formulation)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        all_reduce_gradients(encoder.parameters())
        optimiser.step()
        bank.update(index, f)
        losses.append(mean_over_workers(terms))
        gradients.append(torch.cat([p.grad.flatten().clone() for p in encoder.parameters()]))
    return Trained(losses, gradients, bank.state_dict()["rows"])


def train_clusters(me: int, workers: int, config: CentroidMemoryConfig) -> Trained:
    """Four steps of a linear encoder on this worker's share of 8 images, outliers among them."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(5, WIDTH)
    memory = CentroidMemory(random(len(LABELS), WIDTH, seed=1), LABELS, config)
    losses, gradients = [], []
    for step in range(4):
        share = slice(8 * me // workers, 8 * (me + 1) // workers)
        labels = torch.tensor([0, 1, 0, 0, -1, 1, step, 0])[share]
        f = encoder(random(8, 5, seed=step)[share])
        loss = cluster_contrast(f, labels, memory, 0.1)
        encoder.zero_grad()
        loss.backward()
        all_reduce_gradients(encoder.parameters())
        memory.update(labels, f)
        losses.append(mean_over_workers({"cluster_contrast": loss}))
        gradients.append(torch.cat([p.grad.flatten().clone() for p in encoder.parameters()]))
    return Trained(losses, gradients, memory.rows)


def check_training(me: int, join: Callable[[], None]) -> None:
    views = [
        (formulation, negatives, train_views(0, 1, formulation, MemoryBankConfig(negatives=negatives)))
        for formulation in ("paper", "official")
        for negatives in (4, 8192)
    ]
    clusters = [
        (config, train_clusters(0, 1, config))
        for config in (CentroidMemoryConfig(query=query) for query in ("each", "hardest", "mean"))
    ]
    join()
    for formulation, negatives, expected in views:
        for sharded in (False, True):
            config = MemoryBankConfig(negatives=negatives, sharded=sharded)
            check_same(train_views(me, 2, formulation, config), expected, tolerance=1e-12)
    for config, expected in clusters:
        check_same(train_clusters(me, 2, config), expected, tolerance=1e-5)


def check_same(found: Trained, expected: Trained, tolerance: float) -> None:
    for ours, theirs in zip(found.losses, expected.losses, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    torch.testing.assert_close(found.gradients, expected.gradients, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.rows, expected.rows, rtol=tolerance, atol=tolerance)
    for theirs in gather_rows(found.rows[None]):
        assert torch.equal(theirs, found.rows)


def test_two_workers_with_half_a_batch_equal_one(tmp_path: Path) -> None:
    run_workers(2, check_training, tmp_path)


def check_more_workers_than_rows(me: int, join: Callable[[], None]) -> None:
    features, anchors = random(2, WIDTH, seed=0), random(4, WIDTH, seed=1)
    index = torch.tensor([1, 0, 1, 1])

    def terms(share: slice, sharded: bool, negatives: int, labels: list[int]) -> list[torch.Tensor]:
        config = MemoryBankConfig(sharded=sharded, negatives=negatives)
        bank = build_memory_bank(features, torch.tensor(labels), config)
        f = anchors[share].clone().requires_grad_()
        draw = bank.draw(index[share], seed=0, step=0)
        losses = view_contrast(f, f.flip(1), bank, draw, 0.1)
        (sum(losses.values()) * len(f)).backward()
        bank.update(index[share], f)
        return [
            *(torch.as_tensor(loss.item() * len(f)) for loss in losses.values()),
            f.grad,
            bank.state_dict()["rows"],
        ]

    cases = [(1, [0, 1]), (8192, [0, -1]), (1, [0, 0])]
    expected = [terms(slice(0, 4), False, *case) for case in cases]
    join()
    share = [slice(0, 1), slice(1, 3), slice(3, 4)][me]
    for case, (*losses, gradient, rows) in zip(cases, expected, strict=True):
        *our_losses, our_gradient, our_rows = terms(share, True, *case)
        torch.testing.assert_close([sum_over_workers(loss) for loss in our_losses], losses)
        torch.testing.assert_close(our_gradient, gradient[share])
        torch.testing.assert_close(our_rows, rows)


def test_a_bank_is_sharded_over_more_workers_than_it_has_rows(tmp_path: Path) -> None:
    run_workers(3, check_more_workers_than_rows, tmp_path)
