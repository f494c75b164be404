"""One momentum row per training image, and draws of positives and negatives from them (GCL, arXiv 2012.09071, 3.2).

Letters: B anchors of this worker, N rows of the bank, D width. In a sharded bank this worker holds M of the N rows
and sees the A anchors of all workers; otherwise M = N and A = B.

Which rows are drawn is a hash of (seed, step, anchor's row, drawn row), computed where the bank lives: how many
workers share a batch or a bank makes no difference, nor does the kind of device. An anchor that occurs twice in a
step draws the same rows twice.

An outlier (label -1) is a cluster of its own: its positive is itself, its negatives are all other rows, outliers
included, and it may be a negative of every other row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
import torch.nn.functional as F

from jgcl_ray.config import Formulation, MemoryBankConfig
from jgcl_ray.distributed import (
    gather_rows,
    gather_rows_with_gradient,
    rank,
    row_counts,
    sum_over_workers,
    world_size,
)
from jgcl_ray.errors import UserError
from jgcl_ray.floats import at_least_float32

_IntOrTensor = TypeVar("_IntOrTensor", int, torch.Tensor)

# What random numbers are for is part of what is hashed.
_NEGATIVES, _POSITIVE, _POSITIVE_OF_IMAGE = range(3)
_WORD = 2**32 - 1


@dataclass(frozen=True)
class ContrastDraw:
    """The rows that one batch is contrasted with; made by a bank, for that bank."""

    index: torch.Tensor  # (B,) int64, row of each anchor
    positive: torch.Tensor  # (B,) int64, row v_p that L_vi and L_vi'' share
    positive_of_image: torch.Tensor  # (B,) int64, row v_p' of L_vi, `official`; equal to `positive` in `paper`
    negatives: torch.Tensor  # (A, M) bool, which rows are negatives of which anchor
    start: int  # place of this worker's first anchor among the A


class MemoryBank:
    """Rows (N, D), L2-normalised, and pseudo labels (N,), -1 for outliers; the same bits on every worker.

    The loss reads the bank (`negative_logsumexp`, `rows_of`); the step writes it (`update`), after the optimisers.
    """

    def __init__(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        config: MemoryBankConfig,
        device: torch.device | str | None = None,
    ) -> None:
        """See `refresh`; the bank lives on `device`, by default that of the features."""
        self.negatives, self.momentum = config.negatives, config.momentum
        self.device = torch.device(features.device if device is None else device)
        self.refresh(features, labels)

    def __len__(self) -> int:
        """N, of all shards."""
        return len(self.labels)

    def refresh(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Start anew from features (N, D), of any scale, and labels (N,) int64 of all training images.

        A copy is made in float32, or float64 where the features are. Raises ValueError for shapes that do not fit and
        for features that are not finite.
        """
        if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise ValueError(f"features (N, D) and labels (N,) expected: {(*features.shape,)}, {(*labels.shape,)}")
        rows = features[self._own_rows(len(features))].to(self.device)
        if not rows.isfinite().all():
            raise ValueError("features for the memory bank are not finite")
        self._set(F.normalize(at_least_float32(rows), dim=1), labels)

    def draw(self, index: torch.Tensor, *, seed: int, step: int, formulation: Formulation = "paper") -> ContrastDraw:
        """Positives and negatives of the anchors `index` (B,); the same numbers draw the same rows.

        Negatives: K rows of another label, uniformly without replacement, or all of them if there are fewer.
        Positives: uniform among the rows of the same label, in `paper` without the anchor where there is another.
        """
        index = index.to(self.device)
        paper = formulation == "paper"
        positive = self._draw_positive(index, seed, step, _POSITIVE, other=paper)
        of_image = positive if paper else self._draw_positive(index, seed, step, _POSITIVE_OF_IMAGE, other=False)
        return ContrastDraw(
            index=index,
            positive=positive,
            positive_of_image=of_image,
            negatives=self._draw_negatives(self._of_all_workers(index), seed, step),
            start=self._start_among_anchors(index),
        )

    def negative_logsumexp(self, anchors: torch.Tensor, draw: ContrastDraw, temperature: float) -> torch.Tensor:
        """log sum_k exp(anchor . v_k / temperature) over the negatives k of each anchor, differentiable.

        anchors (B, S, D): S features for each of the draw's B anchors -> (B, S). Without any negative: the lowest
        finite number, which a softplus turns into an exact 0 with no gradient.
        """
        return _masked_logsumexp(anchors, self.rows, draw.negatives, temperature)

    def rows_of(self, index: torch.Tensor) -> torch.Tensor:
        """Rows `index` (B,) of the whole bank: (B, D), no gradient."""
        return self.rows[index.to(self.device)]

    def update(self, index: torch.Tensor, features: torch.Tensor) -> None:
        """v_i <- normalise(a v_i + (1 - a) f_i), a the momentum, over the batches of all workers. A collective.

        index (B,) and features (B, D), of any scale, of the real images. A row that occurs several times takes its
        features one after the other, in the order of the workers and, within a worker, of the batch. Raises
        IndexError for an index outside 0 .. N-1.
        """
        index = gather_rows(index).to(self.device)
        if ((index < 0) | (index >= len(self))).any():
            raise IndexError(f"rows 0 .. {len(self) - 1} can be updated, not {index.tolist()}")
        features = F.normalize(gather_rows(features).to(self.device, self.rows.dtype), dim=1)
        here = self._own_rows(len(self))
        held = ((index >= here.start) & (index < here.stop)).nonzero()[:, 0]
        momentum_update(self.rows, index[held] - here.start, features[held], self.momentum)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """`rows` (N, D) and `labels` (N,) of the whole bank: its own tensors, not a copy.

        A sharded bank gathers its rows on every worker, on all of them at the same time.
        """
        return {"rows": self._of_all_workers(self.rows), "labels": self.labels}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over the rows bit for bit. Raises UserError where they are of another number or width."""
        ours, theirs = (len(self), self.rows.shape[1]), tuple(state["rows"].shape)
        if ours != theirs:
            raise UserError(
                f"the checkpoint's memory bank has {theirs[0]} rows of {theirs[1]}, this run {ours[0]} of {ours[1]}: "
                "resume with the data set and the encoder that it was made with"
            )
        rows = state["rows"][self._own_rows(len(self))]
        self._set(rows.to(self.device, self.rows.dtype, copy=True), state["labels"])

    def to(self, device: torch.device | str) -> Self:
        """Move the bank; returns it."""
        self.device = torch.device(device)
        self._set(self.rows.to(self.device), self.labels)
        return self

    def _set(self, rows: torch.Tensor, labels: torch.Tensor) -> None:
        self.rows = rows
        self.labels = labels.to(self.device, torch.int64, copy=True)
        alone = -1 - torch.arange(len(labels), device=self.device)
        # Rows sorted by group: the g-th group lies at first[g] .. first[g] + size[g] - 1 of `sorted_rows`.
        _, self._group, self._size = torch.where(self.labels < 0, alone, self.labels).unique(
            return_inverse=True, return_counts=True
        )
        self._first = self._size.cumsum(0) - self._size
        self._sorted_rows = self._group.argsort(stable=True)
        self._place = torch.empty_like(self._group)
        self._place[self._sorted_rows] = torch.arange(len(labels), device=self.device)

    def _draw_positive(self, index: torch.Tensor, seed: int, step: int, purpose: int, *, other: bool) -> torch.Tensor:
        """One of the rows of each anchor's group, counted in a circle from the anchor."""
        group = self._group[index]
        first, size = self._first[group], self._size[group]
        choices = (size - int(other)).clamp(min=1)
        ahead = int(other) + (_hash(seed, step, purpose, index) * choices >> 32)
        return self._sorted_rows[first + (self._place[index] - first + ahead) % size]

    def _draw_negatives(self, index: torch.Tensor, seed: int, step: int) -> torch.Tensor:
        """(A, M): the rows of another group, those with the K smallest keys if there are more than K."""
        here = self._own_rows(len(self))
        negatives = self._group[index, None] != self._group[here]
        if self.negatives < len(self):
            # For one anchor the hash is a bijection of the rows, so keys never tie and exactly K rows pass.
            rows = torch.arange(here.start, here.stop, device=self.device)
            keys = _mix(_mix(rows) ^ _hash(seed, step, _NEGATIVES, index)[:, None]).masked_fill_(~negatives, _WORD)
            negatives &= keys <= self._kth_smallest(keys, self.negatives)[:, None]
        return negatives

    # What a shard does otherwise: by default every worker holds all rows.

    def _own_rows(self, number: int) -> slice:
        return slice(0, number)

    def _of_all_workers(self, rows: torch.Tensor) -> torch.Tensor:
        return rows

    def _start_among_anchors(self, index: torch.Tensor) -> int:
        return 0

    def _kth_smallest(self, keys: torch.Tensor, k: int) -> torch.Tensor:
        return keys.kthvalue(k, dim=1).values


class ShardedMemoryBank(MemoryBank):
    """The same bank with N / W of its rows on each of W workers.

    `draw`, `rows_of`, `update`, `state_dict`, `negative_logsumexp` and its backward pass are collectives.
    """

    def negative_logsumexp(self, anchors: torch.Tensor, draw: ContrastDraw, temperature: float) -> torch.Tensor:
        """As `MemoryBank.negative_logsumexp`; the anchors of all workers meet each shard, the sums are combined."""
        everyone = gather_rows_with_gradient(anchors)
        partial = _masked_logsumexp(everyone, self.rows, draw.negatives, temperature)
        combined = gather_rows_with_gradient(partial[None]).logsumexp(0)
        return combined[draw.start : draw.start + len(anchors)]

    def rows_of(self, index: torch.Tensor) -> torch.Tensor:
        """As `MemoryBank.rows_of`, from the workers that hold the rows."""
        index = index.to(self.device)
        everyone, here = gather_rows(index), self._own_rows(len(self))
        held = (everyone >= here.start) & (everyone < here.stop)
        rows = self.rows.new_zeros(len(everyone), self.rows.shape[1])
        rows[held] = self.rows[everyone[held] - here.start]
        start = self._start_among_anchors(index)
        return sum_over_workers(rows)[start : start + len(index)]

    def _own_rows(self, number: int) -> slice:
        return slice(number * rank() // world_size(), number * (rank() + 1) // world_size())

    def _of_all_workers(self, rows: torch.Tensor) -> torch.Tensor:
        return gather_rows(rows)

    def _start_among_anchors(self, index: torch.Tensor) -> int:
        return sum(row_counts(index)[: rank()])

    def _kth_smallest(self, keys: torch.Tensor, k: int) -> torch.Tensor:
        candidates = keys.topk(min(k, keys.shape[1]), dim=1, largest=False, sorted=False).values
        return gather_rows(candidates.T).kthvalue(k, dim=0).values


def build_memory_bank(
    features: torch.Tensor,
    labels: torch.Tensor,
    config: MemoryBankConfig,
    device: torch.device | str | None = None,
) -> MemoryBank:
    """The bank that the configuration asks for, from features (N, D) and labels (N,) of all training images."""
    return (ShardedMemoryBank if config.sharded else MemoryBank)(features, labels, config, device)


def momentum_update(rows: torch.Tensor, index: torch.Tensor, features: torch.Tensor, momentum: float) -> None:
    """rows[i] <- normalise(a rows[i] + (1 - a) f) in place; a row that occurs again takes its f in the order given.

    rows (N, D), index (A,), features (A, D). One pass for each time that the most frequent row occurs.
    """
    occurrence = (index[:, None] == index).tril(-1).sum(1)
    for turn in range(int(occurrence.max()) + 1 if len(index) else 0):
        chosen = (occurrence == turn).nonzero()[:, 0]
        i = index[chosen]
        rows[i] = F.normalize(momentum * rows[i] + (1 - momentum) * features[chosen], dim=1)


def _masked_logsumexp(
    anchors: torch.Tensor, rows: torch.Tensor, mask: torch.Tensor, temperature: float
) -> torch.Tensor:
    """anchors (A, S, D), rows (M, D), mask (A, M) -> (A, S), in the rows' precision whatever autocast says."""
    with torch.autocast(anchors.device.type, enabled=False):
        logits = (anchors.to(rows.dtype) / temperature) @ rows.T
        return logits.masked_fill_(~mask[:, None], torch.finfo(logits.dtype).min).logsumexp(-1)


def _hash(seed: int, step: int, purpose: int, rows: torch.Tensor) -> torch.Tensor:
    """Uniform 32-bit numbers, one a row, as int64."""
    key = 0
    for number in (seed, step, purpose):
        key = _mix(key ^ (number & _WORD))
    return _mix(rows ^ key)


def _mix(x: _IntOrTensor) -> _IntOrTensor:
    """A bijection of 32-bit numbers in which every bit moves half of the result's (MurmurHash3, fmix32)."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B & _WORD
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & _WORD
    return x ^ (x >> 16)
