"""The k-reciprocal Jaccard distance as torch operations: for features that are on a GPU, the same on any device.

The definitions and the letters are those of distances.py. Work goes by blocks of rows: nothing of size
N x N is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from jgcl_ray.pseudo_labels._rows import row_ends
from jgcl_ray.pseudo_labels.distances import BINS, ZERO, half_of
from jgcl_ray.pseudo_labels.exact_search import searcher_on
from jgcl_ray.pseudo_labels.neighbours import SPARE

# Numbers in the largest temporary of a block.
BLOCK = 2**26
# Overlaps are summed in fixed point: integers add up to the same in any order, so that a pair has one distance.
ONE = 2**30


def nearest_on_device(features: torch.Tensor, k: int) -> torch.Tensor:
    """The k (at most N) nearest rows of every row, (N, k) int64 on the same device, ordered as by `nearest`.

    features (N, D) float32, rows of unit length.
    """
    num_rows, width = features.shape
    k = min(k, num_rows)
    wanted = min(k + SPARE, num_rows)
    rank = torch.empty(num_rows, k, dtype=torch.int64, device=features.device)
    search = searcher_on(features)
    for block in _row_blocks(num_rows, max(num_rows, 4 * wanted * width)):
        rows = torch.arange(block.start, block.stop, device=features.device)
        found = search(features[block], wanted)
        absent = (found != rows[:, None]).all(1)  # among as many duplicates of itself
        found[absent, -1] = rows[absent]
        found = found.sort(dim=1).values
        gaps = (features[block].double()[:, None] - features[found].double()).square().sum(2)
        gaps[found == rows[:, None]] = -1  # the row itself before its duplicates
        order = gaps.sort(dim=1, stable=True).indices[:, :k]
        rank[block] = found.gather(1, order)
    return rank


def encode_on_device(features: torch.Tensor, rank: torch.Tensor, k1: int, k2: int) -> DeviceEncoding:
    """V of all rows from their k nearest, rank (N, k) int64, on the device of both."""
    num_rows, k = rank.shape
    half = min(half_of(k1), k)
    mutual = torch.empty(num_rows, k, dtype=torch.bool, device=rank.device)  # rank(i, c) is in R(i)
    mutual_half = torch.empty(num_rows, half, dtype=torch.bool, device=rank.device)  # rank(i, c) is in R'(i)
    for block in _row_blocks(num_rows, k * k):
        back = rank[rank[block]] == torch.arange(block.start, block.stop, device=rank.device)[:, None, None]
        mutual[block] = back.any(2)
        mutual_half[block] = back[:, :half, :half].any(2)
    sizes, members, weights = [], [], []
    for block in _row_blocks(num_rows, k * half * k):
        size, found = _expanded(block, rank, mutual, mutual_half)
        sizes.append(size)
        members.append(found)
        weights.append(_softmax(features, block.start, size, found))
    encoding = DeviceEncoding(torch.cat(sizes), torch.cat(members), torch.cat(weights))
    return _averaged(encoding, rank[:, :k2]) if k2 > 1 else encoding


@dataclass(frozen=True)
class DeviceEncoding:
    """V by rows; the counterpart of distances.ReciprocalEncoding."""

    sizes: torch.Tensor  # (N,) int64, entries of each row
    members: torch.Tensor  # (entries,) int64, their columns, ascending in each row
    weights: torch.Tensor  # (entries,) float32
    recall: float = 1.0  # neighbours are searched exactly here

    @property
    def num_rows(self) -> int:
        return len(self.sizes)

    def within(self, limit: float) -> csr_array:
        """The distances up to `limit`, as distances.jaccard_distance returns them; all of them for 1."""
        sizes, indices, data = [], [], []
        for distance, shared in self._distance_blocks():
            kept = shared & (distance.double() <= limit)
            sizes.append(kept.sum(1).cpu().numpy())
            indices.append(kept.nonzero()[:, 1].int().cpu().numpy())
            data.append(distance[kept].cpu().numpy())
        indptr = row_ends(np.concatenate(sizes))
        return csr_array((np.concatenate(data), np.concatenate(indices), indptr), shape=(self.num_rows,) * 2)

    def histogram(self) -> np.ndarray:
        """The counts of distances.ReciprocalEncoding.histogram."""
        counts = torch.zeros(BINS + 2, dtype=torch.int64, device=self.sizes.device)
        for distance, shared in self._distance_blocks():
            found = distance[shared]
            counts += torch.bincount(torch.where(found < ZERO, 0, 1 + (found * BINS).long()), minlength=BINS + 2)
        return counts.cpu().numpy()

    def _distance_blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Distances of a block of rows to all, (b, N) float32, and which share a member with another than itself."""
        num_rows, device = self.num_rows, self.sizes.device
        starts = self.sizes.cumsum(0) - self.sizes
        owners = torch.repeat_interleave(self.sizes)
        fixed = (self.weights.double() * ONE).round().int()
        by_column = self.members.sort(stable=True).indices
        column_sizes = torch.bincount(self.members, minlength=num_rows)
        column_starts = column_sizes.cumsum(0) - column_sizes
        updates = int((column_sizes[self.members]).sum() / max(num_rows, 1)) + 1
        for block in _row_blocks(num_rows, max(num_rows, 8 * updates)):
            entries = torch.arange(
                int(starts[block.start]), int(starts[block.stop - 1] + self.sizes[block.stop - 1]), device=device
            )
            entry, within_column = _lists(column_sizes[self.members[entries]])
            source = entries[entry]
            target = by_column[column_starts[self.members[source]] + within_column]
            overlap = torch.zeros(block.stop - block.start, num_rows, dtype=torch.int32, device=device)
            cells = (owners[source] - block.start) * num_rows + owners[target]
            overlap.view(-1).index_add_(0, cells, torch.minimum(fixed[source], fixed[target]))
            overlap[torch.arange(len(overlap)), torch.arange(block.start, block.stop)] = 0
            m = overlap.double() / ONE
            yield (1 - m / (2 - m)).clamp(min=0).float(), overlap > 0


def _expanded(
    block: slice, rank: torch.Tensor, mutual: torch.Tensor, mutual_half: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    half = mutual_half.shape[1]
    reciprocal = torch.where(mutual[block], rank[block], -1)  # R(i), -1 elsewhere
    near, is_near = rank[rank[block], :half], mutual_half[rank[block]]  # (b, k, half): R'(c) for each c in rank(i)
    shared = ((near[..., None] == reciprocal[:, None, None]).any(3) & is_near).sum(2)
    joins = mutual[block] & (3 * shared > 2 * is_near.sum(2))
    added = torch.where(is_near & joins[..., None], near, -1).flatten(1)
    members = torch.cat([reciprocal, added], dim=1).sort(dim=1).values
    kept = members >= 0
    kept[:, 1:] &= members[:, 1:] != members[:, :-1]
    return kept.sum(1), members[kept]


def _softmax(features: torch.Tensor, first: int, sizes: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    owners = torch.repeat_interleave(sizes)
    weights = torch.empty(len(members), dtype=torch.float64, device=features.device)
    for part in _row_blocks(len(members), 2 * features.shape[1]):
        similarity = (features[first + owners[part]] * features[members[part]]).sum(1)
        weights[part] = (2 * similarity.double() - 2).exp()
    total = torch.zeros(len(sizes), dtype=torch.float64, device=features.device).index_add_(0, owners, weights)
    return (weights / total[owners]).float()


def _averaged(encoding: DeviceEncoding, expansion: torch.Tensor) -> DeviceEncoding:
    num_rows, k2 = expansion.shape
    starts = encoding.sizes.cumsum(0) - encoding.sizes
    sizes, members, weights = [], [], []
    for block in _row_blocks(num_rows, 8 * k2 * (len(encoding.members) // num_rows + 1)):
        sources = expansion[block].flatten()
        which, offset = _lists(encoding.sizes[sources])
        entries = starts[sources[which]] + offset
        cells, inverse = torch.unique((which // k2) * num_rows + encoding.members[entries], return_inverse=True)
        total = torch.zeros(len(cells), dtype=torch.float64, device=cells.device)
        total.index_add_(0, inverse, encoding.weights[entries].double())
        sizes.append(torch.bincount(cells // num_rows, minlength=block.stop - block.start))
        members.append(cells % num_rows)
        weights.append((total / k2).float())
    return DeviceEncoding(torch.cat(sizes), torch.cat(members), torch.cat(weights))


def _lists(sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For lists of these sizes one after another: which list each element is in, and its place there."""
    which = torch.repeat_interleave(sizes)
    return which, torch.arange(len(which), device=sizes.device) - (sizes.cumsum(0) - sizes)[which]


def _row_blocks(num_rows: int, numbers_per_row: int) -> Iterator[slice]:
    step = max(BLOCK // numbers_per_row, 1)
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))
