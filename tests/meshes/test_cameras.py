"""Cameras: projection, rays, turning, resizing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jgcl_ray.meshes.cameras import Camera, Mesh

CAMERA = Camera.look_at(np.array([1.0, -4.0, 1.5]), np.array([0.0, 0.1, 0.9]), focal=140.0, center=(30.0, 70.0))


def points(count: int = 50) -> np.ndarray:
    return np.random.default_rng(0).uniform([-0.5, -0.5, 0.0], [0.5, 0.5, 1.8], size=(count, 3))


@pytest.mark.parametrize("camera", [CAMERA, CAMERA.resized(2.0, 3.0)], ids=["square pixels", "stretched"])
def test_rays_pass_through_the_points_that_project_to_their_pixels(camera: Camera) -> None:
    rays = camera.rays(128, 64)
    for row, column in ((0, 0), (17, 40), (127, 63)):
        point = camera.position + 3.5 * rays[row, column]
        np.testing.assert_allclose(camera.project(point), [column + 0.5, row + 0.5, 3.5], atol=2e-4)
    window = camera.rays(128, 64, (slice(10, 20), slice(30, 60)))
    np.testing.assert_array_equal(window, rays[10:20, 30:60])


def test_look_at_is_level_and_centred() -> None:
    np.testing.assert_allclose(CAMERA.project(np.array([0.0, 0.1, 0.9]))[:2], CAMERA.center, atol=1e-9)
    above, below = CAMERA.project(np.array([[0.0, 0.1, 1.2], [0.0, 0.1, 0.6]]))
    assert above[1] < below[1] and above[0] == pytest.approx(below[0])
    np.testing.assert_allclose(CAMERA.rotation @ CAMERA.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(CAMERA.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (1.0, 2.0, 0.5)])
@pytest.mark.parametrize("degrees", [45.0, 90.0, 225.0])
def test_turning_the_camera_is_turning_the_body(axis: tuple[float, float, float], degrees: float) -> None:
    pivot = np.array([0.1, -0.2, 0.9])
    unit = np.array(axis) / np.linalg.norm(axis)
    turned = Rotation.from_rotvec(np.radians(degrees) * unit).apply(points() - pivot) + pivot
    np.testing.assert_allclose(
        CAMERA.turned(degrees, pivot, axis).project(points()), CAMERA.project(turned), atol=1e-9
    )


def test_positive_degrees_are_counter_clockwise_from_above() -> None:
    # A body that faces the camera (-y) has its nose before it; turned by 90 degrees the nose is on the right.
    camera = Camera.look_at(np.array([0.0, -4.0, 1.0]), np.array([0.0, 0.0, 1.0]), 100.0, (32.0, 64.0))
    nose = np.array([0.0, -0.2, 1.6])
    assert camera.project(nose)[0] == pytest.approx(32.0)
    assert camera.turned(90, np.zeros(3)).project(nose)[0] > 36.0
    # The same in a camera's own axes, where up is -y and the body faces -z.
    weak = Camera.weak_perspective(0.9, (0.0, 0.0), 128, 64)
    assert weak.turned(90, np.zeros(3), (0.0, -1.0, 0.0)).project(np.array([0.0, -0.6, -0.2]))[0] > 36.0


@pytest.mark.parametrize(("height", "width"), [(256, 128), (100, 180)])
def test_weak_perspective_scales_and_shifts(height: int, width: int) -> None:
    scale, shift = 0.8, (0.15, -0.1)
    body = np.random.default_rng(1).uniform(-0.9, 0.9, size=(40, 3))
    pixels = Camera.weak_perspective(scale, shift, height, width).project(body)[:, :2]
    half = max(height, width) / 2
    expected = scale * (body[:, :2] + shift) * half + [width / 2, height / 2]
    # Perspective remains: at most depth over distance, relative to the picture's centre.
    distance = 2 * 5000.0 / (max(height, width) * scale)
    np.testing.assert_allclose(
        pixels, expected, atol=0.9 / distance * np.abs(expected - [width / 2, height / 2]).max()
    )


def test_resized_camera_sees_the_resized_picture() -> None:
    before, after = CAMERA.project(points()), CAMERA.resized(2.0, 0.5).project(points())
    np.testing.assert_allclose(after, before * [0.5, 2.0, 1.0], atol=1e-9)


def test_normals_of_a_cube_corner_point_outwards() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    mesh = Mesh(vertices, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32))
    np.testing.assert_allclose(mesh.normals[0], -np.ones(3) / np.sqrt(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-6)
