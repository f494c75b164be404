"""Which point of the body of reference each pixel sees, from every source that knows the body."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mesh_samples import make_parameters
from PIL import Image

from jgcl_ray.config import DataConfig, MeshesConfig
from jgcl_ray.data.walkers.rendering import WalkersSize, render
from jgcl_ray.errors import UserError
from jgcl_ray.meshes import upright
from jgcl_ray.meshes.body_models import AnnyBody, BodyModel, smpl_body
from jgcl_ray.meshes.body_parameters import read_body_parameters
from jgcl_ray.meshes.drawing import Bodies
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.light_body import light_body
from jgcl_ray.meshes.projection_folders import VIEWS, view_folder
from jgcl_ray.meshes.projections import ProjectionSource, open_projections
from jgcl_ray.meshes.shading import BACKGROUND_GREY
from jgcl_ray.meshes.walker_bodies import read_truth

HEIGHT, WIDTH = 96, 48
DATA = DataConfig(height=HEIGHT, width=WIDTH)
BACKGROUND = round(255 * BACKGROUND_GREY)


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    yield
    for cache in (read_body_parameters, smpl_body, read_truth, upright.upright_pictures, upright.upright_coordinates):
        cache.cache_clear()


def check(source: ProjectionSource, row: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """At every view coordinates are where the picture shows the body, to the pixel, and go with it to a process."""
    assert source.knows_bodies
    for view in VIEWS[::3]:
        coordinates = source.coordinates(row, view)
        assert coordinates.shape == (*size, 3) and coordinates.dtype == np.float16
        seen = ~np.isnan(coordinates).any(axis=2)
        assert (seen == ~np.isnan(coordinates).all(axis=2)).all()
        assert 0.05 < seen.mean() < 0.9
        assert (seen == (source.load(row, view) != BACKGROUND)).mean() > 0.995  # a face may be as grey as that
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.coordinates(row, 45), source.coordinates(row, 45))
    with pytest.raises(ValueError):
        source.coordinates(row, 30)


def check_vertices(source: ProjectionSource, row: int, bodies: Bodies, model: BodyModel, view: int) -> None:
    """A vertex in sight: the pixel that it falls into sees the place where the vertex is on the unposed body."""
    (scene,) = bodies.scenes([row], [[view]], HEIGHT, WIDTH)
    depth = EmbreeMesh(scene.mesh).fragments(scene.cameras, HEIGHT, WIDTH).depth[0]
    x, y, away = scene.cameras[0].project(scene.mesh.vertices).T
    column, line = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (column >= 0) & (column < WIDTH) & (line >= 0) & (line < HEIGHT)
    in_sight = np.zeros(len(away), bool)
    in_sight[inside] = np.abs(depth[line[inside], column[inside]] - away[inside]) < 0.02
    assert in_sight.sum() > 20
    seen = source.coordinates(row, view)[line[in_sight], column[in_sight]].astype(float)
    off = np.linalg.norm(seen - model.reference[in_sight], axis=1)
    assert np.median(off) < 0.03 and np.quantile(off, 0.9) < 0.12  # a pixel is 2 cm


def test_of_smpl_parameters(tmp_path: Path, smpl_npz: Path) -> None:
    file = tmp_path / "parameters.npz"
    np.savez(file, **make_parameters(["a.jpg", "b.jpg"]))
    meshes = MeshesConfig(source="parameters", parameters=file, smpl=smpl_npz)
    source = open_projections(meshes, DATA, ["b.jpg"], "train")
    check(source, 0)
    bodies = Bodies.open(file, smpl_npz)
    check_vertices(open_projections(meshes, DATA, ["a.jpg", "b.jpg"], "train"), 1, bodies, bodies.model, 90)
    template = smpl_body(smpl_npz)._template.numpy()
    np.testing.assert_allclose(bodies.model.reference[:, 2], template[:, 1])  # SMPL's y points up
    np.testing.assert_allclose(bodies.model.reference[:, 1], -template[:, 2])  # and its z ahead


@pytest.mark.parametrize("source_name", ["parameters", "estimated"])
def test_of_anny_parameters(tmp_path: Path, anny: AnnyBody, source_name: str) -> None:
    pose = np.tile(np.eye(3), (1, anny.num_joints, 1, 1))
    pose[0, 0] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # z up, facing -y -> y down, facing the camera
    file = tmp_path / "bodies.npz"
    camera, phenotypes = np.array([[1.05, 0.0, 0.05]]), np.full((1, 6), 0.5)
    np.savez(file, names=np.array(["a.jpg"]), pose=pose, phenotypes=phenotypes, camera=camera)
    source = open_projections(MeshesConfig(source=source_name, parameters=file), DATA, ["a.jpg"], "train")
    check(source, 0)
    light = source_name == "estimated"
    bodies = Bodies.open(file, None, light)
    check_vertices(source, 0, bodies, light_body() if light else anny, 45)
    front, back = (source.coordinates(0, view).astype(float) for view in (0, 180))
    assert np.nanmean(front[..., 1]) < np.nanmean(back[..., 1]) - 0.05  # y points backwards
    assert np.nanmean(front[:, : WIDTH // 2, 0]) < -0.1 < 0.1 < np.nanmean(front[:, WIDTH // 2 :, 0])  # its left
    assert np.nanmean(front[:20, :, 2]) > 0.4 and np.nanmean(front[-20:, :, 2]) < -0.4


def test_the_body_of_reference_is_its_own_mirror_image(anny: AnnyBody) -> None:
    for body in (anny, light_body()):
        mirrored = body.reference * [-1, 1, 1]
        nearest = np.linalg.norm(mirrored[::7, None] - body.reference[None], axis=2).min(axis=1)
        assert np.quantile(nearest, 0.99) < 0.04


def test_of_upright_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    upright.upright_pictures.cache_clear()
    data = DataConfig(height=64, width=32)
    source = open_projections(MeshesConfig(source="upright"), data, ["a.jpg", "b.jpg"], "train")
    check(source, 1, (64, 32))
    monkeypatch.setattr(upright, "draw_coordinates", lambda height, width: pytest.fail("drawn again"))
    upright.upright_coordinates.cache_clear()
    source.coordinates(0, 0)


def test_of_walkers(tmp_path: Path) -> None:
    root = tmp_path / "set"
    render(root, WalkersSize(train=2, test=2, images=2, true_views=0, height=96), seed=5, workers=1)
    for split, folder in (("train", "bounding_box_train"), ("test", "query")):
        images = root / folder
        names = sorted(path.name for path in images.iterdir())
        data = DataConfig(name="walkers", root=root, height=HEIGHT, width=WIDTH)
        source = open_projections(MeshesConfig(), data, names, split, images)  # type: ignore[arg-type]
        check(source, len(names) - 1)
    large = DataConfig(name="walkers", root=root, height=256, width=128)
    coordinates = open_projections(MeshesConfig(), large, names, "test", images).coordinates(0, 45)
    small = np.isnan(source.coordinates(0, 45)[..., 0]).mean()
    assert coordinates.shape == (256, 128, 3) and abs(np.isnan(coordinates[..., 0]).mean() - small) < 0.02
    (root / "views.npz").write_bytes(b"PK")
    read_truth.cache_clear()
    with pytest.raises(UserError, match=r"views\.npz: damaged .*render the walkers again"):
        open_projections(MeshesConfig(), large, names, "test", images).coordinates(0, 0)


def test_pictures_in_folders_cannot_tell(tmp_path: Path) -> None:
    for view in VIEWS:
        folder = view_folder(tmp_path, "train", view)
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(folder / "a.png")
    source = open_projections(MeshesConfig(source="folders", root=tmp_path), DATA, ["a.jpg"], "train")
    assert not source.knows_bodies
    with pytest.raises(UserError, match=r"do not tell .*: take meshes\.source=parameters"):
        source.coordinates(0, 45)
