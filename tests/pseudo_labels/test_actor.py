"""The clustering actor in a small Ray cluster, killed in the middle of a call."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator

import dense
import numpy as np
import pytest
import ray

from jgcl_ray.batches import PseudoLabels
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels.actor import ClusteringClient, start_clustering_actor
from jgcl_ray.pseudo_labels.clustering import pseudo_labels
from jgcl_ray.ray_cluster import ray_cluster


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_ADDRESS", "local")
        with ray_cluster(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False):
            yield


def assert_same(found: PseudoLabels, expected: PseudoLabels) -> None:
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert (found.eps, found.num_clusters, found.num_outliers) == pytest.approx(
        (expected.eps, expected.num_clusters, expected.num_outliers)
    )


def test_killed_in_the_middle_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    features, _ = dense.clustered(20_000, 128, 1000, 0.6, 0)
    config = PseudoLabelsConfig(rho=0.001, background=True)
    expected = pseudo_labels(features, config)
    actor = start_clustering_actor(config)
    client = ClusteringClient(actor, config)
    client.label(features[:500])
    first = ray.get(actor.process.remote())
    client.label(features)  # returns what the call before submitted; this one is under way now
    submitted = client._pending
    time.sleep(0.2)
    assert not ray.wait([submitted], timeout=0)[0]
    os.kill(first, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        assert_same(client.label(features[:500]), expected)
    assert "actor died" in caplog.text
    assert ray.get(actor.process.remote()) != first
    ray.kill(actor)


def test_background_returns_the_labels_of_the_call_before() -> None:
    config = PseudoLabelsConfig(k1=12, rho=0.02, background=True, single_camera="weigh")
    cameras = np.arange(300) % 3
    epochs = [dense.clustered(300, 16, 20, 0.5, seed)[0] for seed in range(3)]
    expected = [pseudo_labels(features, config, cameras) for features in epochs]
    actor = start_clustering_actor(config)
    client = ClusteringClient(actor, config)
    assert_same(client.label(epochs[0], cameras), expected[0])
    assert_same(client.label(epochs[1], cameras), expected[0])
    resumed = ClusteringClient(actor, config)
    resumed.resume(client.pending())
    for one in (client, resumed):
        found = one.label(epochs[2], cameras)
        assert_same(found, expected[1])
        np.testing.assert_array_equal(found.weights, expected[1].weights)
    ray.kill(actor)


def test_bad_features_are_the_users_error_here_too() -> None:
    config = PseudoLabelsConfig(num_cpus=0)
    actor = start_clustering_actor(config)
    features = np.eye(40, dtype=np.float32)
    features[3] = np.nan
    with pytest.raises(UserError, match=r"^features: row 3 is not finite"):
        ClusteringClient(actor, config).label(features)
    ray.kill(actor)


def test_resources_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match="num_gpus=1: the Ray cluster has 0 GPUs"):
        start_clustering_actor(PseudoLabelsConfig(num_gpus=1))
