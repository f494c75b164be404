"""Views of training people for the contrast: what they show, by which camera, and that a draw alone decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_pictures_alike

from jgcl_ray.batches import NOVEL_VIEWS
from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.loaders import open_images
from jgcl_ray.data.samplers import VIEW, Draw
from jgcl_ray.data.surface_views import CameraColours, SurfaceLayers, ViewedImages
from jgcl_ray.data.transforms import Augmentation, denormalise_images
from jgcl_ray.meshes.correspondence import see_surface
from jgcl_ray.meshes.projections import ProjectionSource, open_projections

NO_AUGMENTATION = Augmentation(0.0, 0, 0.0)


@pytest.fixture(scope="module")
def images(walkers: Path) -> ImageStore:
    data = DataConfig(root=walkers, height=80, width=40, cache=True)
    return open_images(open_dataset(data).train, data)


@pytest.fixture(scope="module")
def projections(images: ImageStore, walkers: Path) -> ProjectionSource:
    from jgcl_ray.config import MeshesConfig

    data = DataConfig(root=walkers, height=80, width=40)
    return open_projections(MeshesConfig(), data, images.split.paths, "train", images.split.folder)


def viewed(images: ImageStore, projections: ProjectionSource, camera: str, keep: bool = True) -> ViewedImages:
    return ViewedImages(SurfaceLayers(images, projections, keep), NO_AUGMENTATION, 5, 2, camera)  # type: ignore[arg-type]


def side_of(draw: Draw) -> int:
    return NOVEL_VIEWS[int(draw.generator(5, VIEW).integers(len(NOVEL_VIEWS)))]


def test_a_view_by_ones_own_camera_is_the_surface_view(images: ImageStore, projections: ProjectionSource) -> None:
    draws = [Draw(row, epoch=3) for row in range(0, len(images), 3)]
    views, cameras = viewed(images, projections, "own").views(draws)
    assert cameras == images.split.cameras[[draw.row for draw in draws]].tolist()
    for draw, view in zip(draws, views, strict=True):
        photo = torch.from_numpy(images.load(draw.row)).permute(2, 0, 1)[None].float() / 255
        own, turned = (torch.from_numpy(projections.coordinates(draw.row, d))[None] for d in (0, side_of(draw)))
        expected = see_surface(photo, own).draw(turned).picture[0].permute(1, 2, 0) * 255
        assert_pictures_alike(view, expected.round().clamp(0, 255).to(torch.uint8).numpy())


def test_by_another_camera_it_has_that_ones_backdrop_and_colours(
    images: ImageStore, projections: ProjectionSource
) -> None:
    source = viewed(images, projections, "other")
    draws = [Draw(row, epoch) for epoch in range(3) for row in range(len(images))]
    views, cameras = source.views(draws)
    seen = images.split.cameras
    assert all(camera != seen[draw.row] for draw, camera in zip(draws, cameras, strict=True))
    assert set(cameras) == set(seen.tolist())
    for draw, view, camera in zip(draws, views, cameras, strict=True):
        cover = source.layers.of(draw.row, NOVEL_VIEWS.index(side_of(draw)))[..., 3]
        free = cover == 0
        backdrops = [source.layers.backdrop(row) for row in np.flatnonzero(seen == camera)]
        assert any((view[free] == backdrop[free]).all() for backdrop in backdrops)
        layer = source.layers.of(draw.row, NOVEL_VIEWS.index(side_of(draw)))[..., :3][cover == 255].astype(float)
        mean, deviation = source.colours.mean, source.colours.deviation
        own = int(seen[draw.row])
        expected = (layer - mean[own]) / deviation[own] * deviation[camera] + mean[camera]
        assert np.abs(view[cover == 255] - expected.clip(0, 255)).max() <= 0.51


def test_colours_of_cameras_are_their_images() -> None:
    class Store:
        split = type("S", (), {"cameras": np.array([1, 4, 1, 4, 4])})()

        def load(self, row: int) -> np.ndarray:
            return np.random.default_rng(row).integers(0, 60 * (1 + row), (6, 4, 3)).astype(np.uint8)

    store = Store()
    colours = CameraColours.of(store)  # type: ignore[arg-type]
    for camera, rows in ((1, [0, 2]), (4, [1, 3, 4])):
        pixels = np.concatenate([store.load(row).reshape(-1, 3) for row in rows]).astype(float)
        np.testing.assert_allclose(colours.mean[camera], pixels.mean(0), rtol=1e-5)
        np.testing.assert_allclose(colours.deviation[camera], pixels.std(0), rtol=1e-5)


@pytest.mark.parametrize("camera", ["own", "other"])
def test_a_draw_alone_decides(images: ImageStore, projections: ProjectionSource, camera: str) -> None:
    """Whether layers are kept or drawn each time, whatever came before, in whatever batch."""
    draws = [Draw(row, epoch=1, repetition=row % 2) for row in (3, 0, 7, 7, 1, 2)]
    once, again = viewed(images, projections, camera), viewed(images, projections, camera, keep=False)
    assert once.layers.kept and not again.layers.kept
    whole = once.batch(draws)
    assert whole.view_index.tolist() == [3, 7, 1] and whole.index.tolist() == [3, 0, 7, 7, 1, 2]
    parts = [again.batch(draws[4:]), again.batch(draws[:4])][::-1]
    for name in ("image", "index", "view", "view_index", "view_camera"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
    other = viewed(images, projections, camera).batch([Draw(row, epoch=2) for row in (3, 0)])
    assert not torch.equal(other.view[0], whole.view[0])


def test_a_photo_without_a_body_is_learnt_from_as_it_is(images: ImageStore, projections: ProjectionSource) -> None:
    class Nowhere:
        knows_bodies = True

        def coordinates(self, row: int, view: int) -> np.ndarray:
            return np.full((80, 40, 3), np.nan, np.float16)

    batch = viewed(images, Nowhere(), "other").batch([Draw(2), Draw(5)])  # type: ignore[arg-type]
    assert np.array_equal(denormalise_images(batch.view)[0].numpy(), images.load(2))
    assert batch.view_camera.tolist() == [images.split.cameras[2]]


def test_of_one_camera_alone_views_stay_in_it(images: ImageStore, projections: ProjectionSource) -> None:
    source = viewed(images, projections, "other")
    source.colours.rows.clear()
    source.colours.rows[int(images.split.cameras[4])] = np.array([4])
    assert source.views([Draw(4)])[1] == [images.split.cameras[4]]


def test_views_are_augmented_by_draws_of_their_own(images: ImageStore, projections: ProjectionSource) -> None:
    """Not as the photo beside them: the pair would share crop and mirroring."""
    layers = SurfaceLayers(images, projections, True)
    flips = ViewedImages(layers, Augmentation(0.5, 0, 0.0), 5, 1, "own")
    draws = [Draw(row) for row in range(len(images))]
    batch, views = flips.batch(draws), flips.views(draws)[0]
    photos = [images.load(row) for row in range(len(images))]
    mirrored = []
    for shown, plain in ((batch.image, photos), (batch.view, views)):
        pixels = denormalise_images(shown).numpy()
        same = [np.array_equal(one, other) for one, other in zip(pixels, plain, strict=True)]
        turned = [np.array_equal(one, other[:, ::-1]) for one, other in zip(pixels, plain, strict=True)]
        assert all(a != b for a, b in zip(same, turned, strict=True))
        mirrored.append(turned)
    assert mirrored[0] != mirrored[1] and any(mirrored[1]) and not all(mirrored[1])
