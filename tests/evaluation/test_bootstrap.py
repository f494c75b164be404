"""Intervals over people, against a version that draws people one by one."""

from __future__ import annotations

import numpy as np
import pytest

from jgcl_ray.evaluation import bootstrap
from jgcl_ray.evaluation.bootstrap import grouped_intervals, mean_interval, paired_difference


def slow_bounds(values, people, resamples, seed):
    """Draw as many people as there are, with replacement; take all their queries; average; again and again."""
    random = np.random.default_rng(seed)
    names = sorted(set(people[~np.isnan(values)].tolist()))
    means = []
    for _ in range(resamples):
        drawn = []
        for pick in random.integers(len(names), size=len(names)):
            drawn += [v for v, person in zip(values, people, strict=True) if person == names[pick] and v == v]
        if drawn:
            means.append(sum(drawn) / len(drawn))
    return np.quantile(means, [0.025, 0.975])


def example(seed: int, queries: int = 40, people: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    values = random.random(queries)
    values[random.choice(queries, 5, replace=False)] = np.nan
    who = 100 + random.integers(0, people, queries)
    return values, who


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_version(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_BLOCK_NUMBERS", 9 * 7)  # several blocks draw the same as one
    values, people = example(seed)
    found = mean_interval(values, people, resamples=60, seed=seed)
    low, high = slow_bounds(values, people, 60, seed)
    assert found.mean == pytest.approx(np.nanmean(values), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.bounds == [found.low, found.high] and found.low < found.mean < found.high


def test_people_count_rather_than_queries() -> None:
    """A hundred equal queries of each person say no more than one of each."""
    values, people = np.random.default_rng(0).random(50), np.arange(50)
    once = mean_interval(values, people)
    often = mean_interval(values.repeat(100), people.repeat(100))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-9)
    error = values.std() / np.sqrt(50)
    assert once.high - once.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    people = np.arange(60).repeat(4)
    hits = 0
    for trial in range(300):
        own = random.random(60).repeat(4)  # what a person's queries share; the mean over all people is 0.5
        found = mean_interval(own + 0.1 * random.standard_normal(240), people, resamples=400, seed=trial)
        hits += found.low <= 0.5 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_pairs_are_closer_than_the_two_by_themselves() -> None:
    random = np.random.default_rng(2)
    people = np.arange(50).repeat(4)
    hard = random.random(50).repeat(4)
    a, b = hard + 0.03 + 0.02 * random.standard_normal(200), hard + 0.02 * random.standard_normal(200)
    found = paired_difference(a, b, people)
    alone = mean_interval(a, people)
    assert found.mean == pytest.approx((a - b).mean()) and 0 < found.low < found.high
    assert found.high - found.low < (alone.high - alone.low) / 10
    opposite = paired_difference(b, a, people)
    assert (opposite.low, opposite.high) == pytest.approx((-found.high, -found.low), abs=1e-3)
    assert paired_difference(a, a, people) == bootstrap.Interval(0, 0, 0)


def test_runs_are_averaged_per_query_first() -> None:
    random = np.random.default_rng(3)
    a, b, people = random.random((3, 40)), random.random((2, 40)), random.integers(0, 8, 40)
    a[:, 4] = b[:, 4] = np.nan
    assert mean_interval(a, people) == mean_interval(a.mean(axis=0), people)
    assert paired_difference(a, b, people) == mean_interval(a.mean(axis=0) - b.mean(axis=0), people)


def test_groups_equal_the_slow_version_of_each() -> None:
    """Groups that hold the same people draw the same, so each must equal the whole without the others."""
    random = np.random.default_rng(4)
    people = np.arange(8).repeat(6)
    groups = np.tile([0, 0, 1, 2, 2, 2], 8)
    values = random.random(48)
    for group, found in enumerate(grouped_intervals(values, people, groups, 3, resamples=50)):
        inside = groups == group
        low, high = slow_bounds(values[inside], people[inside], 50, 0)
        assert found.mean == pytest.approx(values[inside].mean())
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_a_group_of_few_people_counts_the_draws_that_have_any() -> None:
    values, people, groups = np.array([0.2, 0.4, 0.5, 0.6]), np.array([1, 2, 3, 4]), np.array([0, 0, 1, 1])
    few, others = grouped_intervals(values, people, groups, 2)
    assert (few.low, few.high) == pytest.approx((0.2, 0.4)) and (others.low, others.high) == pytest.approx((0.5, 0.6))


def test_one_person_has_no_interval() -> None:
    found = mean_interval(np.array([0.2, 0.4]), np.array([7, 7]))
    assert found.mean == pytest.approx(0.3) and found.bounds is None and "no interval" in found.words()


def test_impossible_pairs_and_means_are_refused() -> None:
    one, none, people = np.array([0.5, 0.5]), np.array([0.5, np.nan]), np.array([1, 2])
    with pytest.raises(ValueError, match="same queries on both sides"):
        paired_difference(one, none, people)
    with pytest.raises(ValueError, match="no query has a value"):
        mean_interval(np.array([np.nan]), np.array([1]))
    with pytest.raises(ValueError, match="a value for the same ones"):
        mean_interval(np.stack([one, none]), people)
