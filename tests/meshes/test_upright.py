"""Upright walkers: what they show, that they fit a crop, and that an image's is the same wherever it is asked for."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jgcl_ray.config import DataConfig, MeshesConfig
from jgcl_ray.errors import UserError
from jgcl_ray.meshes import upright
from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.projection_folders import VIEWS
from jgcl_ray.meshes.projections import ProjectionSource, open_projections
from jgcl_ray.meshes.shading import BACKGROUND_GREY
from jgcl_ray.meshes.upright import BODIES, BUILDS, INSTANTS, SIDES, STEP, upright_pictures

HEIGHT, WIDTH = 64, 32
NAMES = [f"cam{row % 3}/{row:06d}.jpg" for row in range(400)] + ["übung/a b.png", "odd\udcff.jpg"]
BACKGROUND = round(255 * BACKGROUND_GREY)


@pytest.fixture(scope="module")
def cache(anny: AnnyBody, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of upright walkers alone: the body's own tables, which take a minute, are loaded before it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("JGCL_RAY_CACHE", str(cache))
    upright_pictures.cache_clear()
    yield
    upright_pictures.cache_clear()


@pytest.fixture
def pictures() -> np.ndarray:
    return np.array(upright_pictures(HEIGHT, WIDTH))


def opened(names: list[str], height: int = HEIGHT, width: int = WIDTH) -> ProjectionSource:
    return open_projections(MeshesConfig(source="upright"), DataConfig(height=height, width=width), names, "train")


def test_bodies_fill_the_crop_as_a_detector_frames_them(pictures: np.ndarray) -> None:
    person = pictures != BACKGROUND
    assert 0.15 < person.mean() < 0.4
    for body in person:
        rows = np.flatnonzero(body.any(axis=(0, 2)))  # over all sides: turning a body does not change its frame
        assert 1 <= rows[0] <= 4 and HEIGHT - 5 <= rows[-1] <= HEIGHT - 2
    heads = person[:, :, 3:7].any(axis=2)
    middle = (heads * np.arange(WIDTH)).sum(axis=2) / heads.sum(axis=2)
    assert np.abs(middle - WIDTH / 2).max() < 5
    cut_off = person[..., [0, -1]].sum(axis=(2, 3)) / person.sum(axis=(2, 3))
    assert cut_off.max() < 0.05  # a hand or a toe


def test_sides_go_round_the_body(pictures: np.ndarray) -> None:
    """Seen from behind, an outline is the mirror image of that from ahead, but for perspective."""
    person = pictures != BACKGROUND

    def overlap(one: np.ndarray, other: np.ndarray) -> float:
        return float((one & other).sum() / (one | other).sum())

    for body in person:
        for side in range(0, SIDES, 3):
            behind = body[(side + SIDES // 2) % SIDES]
            assert overlap(body[side], behind[:, ::-1]) > 0.7
    strides = person[INSTANTS.index((0.0, 0.7))]
    width = [int(side.any(axis=0).sum()) for side in strides]
    assert min(width[90 // STEP], width[270 // STEP]) > 1.3 * max(width[0], width[180 // STEP])


def test_a_quarter_turn_is_counter_clockwise(pictures: np.ndarray) -> None:
    """Seen from above, as for the walkers: who faced the camera then faces right, and the toes point there."""
    for standing in pictures[:: len(INSTANTS)] != BACKGROUND:
        x = np.arange(WIDTH)
        toes, shins = (standing[:, rows].mean(axis=1) for rows in (slice(-7, None), slice(-20, -10)))
        ahead = (toes @ x / toes.sum(axis=1)) - (shins @ x / shins.sum(axis=1))
        assert ahead[90 // STEP] > 1 and ahead[270 // STEP] < -1


def test_every_image_draws_its_own_and_keeps_it(pictures: np.ndarray) -> None:
    source = opened(NAMES)
    seen = {source.load(row, 0).tobytes() for row in range(len(NAMES))}
    assert len(seen) > 200  # of 360, 402 draws
    order = list(range(len(NAMES)))[::-1]
    elsewhere = opened([NAMES[row] for row in order])
    for row in (0, 17, len(NAMES) - 1):
        for view in VIEWS:
            np.testing.assert_array_equal(elsewhere.load(order.index(row), view), source.load(row, view))


def test_draws_are_even() -> None:
    drawn = np.array([upright._draw(f"{row}.jpg") for row in range(72_000)])
    counts = np.bincount(drawn[:, 0] * SIDES + drawn[:, 1], minlength=BODIES * SIDES)
    assert len(counts) == BODIES * SIDES
    expected = 72_000 / len(counts)
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_draws_do_not_change_from_release_to_release() -> None:
    """A run that is resumed elsewhere must see the same projections."""
    assert [upright._draw(name) for name in ("a.jpg", "cam1/000001_00.jpg", "")] == [(0, 9), (12, 9), (1, 12)]


def test_the_views_of_an_image_are_its_body_turned(pictures: np.ndarray) -> None:
    source = opened(NAMES)
    for row in range(5):
        body, side = upright._draw(NAMES[row])
        for view in VIEWS:
            grey = source.load(row, view)
            assert grey.shape == (HEIGHT, WIDTH) and grey.dtype == np.uint8
            np.testing.assert_array_equal(grey, pictures[body, (side + view // 15) % 24])
    with pytest.raises(ValueError):
        source.load(0, 30)


def test_another_process_has_the_same(cache: Path) -> None:
    source = opened(NAMES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).load(1, 45), source.load(1, 45))


def test_drawn_once_into_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(upright_pictures(HEIGHT, WIDTH))
    upright_pictures.cache_clear()
    monkeypatch.setattr(upright, "draw_pictures", lambda height, width: pytest.fail("drawn again"))
    np.testing.assert_array_equal(upright_pictures(HEIGHT, WIDTH), first)
    assert [path.name for path in cache.glob("*upright*")] == [f"upright-{HEIGHT}x{WIDTH}-r{upright.REVISION}.npy"]


def test_damaged_cache_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upright_pictures(HEIGHT, WIDTH)
    (whole,) = cache.glob("upright*")  # beside it, the body's own files may lie there
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path))
    for content in (b"", whole.read_bytes()[:5000], whole.read_bytes().replace(b"|u1", b"|i1", 1)):
        (tmp_path / whole.name).write_bytes(content)
        upright_pictures.cache_clear()
        with pytest.raises(UserError, match=rf"{whole.name}: damaged .*; delete it"):
            upright_pictures(HEIGHT, WIDTH)


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(upright, "draw_pictures", lambda height, width: np.zeros(1, np.uint8))
    with pytest.raises(UserError, match=r"cannot write to .*set JGCL_RAY_CACHE"):
        upright_pictures(HEIGHT, WIDTH)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_square_images_are_covered_too(pictures: np.ndarray) -> None:
    """The same box resized out of proportion, as the images are."""
    square = np.array(upright.draw_pictures(32, 32)[1, ::6] != BACKGROUND)
    tall = pictures[1, ::6] != BACKGROUND
    shrunk = tall.reshape(4, 32, 2, 32).mean(axis=2)
    assert np.abs(square - shrunk).mean() < 0.03
    assert len(BUILDS) * len(INSTANTS) == BODIES
