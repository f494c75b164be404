"""Which rows make up an epoch's batches: pure functions of seed and epoch, the same on every worker.

Letters: N rows, S batches in an epoch, B images in a batch over all W workers, P identities x K images = B. Each
worker computes the whole epoch and takes its share, so that W workers with B / W see what one with B does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted

# First words of the seeds, so that no two uses draw the same numbers.
SHUFFLE, IDENTITIES, AUGMENTATION, VIEW, VIEW_AUGMENTATION = range(5)


@dataclass(frozen=True)
class Shard:
    """One worker's place among all of them."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard {self.index} of {self.count}")


@dataclass(frozen=True, slots=True)
class Draw:
    """One image to load: all that its random numbers depend on, so that no process needs a state."""

    row: int
    epoch: int = 0
    repetition: int = 0  # how often the row came before in this epoch, over all workers

    def generator(self, seed: int, use: int) -> np.random.Generator:
        """Random numbers of this draw for one use (AUGMENTATION, VIEW)."""
        return np.random.default_rng((use, seed, self.epoch, self.row, self.repetition))


def shuffled_batches(rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Each of `rows` (N,) at most once, in a new order each epoch. Returns (S, B), S = N // B.

    The N % B rows that are left over, others in each epoch, are not drawn: in a smaller batch each would weigh more.
    Fewer rows than a batch are repeated to fill one.
    """
    if rows.size == 0:
        raise UserError("no image to train on: every row is an outlier or was left out")
    order = np.random.default_rng((SHUFFLE, seed, epoch)).permutation(rows)
    if rows.size < batch_size:
        return np.resize(order, (1, batch_size))
    return order[: rows.size // batch_size * batch_size].reshape(-1, batch_size)


def identity_batches(
    labels: np.ndarray,
    identities: int,
    images: int,
    seed: int,
    epoch: int,
    batches: int | None = None,
    cameras: np.ndarray | None = None,
    tracklets: np.ndarray | None = None,
) -> np.ndarray:
    """P identities x K images in each batch. Returns rows (S, P * K), the K images of an identity side by side.

    labels (N,): pseudo labels or identities; rows with -1, outliers, are never drawn. batches: S; by default as many
    as the labelled rows fill. All clusters are drawn equally often (but for the C % P left over in a round), however
    large they are. Over an epoch a cluster deals its rows like a deck of cards: K at a time, shuffled anew when fewer
    than K are left; one smaller than K repeats its rows evenly. P distinct clusters, if there are that many.

    cameras (N,): where given, only the first image of each K is dealt, and its K - 1 partners are drawn from the
    cluster's other cameras, then, where these have fewer, from its own (Cluster-Contrast's sampler).

    tracklets (N,), negative outside tracklets: where given, too, only the first image is dealt, and its partners are
    of other tracklets, each of another, before any gives a second image; with cameras, those of others first.
    """
    labelled = np.flatnonzero(labels >= 0)
    if labelled.size == 0:
        raise UserError(
            f"{counted(labels.size, 'row')}, all outliers, no identity to draw: loosen the "
            "clustering (a larger radius)"
        )
    random = np.random.default_rng((IDENTITIES, seed, epoch))
    by_label = labelled[np.argsort(labels[labelled], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[by_label], prepend=-1))
    decks = [
        _deal(members, images, random)
        if cameras is None and tracklets is None
        else _deal_apart(members, cameras, tracklets, images, random)
        for members in np.split(by_label, starts[1:])
    ]
    hands = _deal(np.arange(len(decks)), identities, random)
    if batches is None:
        batches = max(1, labelled.size // (identities * images))
    return np.stack([np.concatenate([next(decks[deck]) for deck in next(hands)]) for _ in range(batches)])


class DrawBatches(Protocol):
    """The batches that one worker loads, one list of draws each."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[Draw]]: ...


@dataclass(frozen=True, eq=False)
class EpochShare:
    """A worker's batches of one epoch; iterating over it makes their draws."""

    epoch: int
    rows: np.ndarray  # (S, B / W) int64
    repetitions: np.ndarray  # (S, B / W) int64

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[list[Draw]]:
        for rows, repetitions in zip(self.rows.tolist(), self.repetitions.tolist(), strict=True):
            yield [Draw(row, self.epoch, nth) for row, nth in zip(rows, repetitions, strict=True)]


def share(batches: np.ndarray, epoch: int, shard: Shard) -> EpochShare:
    """A worker's share of an epoch's batches (S, B): the shard.index-th of shard.count equal parts of each."""
    batch_size = batches.shape[1]
    if batch_size % shard.count:
        raise UserError(
            f"batches of {batch_size} images do not divide by {shard.count} workers: change data.batch_size, "
            "data.identities_per_batch or data.images_per_identity, or the number of workers"
        )
    part = batch_size // shard.count
    mine = slice(shard.index * part, (shard.index + 1) * part)
    repetitions = _occurrences(batches.ravel()).reshape(batches.shape)
    return EpochShare(epoch, batches[:, mine], repetitions[:, mine])


def shard_rows(rows: int, shard: Shard) -> range:
    """A worker's contiguous part of N rows in the data set's order; the first N % W parts have one row more.

    Gathered in the order of the workers (distributed.gather_rows takes parts of different length), the parts are the
    data set again.
    """
    size, longer = divmod(rows, shard.count)
    start = shard.index * size + min(shard.index, longer)
    return range(start, start + size + (shard.index < longer))


def sequential_batches(rows: range, batch_size: int) -> list[list[Draw]]:
    """Rows in order, B at a time; the last batch may be smaller."""
    return [[Draw(row) for row in rows[start : start + batch_size]] for start in range(0, len(rows), batch_size)]


def _deal(members: np.ndarray, count: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        deck = random.permutation(members)
        if deck.size < count:
            yield np.resize(deck, count)
        else:
            yield from deck[: deck.size // count * count].reshape(-1, count)


def _deal_apart(
    members: np.ndarray,
    cameras: np.ndarray | None,
    tracklets: np.ndarray | None,
    count: int,
    random: np.random.Generator,
) -> Iterator[np.ndarray]:
    camera = np.zeros(len(members), np.int64) if cameras is None else cameras[members]
    track = None
    if tracklets is not None:
        track = np.where(tracklets[members] < 0, -1 - np.arange(len(members)), tracklets[members])
    for [first] in _deal(np.arange(len(members)), 1, random):
        shuffled = random.permutation(np.delete(np.arange(len(members)), first))
        same_camera = camera[shuffled] == camera[first]
        if track is None:
            order = np.argsort(same_camera, kind="stable")
        else:  # by how many images of their tracklet come before them
            turns = _occurrences(track[np.append(first, shuffled)])[1:]
            order = np.lexsort((same_camera, turns))
        yield np.resize(members[np.append(first, shuffled[order][: count - 1])], count)


def _occurrences(values: np.ndarray) -> np.ndarray:
    # How many equal values come before each one.
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(np.diff(values[order], prepend=values[order[0]] - 1))
    counts = np.diff(first, append=values.size)
    nth = np.empty(values.size, dtype=np.int64)
    nth[order] = np.arange(values.size) - np.repeat(first, counts)
    return nth
