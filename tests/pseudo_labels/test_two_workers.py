"""Two workers and one: the same features, the same labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from test_extract import ROWS, batches, encoder
from worker_group import run_workers

from jgcl_ray.batches import PseudoLabels
from jgcl_ray.distributed import rank, world_size
from jgcl_ray.pseudo_labels.actor import _spread
from jgcl_ray.pseudo_labels.clustering import dbscan_labels
from jgcl_ray.pseudo_labels.extract import extract_features


def work(index: int, join: Callable[[], None], folder: str) -> None:
    alone = extract_features(encoder(), batches(range(ROWS)), ROWS)
    expected = dbscan_labels(alone.numpy(), 12, 3, 0.05, 3)
    assert expected.num_clusters > 1
    join()
    assert world_size() == 2
    for split in (31, 0):  # the second time one worker has no rows at all
        shard = range(split) if rank() == 0 else range(split, ROWS)
        together = extract_features(encoder(), batches(shard), ROWS)
        # Batches of another size take other paths through the matrix product.
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
        found = _spread(dbscan_labels(together.numpy(), 12, 3, 0.05, 3) if rank() == 0 else None, ROWS)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert (found.num_clusters, found.num_outliers) == (expected.num_clusters, expected.num_outliers)
    weights = np.array([0.5, 0, 1], np.float32)
    mine = PseudoLabels(np.array([1, -1, 0]), float("nan"), 2, 1, 0.99, weights, 3, 2, 1)
    found = _spread(mine if rank() == 0 else None, 3)
    np.testing.assert_array_equal(found.labels, [1, -1, 0])
    np.testing.assert_array_equal(found.weights, weights)
    assert np.isnan(found.eps)
    assert found.recall == 0.99
    assert (found.tracklets, found.cut_tracklets, found.cannot_links_split) == (3, 2, 1)
    (Path(folder) / f"done_{index}").touch()


def test_two_workers_and_one_give_the_same_labels(tmp_path: Path) -> None:
    run_workers(2, work, tmp_path, str(tmp_path))
    assert len(list(tmp_path.glob("done_*"))) == 2
