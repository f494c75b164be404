"""A camera's mean taken off, by the definition."""

from __future__ import annotations

import numpy as np
import pytest

from jgcl_ray.camera_means import CameraMeans, without_camera_means
from jgcl_ray.errors import UserError


def test_each_embedding_loses_its_cameras_mean() -> None:
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((30, 6)).astype(np.float32)
    cameras = random.choice(["door", "hall", "yard"], 30).tolist()
    means = CameraMeans.of(embeddings, cameras)
    found = means.centred(embeddings[:5], [*cameras[:4], None])
    for row in range(5):
        same = [camera == cameras[row] or row == 4 for camera in cameras]
        expected = embeddings[row] - embeddings[same].mean(axis=0)
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), atol=1e-5)
    assert means.cameras == ("door", "hall", "yard") and means.images.sum() == 30
    few = [camera for camera in means.cameras if cameras.count(camera) < 10]
    assert len(means.small_camera_warnings) == len(few) > 0
    assert all(
        f"camera {camera} has fewer than 10" in warning
        for camera, warning in zip(few, means.small_camera_warnings, strict=True)
    )


def test_shifts_between_cameras_vanish() -> None:
    """Two photos of each of twenty people, in two cameras that move all features by a vector of their own."""
    random = np.random.default_rng(1)
    people = random.standard_normal((20, 8))
    shifts = 5 * random.standard_normal((2, 8))
    embeddings = np.concatenate([people + shifts[0], people + shifts[1]]).astype(np.float32)
    cameras = np.array([1, 2]).repeat(20)
    first, second = np.split(CameraMeans.of(embeddings, cameras).centred(embeddings, cameras), 2)
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_new_cameras_join_the_known_ones() -> None:
    a = CameraMeans.of(np.array([[1, 0], [3, 0.0]]), ["x", "x"])
    b = CameraMeans.of(np.array([[9, 9], [9, 9], [0, 2], [0, 4.0]]), ["x", "x", "y", "y"])
    both = a.joined(b)
    assert both.cameras == ("x", "y") and both.means.tolist() == [[2, 0], [0, 3]]
    assert both.overall.tolist() == [1, 1.5]


def test_a_camera_with_one_image_or_without_a_mean_is_refused() -> None:
    with pytest.raises(UserError, match="camera b has one image"):
        CameraMeans.of(np.zeros((3, 2)), ["a", "a", "b"])
    means = CameraMeans.of(np.eye(2), [4, 4])
    with pytest.raises(UserError, match="camera 5 has no mean feature; those that have one: 4"):
        means.centred(np.eye(2), [4, 5])


def test_for_labels_a_camera_of_few_images_loses_the_mean_of_all() -> None:
    random = np.random.default_rng(2)
    embeddings = random.standard_normal((25, 4)).astype(np.float32)
    cameras = np.array([1] * 12 + [2] * 10 + [3] * 3)  # fewer than ten of the third
    offsets = np.concatenate(
        [embeddings[:12].mean(0)[None].repeat(12, 0), embeddings[12:22].mean(0)[None].repeat(10, 0)]
    )
    expected = embeddings - np.concatenate([offsets, embeddings[:22].mean(0)[None].repeat(3, 0)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(without_camera_means(embeddings, cameras), expected, atol=1e-5)
    few = without_camera_means(embeddings[:5], np.arange(5))
    everyone = embeddings[:5] - embeddings[:5].mean(0)
    np.testing.assert_allclose(few, everyone / np.linalg.norm(everyone, axis=1, keepdims=True), atol=1e-5)


def test_nothing_is_left_of_images_that_are_all_alike() -> None:
    embeddings = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
    means = CameraMeans.of(embeddings, ["a", "a", "b", "b"])
    assert np.linalg.norm(means.centred(embeddings[2:], ["b", "b"]), axis=1) == pytest.approx(1)
    with pytest.raises(UserError, match="mean of camera a, whose images are all alike"):
        means.centred(embeddings, ["a", "a", "b", "b"])
