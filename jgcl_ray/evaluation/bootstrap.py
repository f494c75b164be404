"""How far a mean over queries can be trusted: bootstrap over people, since the queries of one person go together.

As many people as there are are drawn with replacement, each with all of their queries; the mean over these queries,
again and again; percentiles of those means. Source: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).

Letters: Q queries, S runs over the same queries, P people, G groups, K values, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000  # the bounds of a 95 % interval then vary by about 3 % of its width from seed to seed
SEED = 0
LEVEL = 0.95

_BLOCK_NUMBERS = 2**23  # of weights held at a time


@dataclass(frozen=True)
class Interval:
    """A mean over queries and its 95 % interval; NaN bounds where fewer than two people were there to draw from."""

    mean: float
    low: float
    high: float

    @property
    def bounds(self) -> list[float] | None:
        """[low, high], ready for JSON; None where they are not known."""
        return None if np.isnan(self.low) else [self.low, self.high]

    def words(self, sign: str = "") -> str:
        """The bounds for people; sign "+": positive ones bear it."""
        if self.bounds is None:
            return "[no interval for one person]"
        return f"[{self.low:{sign}.4f}, {self.high:{sign}.4f}]"


def mean_interval(values: np.ndarray, people: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """Mean of the queries' values, such as average precisions, and its 95 % interval over people.

    values: (Q,) float, NaN where a query has none; or (S, Q) of several runs over the same queries, averaged per
    query first: the interval then covers the people alone, not how runs differ. people: (Q,) int, who is on each
    query. ValueError where no query has a value, or one has it in some of the runs only.
    """
    of_query = _over_runs(values)
    return grouped_intervals(of_query, people, np.zeros(len(of_query), np.int64), 1, resamples, seed)[0]


def paired_difference(
    a: np.ndarray, b: np.ndarray, people: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Mean of a - b over the same queries, with its 95 % interval over people.

    a, b: (Q,), or (S, Q) of S runs each, averaged per query first (run i of both may share a seed, but need not).
    people: (Q,). Pairing takes out what makes a query hard for both, most of the spread of either mean. ValueError
    where a query has a value on one side alone.
    """
    of_a, of_b = _over_runs(a), _over_runs(b)
    if of_a.shape != of_b.shape or (np.isnan(of_a) != np.isnan(of_b)).any():
        raise ValueError("a pair needs the same queries on both sides, with a value on both or on neither")
    return mean_interval(of_a - of_b, people, resamples, seed)


def grouped_intervals(
    values: np.ndarray,
    people: np.ndarray,
    groups: np.ndarray,
    number: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Interval]:
    """`mean_interval` of each of G = `number` groups of values, by the same draws of people.

    values (K,), NaN: left out; people (K,); groups (K,) in [0, G). A draw with nobody of a group does not count for
    that group. ValueError for a group without values.
    """
    known = ~np.isnan(values)
    names, person = np.unique(people[known], return_inverse=True)
    cell = person * number + groups[known]
    size = len(names) * number
    sums = np.bincount(cell, values[known], size).reshape(len(names), number)
    counts = np.bincount(cell, minlength=size).reshape(len(names), number).astype(np.float64)
    if not counts.any(axis=0).all():
        raise ValueError("no query has a value: there is no mean")
    means = sums.sum(axis=0) / counts.sum(axis=0)
    bounds = _bounds(sums, counts, resamples, seed)
    bounds[:, (counts > 0).sum(axis=0) < 2] = np.nan
    return [Interval(*map(float, row)) for row in zip(means, *bounds, strict=True)]


def _bounds(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(2, G): sums, counts (P, G) of the people's values -> low and high over R draws of P people."""
    people, groups = sums.shape
    both = np.concatenate([sums, counts], axis=1)
    random = np.random.default_rng(seed)
    drawn = np.empty((resamples, groups))
    step = max(1, _BLOCK_NUMBERS // people)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        picks = random.integers(people, size=(rows, people)) + people * np.arange(rows)[:, None]
        weights = np.bincount(picks.ravel(), minlength=rows * people).reshape(rows, people)
        totals = weights.astype(np.float64) @ both
        with np.errstate(invalid="ignore"):
            drawn[start : start + rows] = totals[:, :groups] / totals[:, groups:]
    tail = (1 - LEVEL) / 2
    return np.asarray(np.nanquantile(drawn, [tail, 1 - tail], axis=0))


def _over_runs(values: np.ndarray) -> np.ndarray:
    """(Q,) as it is, (S, Q) -> (Q,)."""
    if values.ndim == 1:
        return values
    missing = np.isnan(values)
    if (missing.any(axis=0) != missing.all(axis=0)).any():
        raise ValueError("runs over the same queries have a value for the same ones")
    return np.asarray(values.mean(axis=0))
