"""Renderers against a slow ray tracer, and against each other."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
import trimesh
from rounding import assert_pictures_alike

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeMesh, EmbreeRenderer
from jgcl_ray.meshes.renderers import open_renderer
from jgcl_ray.meshes.shading import BACKGROUND_GREY, Light, PreparedMesh, Scene, render_grey, shade, to_uint8

WITHOUT_PYTORCH3D = importlib.util.find_spec("pytorch3d") is None
needs_pytorch3d = [
    pytest.mark.pytorch3d,
    pytest.mark.skipif(WITHOUT_PYTORCH3D, reason="PyTorch3D is not installed (docs/bodies.md: how to build it)"),
]


def make_egg(subdivisions: int) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    vertices = (ball.vertices * [0.3, 0.2, 0.8] + [0.05, 0.0, 0.9]).astype(np.float32)
    return Mesh(vertices, ball.faces.astype(np.int32))


@pytest.fixture(scope="module")
def egg() -> Mesh:
    return make_egg(2)


def camera_at(distance: float, height: int, width: int) -> Camera:
    return Camera.look_at(
        np.array([0.4, -distance, 1.4]), np.array([0, 0, 0.9]), height * distance / 2.2, (width / 2, height / 2)
    )


def prepare(renderer: str, mesh: Mesh) -> PreparedMesh:
    return open_renderer(renderer).prepare(mesh)


def slow_hit(mesh: Mesh, origin: np.ndarray, ray: np.ndarray) -> tuple[int, float]:
    """Nearest triangle along a ray and its distance, by Cramer's rule on every triangle in turn."""
    best, nearest = -1, np.inf
    for number, (a, b, c) in enumerate(mesh.vertices[mesh.faces].astype(float)):
        matrix = np.stack([b - a, c - a, -ray], axis=1)
        if abs(np.linalg.det(matrix)) < 1e-15:
            continue
        u, v, distance = np.linalg.solve(matrix, origin - a)
        if u >= 0 and v >= 0 and u + v <= 1 and 0 < distance < nearest:
            best, nearest = number, distance
    return best, nearest


@pytest.mark.parametrize("renderer", ["embree", pytest.param("pytorch3d", marks=needs_pytorch3d)])
@pytest.mark.parametrize("close", [False, True], ids=["whole", "cut by the frame"])
def test_fragments_are_those_of_a_slow_tracer(renderer: str, close: bool) -> None:
    egg = make_egg(1)
    height, width = 20, 12
    camera = camera_at(3.0, height, width)
    if close:
        camera = camera.resized(2.5, 2.0).turned(30, np.array([0.5, 0, 0.9]))
    found = prepare(renderer, egg).fragments([camera], height, width)
    rays = camera.rays(height, width).astype(float)
    expected = np.array([[slow_hit(egg, camera.position, rays[y, x]) for x in range(width)] for y in range(height)])
    hit = expected[..., 0] >= 0
    assert 0.1 < hit.mean() < 1.0
    # A ray along an edge may hit either triangle; along an outline, one or none.
    assert (found.face[0] != expected[..., 0]).mean() <= 0.01
    hit &= found.mask[0]
    np.testing.assert_allclose(found.depth[0][hit], expected[hit][:, 1], atol=1e-4)
    assert np.isinf(found.depth[0][~found.mask[0]]).all()
    corners = egg.vertices[egg.faces[found.face[0][hit]]]
    points = (found.barycentric[0][hit][..., None] * corners).sum(axis=1)
    np.testing.assert_allclose(points, (camera.position + rays * expected[..., 1:])[hit], atol=1e-4)
    assert (found.barycentric[0][~found.mask[0]] == 0).all()


def test_a_mesh_outside_the_picture_is_not_seen(egg: Mesh) -> None:
    camera = camera_at(3.0, 20, 12)
    away = Camera.look_at(np.array([9.0, 0.0, 1.0]), np.array([19.0, 0.0, 1.0]), 20.0, (6, 10))
    aside = Camera.look_at(np.array([0.0, -3.0, 1.0]), np.array([30.0, 0.0, 1.0]), 60.0, (6, 10))
    rendering = render_grey(EmbreeMesh(egg), [away, camera, aside], 20, 12)
    assert rendering.mask.any(axis=(1, 2)).tolist() == [False, True, False]
    assert (rendering.grey[0] == BACKGROUND_GREY).all() and np.isinf(rendering.depth[0]).all()


@pytest.mark.parametrize("renderer", ["embree", pytest.param("pytorch3d", marks=needs_pytorch3d)])
def test_a_camera_inside_the_mesh_sees_only_what_is_before_it(egg: Mesh, renderer: str) -> None:
    camera = Camera.look_at(np.array([0.0, 0.0, 0.9]), np.array([0.0, 1.0, 0.9]), 10.0, (6, 10))
    found = prepare(renderer, egg).fragments([camera], 20, 12)
    assert found.mask.all()
    points = camera.position + camera.rays(20, 12) * found.depth[0][..., None]
    assert (points[..., 1] > 0).all()


def test_shading_is_lamberts(egg: Mesh) -> None:
    light = Light(direction=(0.0, 0.0, -2.0), ambient=0.2, diffuse=0.5)
    towards = np.array([[0.0, 0.0, 1.0]] * 3, np.float32)
    normals = np.array([[0, 0, 3], [0, 3, 3], [0, 1, -1]], np.float32)
    expected = [0.7, 0.2 + 0.5 / np.sqrt(2), 0.2]
    np.testing.assert_allclose(shade(normals, towards, light), expected, rtol=1e-6)
    np.testing.assert_allclose(shade(torch.tensor(normals), torch.tensor(towards), light), expected, rtol=1e-6)
    # A lamp at the camera lights what faces the camera most, from whichever side one looks.
    camera = camera_at(3.0, 40, 24)
    for degrees in (0, 135):
        rendering = render_grey(EmbreeMesh(egg), [camera.turned(degrees, np.zeros(3))], 40, 24, light)
        inside = rendering.grey[0][rendering.mask[0]]
        assert inside.max() == pytest.approx(0.7, abs=0.01) and inside.min() < 0.45
        assert rendering.depth[0][rendering.grey[0] > 0.69].max() < rendering.depth[0][rendering.mask[0]].mean()


def test_many_scenes_at_once_are_those_one_by_one(egg: Mesh, anny_mesh: Mesh) -> None:
    cameras = [camera_at(3.0, 32, 16), camera_at(4.0, 32, 16)]
    scenes = [Scene(egg, cameras), Scene(anny_mesh, cameras[:1])]
    together = EmbreeRenderer().render(scenes, 32, 16)
    assert [rendering.grey.shape for rendering in together] == [(2, 32, 16), (1, 32, 16)]
    for scene, rendering in zip(scenes, together, strict=True):
        alone = render_grey(EmbreeMesh(scene.mesh), scene.cameras, 32, 16)
        assert_pictures_alike(to_uint8(rendering.grey), to_uint8(alone.grey))


@pytest.mark.pytorch3d
@pytest.mark.skipif(WITHOUT_PYTORCH3D, reason="PyTorch3D is not installed (docs/bodies.md: how to build it)")
def test_pytorch3d_draws_the_same_picture(anny_mesh: Mesh, egg: Mesh) -> None:
    height, width = 64, 32
    pivot = anny_mesh.vertices.mean(axis=0)
    camera = Camera.look_at(pivot + np.array([0.0, -4.0, 0.4]), pivot, height * 2.1, (width / 2, height / 2))
    cameras = [camera.turned(degrees, pivot) for degrees in (0, 135)]
    scenes = [Scene(egg, [camera]), Scene(anny_mesh, cameras)]
    for ours, theirs in zip(
        open_renderer("embree").render(scenes, height, width),
        open_renderer("pytorch3d").render(scenes, height, width),
        strict=True,
    ):
        both = ours.mask & theirs.mask
        different, darker = (ours.mask != theirs.mask).mean(), abs((ours.grey - theirs.grey)[both].mean())
        print(f"mask differs in {different:.2%} of the pixels, mean grey inside by {darker:.1e}")
        assert both.mean() > 0.1
        assert different < 0.02 and darker < 0.02
        np.testing.assert_allclose(ours.depth[both], theirs.depth[both], atol=0.02)
        np.testing.assert_array_equal(theirs.grey[~theirs.mask], BACKGROUND_GREY)


@pytest.mark.gpu
@pytest.mark.pytorch3d
@pytest.mark.skipif(WITHOUT_PYTORCH3D, reason="PyTorch3D is not installed (docs/bodies.md: how to build it)")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pytorch3d_on_a_gpu_draws_the_same_picture(anny_mesh: Mesh) -> None:
    pivot = anny_mesh.vertices.mean(axis=0)
    camera = Camera.look_at(pivot + np.array([0.0, -4.0, 0.4]), pivot, 256 * 2.1, (64, 128))
    scenes = [Scene(anny_mesh, [camera.turned(view, pivot) for view in range(0, 360, 45)])] * 4
    for ours, theirs in zip(
        open_renderer("embree").render(scenes, 256, 128), open_renderer("auto").render(scenes, 256, 128), strict=True
    ):
        both = ours.mask & theirs.mask
        assert (ours.mask != theirs.mask).mean() < 0.02
        assert abs((ours.grey - theirs.grey)[both].mean()) < 0.02


def test_auto_is_embree_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(open_renderer("auto"), EmbreeRenderer)


def test_unknown_renderer_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'opengl': no such renderer; known: auto, embree, pytorch3d"):
        open_renderer("opengl")


def test_without_pytorch3d_the_message_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['pytorch3d'] = None\n"
        "from jgcl_ray.errors import UserError\n"
        "from jgcl_ray.meshes.renderers import open_renderer\n"
        "try: open_renderer('pytorch3d')\n"
        "except UserError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "github.com/facebookresearch/pytorch3d" in shown and "--no-build-isolation" in shown


def test_pictures_are_rounded_to_eight_bits() -> None:
    np.testing.assert_array_equal(to_uint8(np.array([0.0, BACKGROUND_GREY, 0.9999, 1.0])), [0, 128, 255, 255])
