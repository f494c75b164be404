"""The memory bank against Python loops: who is drawn, how often, and what an update leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from torch.utils._python_dispatch import TorchDispatchMode

from jgcl_ray.config import CentroidMemoryConfig, MemoryBankConfig
from jgcl_ray.errors import UserError
from jgcl_ray.losses.view_contrast import view_contrast
from jgcl_ray.memories.centroids import CentroidMemory
from jgcl_ray.memories.instances import ContrastDraw, MemoryBank, ShardedMemoryBank, build_memory_bank

LABELS = {
    "clusters and outliers": [0, 0, 0, 1, 1, -1, 2, -1, 1, 0, 3, 1],
    "one cluster": [0] * 12,
    "all outliers": [-1] * 12,
    "clusters of one": list(range(12)),
    "one cluster and an outlier": [4] * 11 + [-1],
}


def make_bank(labels: list[int] | torch.Tensor, width: int = 8, **config: object) -> MemoryBank:
    labels = torch.as_tensor(labels)
    features = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(0))
    return MemoryBank(features, labels, MemoryBankConfig(**config))


def same_cluster(labels: list[int], i: int) -> set[int]:
    return {j for j in range(len(labels)) if j == i or (labels[i] >= 0 and labels[j] == labels[i])}


@pytest.mark.parametrize("formulation", ["paper", "official"])
@pytest.mark.parametrize("negatives", [1, 3, 11, 12, 8192])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_draws_only_rows_that_the_method_allows(labels: list[int], negatives: int, formulation: str) -> None:
    bank = make_bank(labels, negatives=negatives)
    index = torch.tensor([*range(12), 3, 3])
    for step in range(5):
        draw = bank.draw(index, seed=7, step=step, formulation=formulation)
        for b, i in enumerate(index.tolist()):
            cluster = same_cluster(labels, i)
            others = set(range(12)) - cluster
            drawn = set(draw.negatives[b].nonzero()[:, 0].tolist())
            assert drawn <= others
            assert len(drawn) == min(negatives, len(others))
            positive, of_image = int(draw.positive[b]), int(draw.positive_of_image[b])
            if formulation == "paper":
                assert positive == of_image
                assert positive in (cluster - {i} or {i})
            else:
                assert {positive, of_image} <= cluster


def chi_square_p(counts: np.ndarray, draws: int, chosen: int) -> float:
    """p of how often each of n items came, if `chosen` are drawn without replacement, `draws` times, all alike."""
    n = len(counts)
    p = chosen / n
    statistic = ((counts - draws * p) ** 2 / (draws * p * (1 - p))).sum() * (n - 1) / n
    return float(chi2.sf(statistic, n - 1))


def test_negatives_are_uniform_over_rows_and_over_pairs_of_rows() -> None:
    labels = torch.arange(60) // 5
    bank = make_bank(labels, negatives=8)
    allowed = labels != 0
    steps = 6000
    drawn = torch.stack([bank.draw(torch.tensor([2, 4]), seed=1, step=s).negatives for s in range(steps)]).double()
    assert not drawn[:, :, ~allowed].any()
    for anchor in range(2):
        per_row = drawn[:, anchor, allowed]
        assert 1e-3 < chi_square_p(per_row.sum(0).numpy(), steps, 8) < 1 - 1e-3
    # How often two rows come together, the same row for two anchors, the same row in two steps running: as by chance.
    together = (drawn[:, 0].T @ drawn[:, 0])[allowed][:, allowed]
    pairs = together[torch.triu_indices(55, 55, 1).unbind()]
    by_chance = steps * (8 * 7) / (55 * 54)
    assert pairs.mean().item() == pytest.approx(by_chance)
    assert pairs.var().item() == pytest.approx(by_chance, rel=0.15)
    assert (drawn[:, 0] * drawn[:, 1]).sum(1).mean().item() == pytest.approx(8 * 8 / 55, rel=0.05)
    assert (drawn[1:, 0] * drawn[:-1, 0]).sum(1).mean().item() == pytest.approx(8 * 8 / 55, rel=0.05)


def test_negatives_are_uniform_over_the_anchors_of_one_step() -> None:
    bank = make_bank([0] * 400 + [1] * 600, negatives=30)
    drawn = bank.draw(torch.arange(400), seed=3, step=0).negatives[:, 400:]
    assert 1e-3 < chi_square_p(drawn.sum(0).double().numpy(), 400, 30) < 1 - 1e-3


@pytest.mark.parametrize(("formulation", "choices"), [("paper", 4), ("official", 5)])
def test_positives_are_uniform_over_the_cluster(formulation: str, choices: int) -> None:
    bank = make_bank([3, 0, 3, 1, 3, -1, 3, 3, 0])
    steps = 4000
    draws = [bank.draw(torch.tensor([4]), seed=2, step=s, formulation=formulation) for s in range(steps)]
    of_image = torch.cat([draw.positive_of_image for draw in draws])
    positive = torch.cat([draw.positive for draw in draws])
    members = [i for i in (0, 2, 4, 6, 7) if formulation == "official" or i != 4]
    table = torch.zeros(9, 9, dtype=torch.float64)
    table.index_put_((positive, of_image), torch.ones(steps, dtype=torch.float64), accumulate=True)
    assert 1e-3 < chi_square_p(table.sum(1)[members].numpy(), steps, 1) < 1 - 1e-3
    if formulation == "official":
        assert 1e-3 < chi_square_p(table[members][:, members].reshape(-1).numpy(), steps, 1) < 1 - 1e-3
    assert len(members) == choices


def test_a_draw_depends_on_seed_step_and_anchor_alone() -> None:
    bank = make_bank([i // 3 for i in range(30)], negatives=5)
    index = torch.tensor([4, 28, 0, 17, 9, 4])
    whole = bank.draw(index, seed=1, step=5)
    halves = [bank.draw(half, seed=1, step=5) for half in index.split(3)]
    for name in ("positive", "positive_of_image", "negatives"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(half, name) for half in halves]))
    assert torch.equal(whole.negatives[0], whole.negatives[5])
    for seed, step in ((2, 5), (1, 6)):
        assert not torch.equal(bank.draw(index, seed=seed, step=step).negatives, whole.negatives)


def test_update_is_the_sequence_of_updates() -> None:
    bank = make_bank(LABELS["clusters and outliers"], momentum=0.2)
    index = torch.tensor([3, 0, 3, 5, 3, 0])
    features = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)) * 20
    expected = bank.rows.clone()
    for i, feature in zip(index.tolist(), features, strict=True):
        expected[i] = F.normalize(0.2 * expected[i] + 0.8 * F.normalize(feature, dim=0), dim=0)
    untouched = [1, 2, 4, *range(6, 12)]
    before = bank.rows[untouched].clone()
    bank.update(index, features)
    torch.testing.assert_close(bank.rows, expected)
    assert torch.equal(bank.rows[untouched], before)
    bank.update(index[:0], features[:0])
    torch.testing.assert_close(bank.rows, expected)
    for outside in (-1, 12):
        with pytest.raises(IndexError, match=str(outside)):
            bank.update(torch.tensor([0, outside]), features[:2])


def test_half_precision_features_are_kept_in_float32() -> None:
    bank = make_bank([0, 0, 1])
    bank.update(torch.tensor([1]), torch.randn(1, 8).bfloat16())
    assert bank.rows.dtype == torch.float32
    assert MemoryBank(torch.ones(2, 3).half(), torch.zeros(2, dtype=torch.int64), MemoryBankConfig()).rows.dtype == (
        torch.float32
    )


def test_rows_are_a_normalised_copy() -> None:
    features = torch.randn(4, 3)
    kept = features.clone()
    bank = MemoryBank(features, torch.tensor([0, 0, 1, -1]), MemoryBankConfig())
    torch.testing.assert_close(bank.rows, F.normalize(kept, dim=1))
    bank.update(torch.arange(4), torch.randn(4, 3))
    assert torch.equal(features, kept)


def test_writing_the_bank_before_the_backward_pass_is_an_error() -> None:
    bank = make_bank([0, 0, 1, 1])
    f = torch.randn(2, 8, requires_grad=True)
    index = torch.tensor([0, 2])
    terms = view_contrast(f, f * 2, bank, bank.draw(index, seed=0, step=0), 0.04)
    bank.update(index, f)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sum(terms.values()).backward()


@pytest.mark.parametrize("sharded", [False, True])
def test_state_travels_bit_for_bit_and_a_foreign_one_is_refused(sharded: bool) -> None:
    bank = make_bank(LABELS["clusters and outliers"], sharded=sharded)
    bank.update(torch.tensor([2, 5]), torch.randn(2, 8))
    state = {name: tensor.clone() for name, tensor in bank.state_dict().items()}
    config = MemoryBankConfig(sharded=sharded, negatives=3)
    other = build_memory_bank(torch.randn(12, 8), torch.zeros(12, dtype=torch.int64), config)
    assert type(other) is (ShardedMemoryBank if sharded else MemoryBank)
    other.load_state_dict(state)
    assert torch.equal(other.rows, bank.rows)
    assert torch.equal(other.labels, bank.labels)
    index = torch.arange(12)
    draw = other.draw(index, seed=0, step=0)
    assert not (draw.negatives & (state["labels"] == state["labels"][:, None]) & (state["labels"] >= 0)).any()
    other.update(index, torch.randn(12, 8))
    assert torch.equal(state["rows"], bank.rows)
    with pytest.raises(UserError, match="12 rows of 8, this run 12 of 6"):
        build_memory_bank(torch.randn(12, 6), state["labels"], config).load_state_dict(state)


def test_refresh_takes_other_labels_and_refuses_what_cannot_be_a_bank() -> None:
    bank = make_bank([0, 0, 1, 1], negatives=8)
    bank.refresh(torch.randn(6, 8), torch.tensor([0, 1, 2, 2, 1, 0]))
    assert len(bank) == 6
    assert bank.draw(torch.tensor([0]), seed=0, step=0).positive.tolist() == [5]
    with pytest.raises(ValueError, match=r"\(6, 8\), \(5,\)"):
        bank.refresh(torch.randn(6, 8), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="not finite"):
        bank.refresh(torch.full((6, 8), float("nan")), torch.zeros(6, dtype=torch.int64))


class LargestNewTensor(TorchDispatchMode):
    """Elements of the largest tensor that an operation makes; views of older ones do not count."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        for x in output if isinstance(output, tuple | list) else [output]:
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, x.numel())
        return output


@pytest.mark.parametrize("formulation", ["paper", "official"])
def test_a_step_copies_neither_the_bank_nor_the_negatives(formulation: str) -> None:
    rows, width, batch, negatives = 3000, 64, 8, 1000
    bank = make_bank(torch.arange(rows) // 10, width=width, negatives=negatives)
    index = torch.randint(rows, (batch,))
    f = torch.randn(2, batch, width, requires_grad=True)
    with LargestNewTensor() as largest:
        draw = bank.draw(index, seed=0, step=0, formulation=formulation)
        sum(view_contrast(*f, bank, draw, 0.04, formulation).values()).backward()
        bank.update(index, f[0])
    assert rows * batch <= largest.elements <= 2 * rows * batch < rows * width < batch * negatives * width


def make_centroids(query: str, momentum: float = 0.1) -> tuple[CentroidMemory, torch.Tensor, torch.Tensor]:
    features = torch.randn(10, 6, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 1, -1, 2, 2, 2, 0, 3, -1])
    config = CentroidMemoryConfig(query=query, momentum=momentum)
    return CentroidMemory(features * 5, labels, config), features, labels


def test_a_centroid_starts_as_the_mean_of_its_features() -> None:
    memory, features, labels = make_centroids("each")
    for k in range(4):
        mean = F.normalize(features, dim=1)[labels == k].mean(0)
        torch.testing.assert_close(memory.rows[k], mean / mean.norm())
    with pytest.raises(ValueError, match="2 is missing"):
        memory.refresh(torch.randn(3, 6), torch.tensor([0, 1, 3]))
    memory.refresh(torch.randn(3, 6), torch.tensor([-1, -1, -1]))
    assert len(memory) == 0
    memory.update(torch.tensor([-1]), torch.randn(1, 6))


@pytest.mark.parametrize("query", ["each", "hardest", "mean"])
def test_a_centroid_takes_its_query(query: str) -> None:
    memory, _, _ = make_centroids(query, momentum=0.3)
    labels = torch.tensor([2, 0, -1, 2, 2, 0, 1])
    features = torch.randn(7, 6, generator=torch.Generator().manual_seed(4))
    expected = memory.rows.clone()
    for k in range(4):
        mine = F.normalize(features[labels == k], dim=1)
        if not len(mine):
            continue
        if query == "hardest":
            mine = mine[[min(range(len(mine)), key=lambda j: float(mine[j] @ expected[k]))]]
        elif query == "mean":
            mine = mine.mean(0, keepdim=True)
        for q in mine:
            expected[k] = F.normalize(0.3 * expected[k] + 0.7 * q, dim=0)
    memory.update(labels, features * 3)
    torch.testing.assert_close(memory.rows, expected)
    other, _, _ = make_centroids(query)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.rows, memory.rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_what_a_cpu_draws() -> None:
    labels = torch.arange(5000) // 7
    cpu, gpu = make_bank(labels, negatives=900), make_bank(labels, negatives=900).to("cuda")
    index = torch.tensor([0, 77, 4999, 1234, 77])
    here, there = (bank.draw(index, seed=3, step=9, formulation="official") for bank in (cpu, gpu))
    for field in ContrastDraw.__dataclass_fields__:
        expected, found = getattr(here, field), getattr(there, field)
        assert torch.equal(found.cpu(), expected) if isinstance(expected, torch.Tensor) else found == expected
    features = torch.randn(5, 8)
    cpu.update(index, features)
    gpu.update(index.cuda(), features.cuda())
    torch.testing.assert_close(gpu.rows.cpu(), cpu.rows)
