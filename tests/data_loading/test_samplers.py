"""Properties of the epochs' batches over many sizes, seeds and numbers of workers."""

import itertools

import numpy as np
import pytest

from jgcl_ray.data.samplers import (
    AUGMENTATION,
    VIEW,
    Draw,
    Shard,
    identity_batches,
    sequential_batches,
    shard_rows,
    share,
    shuffled_batches,
)
from jgcl_ray.errors import UserError


def random_labels(seed: int) -> np.ndarray:
    """Clusters of very unequal sizes, from one row on, among outliers; their numbers have gaps."""
    random = np.random.default_rng(seed)
    sizes = np.concatenate([[1, 2], random.geometric(0.15, size=random.integers(1, 30))])
    labels = np.repeat(3 * np.arange(sizes.size), sizes)
    return random.permutation(np.concatenate([labels, np.full(random.integers(0, 20), -1)]))


@pytest.mark.parametrize(("rows", "batch_size"), [(16, 16), (100, 16), (97, 4), (5, 2)])
def test_shuffled_epoch_draws_no_row_twice(rows, batch_size):
    given = 10 * np.arange(rows)
    batches = shuffled_batches(given, batch_size, seed=1, epoch=0)
    assert batches.shape == (rows // batch_size, batch_size)
    assert np.unique(batches).size == batches.size and np.isin(batches, given).all()


def test_shuffled_epochs_differ_and_repeat():
    rows = np.arange(50)
    epochs = {
        (seed, epoch): tuple(shuffled_batches(rows, 8, seed, epoch).ravel()) for seed in (1, 2) for epoch in (0, 1)
    }
    assert len(set(epochs.values())) == 4
    assert tuple(shuffled_batches(rows, 8, 2, 1).ravel()) == epochs[2, 1]


def test_every_row_gets_its_turn():
    drawn = [shuffled_batches(np.arange(10), 4, seed=1, epoch=epoch) for epoch in range(50)]
    counts = np.bincount(np.concatenate(drawn).ravel(), minlength=10)
    assert counts.min() > 25 and counts.sum() == 400


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_fewer_rows_than_a_batch_fill_one(rows):
    batches = shuffled_batches(np.arange(rows), 8, seed=1, epoch=0)
    assert batches.shape == (1, 8)
    counts = np.bincount(batches.ravel(), minlength=rows)
    assert counts.max() - counts.min() <= 1


def test_no_rows():
    with pytest.raises(UserError, match="no image to train on"):
        shuffled_batches(np.array([], dtype=np.int64), 8, seed=1, epoch=0)
    with pytest.raises(UserError, match="4 rows, all outliers"):
        identity_batches(np.full(4, -1), 2, 2, seed=1, epoch=0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("identities", "images"), [(4, 4), (16, 2), (1, 8)])
def test_identity_batches(seed, identities, images):
    labels = random_labels(seed)
    clusters = np.unique(labels[labels >= 0])
    batches = identity_batches(labels, identities, images, seed, epoch=0)
    assert batches.shape == (max(1, (labels >= 0).sum() // (identities * images)), identities * images)
    for batch in batches:
        groups = batch.reshape(identities, images)
        drawn = labels[groups]
        assert (drawn >= 0).all(), "no outlier"
        assert (drawn == drawn[:, :1]).all(), "K images of one identity side by side"
        times = np.bincount(np.searchsorted(clusters, drawn[:, 0]), minlength=clusters.size)
        assert times.max() - times.min() <= 1, "distinct, or evenly repeated where there are too few"
        for group in groups:
            size = (labels == labels[group[0]]).sum()
            repeated = np.unique(group, return_counts=True)[1]
            assert repeated.size == min(size, images), "without replacement as far as the cluster goes"
            assert repeated.max() - repeated.min() <= 1


def test_clusters_are_drawn_equally_often_and_large_ones_dealt_out():
    labels = np.repeat(np.arange(4), [40, 3, 8, 9])
    batches = identity_batches(labels, identities=2, images=4, seed=1, epoch=0, batches=20)
    assert np.bincount(labels[batches].ravel()).tolist() == [40, 40, 40, 40]
    assert np.unique(batches[labels[batches] == 0]).size == 40, "ten visits of four see all 40 images"


@pytest.mark.parametrize("seed", range(5))
def test_partners_come_from_other_cameras_first(seed):
    labels = random_labels(seed)
    cameras = np.random.default_rng(seed).integers(0, 3, labels.size)
    batches = identity_batches(labels, 4, 4, seed, epoch=0, batches=30, cameras=cameras)
    assert (labels[batches] >= 0).all()
    for first, *partners in batches.reshape(-1, 4):
        assert (labels[partners] == labels[first]).all()
        members = np.setdiff1d(np.flatnonzero(labels == labels[first]), first)
        others = (cameras[members] != cameras[first]).sum()
        assert (cameras[partners] != cameras[first]).sum() >= min(others, 3)
        if members.size >= 3:
            assert np.unique([first, *partners]).size == 4, "without replacement as far as the cluster goes"


def test_each_image_of_a_cluster_is_first_equally_often():
    batches = identity_batches(np.zeros(6, np.int64), 1, 3, seed=1, epoch=0, batches=12, cameras=np.arange(6) % 2)
    assert np.bincount(batches[:, 0]).tolist() == [2] * 6


def test_identity_epochs_differ_and_repeat():
    labels = random_labels(5)
    first, again, second, other = (
        identity_batches(labels, 4, 4, seed, epoch) for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]
    )
    np.testing.assert_array_equal(first, again)
    assert (first != second).any() and (first != other).any()


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("seed", range(5))
def test_shares_of_all_workers_are_the_batch_of_one(seed, workers):
    labels = random_labels(seed)
    for batches in (
        identity_batches(labels, 4, 4, seed, epoch=3),
        shuffled_batches(np.arange(labels.size), 8, seed, epoch=3),
    ):
        alone = list(share(batches, 3, Shard()))
        shares = [share(batches, 3, Shard(worker, workers)) for worker in range(workers)]
        assert {len(part) for part in shares} == {len(batches)}, "the same number of batches on each"
        together = [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)]
        assert together == alone, "draws, and with them random numbers, included"
        assert [[draw.row for draw in batch] for batch in alone] == batches.tolist()


def test_draws_are_told_apart_by_their_repetition():
    batches = np.array([[7, 7, 2], [2, 7, 9]])
    alone = [(draw.row, draw.repetition) for batch in share(batches, 0, Shard()) for draw in batch]
    assert alone == [(7, 0), (7, 1), (2, 0), (2, 1), (7, 2), (9, 0)]


def test_batches_that_do_not_divide():
    with pytest.raises(UserError, match="batches of 6 images do not divide by 4 workers"):
        share(np.zeros((2, 6), dtype=np.int64), 0, Shard(0, 4))


def test_random_numbers_differ_by_everything_but_the_process():
    draws = [Draw(3, 1, 0), Draw(3, 1, 1), Draw(3, 2, 0), Draw(4, 1, 0)]
    firsts = [draw.generator(seed, use).random() for draw in draws for seed in (1, 2) for use in (AUGMENTATION, VIEW)]
    assert len(set(firsts)) == len(firsts)
    assert Draw(3, 1, 0).generator(1, VIEW).random() == Draw(3, 1, 0).generator(1, VIEW).random()


@pytest.mark.parametrize(("rows", "workers"), [(10, 1), (10, 3), (9, 3), (2, 4), (0, 2)])
def test_parts_in_the_order_of_workers_are_the_data_set(rows, workers):
    parts = [shard_rows(rows, Shard(worker, workers)) for worker in range(workers)]
    assert list(itertools.chain(*parts)) == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_sequential_batches():
    batches = [[draw.row for draw in batch] for batch in sequential_batches(range(3, 10), 3)]
    assert batches == [[3, 4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_impossible_shards(index, count):
    with pytest.raises(ValueError, match="shard"):
        Shard(index, count)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_no_tracklet_gives_a_second_image_before_all_have_given_one(seed, across):
    random = np.random.default_rng(seed)
    labels = random_labels(seed)
    tracklets = np.where(random.random(labels.size) < 0.1, -1, labels * 7 + random.integers(0, 5, labels.size))
    cameras = tracklets % 3
    alone = np.where(tracklets < 0, -1 - np.arange(labels.size), tracklets)
    batches = identity_batches(labels, 4, 4, seed, 0, cameras=cameras if across else None, tracklets=tracklets)
    for hand in batches.reshape(-1, 4):
        rows = np.flatnonzero(labels == labels[hand[0]])
        assert (labels[hand] == labels[hand[0]]).all()
        distinct = np.unique(alone[rows]).size
        assert np.unique(alone[hand]).size == min(distinct, 4)
        assert np.unique(hand).size == min(rows.size, 4)
        if across:
            others = np.unique(alone[rows[cameras[rows] != cameras[hand[0]]]]).size
            assert (cameras[hand[1:]] != cameras[hand[0]]).sum() >= min(others, 3)


def test_without_tracklets_the_same_rows_are_drawn_as_before():
    labels = np.arange(40) // 8
    cameras = np.arange(40) % 3
    for given in (None, cameras):
        plain = identity_batches(labels, 2, 4, 1, 0, cameras=given)
        assert (plain == identity_batches(labels, 2, 4, 1, 0, None, given, None)).all()
    single = identity_batches(labels, 2, 4, 1, 0, cameras=cameras, tracklets=np.full(40, -1))
    assert (single == identity_batches(labels, 2, 4, 1, 0, cameras=cameras)).all()
