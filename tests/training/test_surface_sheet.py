"""The sheet of turned training people."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rounding import assert_pictures_alike
from tiny_run import configured

from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.data.loaders import open_images
from jgcl_ray.generation.people import open_people
from jgcl_ray.generation.surface_people import surface_people
from jgcl_ray.models.textured_generator import load_views, refined
from jgcl_ray.training import surface_sheet as sheets
from jgcl_ray.training.surface_sheet import BODIES, SHOWN, surface_sheet


@pytest.mark.parametrize(("height", "drafts"), [(96, False), (92, True)])
def test_rows_are_photos_and_the_views_that_generate_draws(
    walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, drafts: bool
) -> None:
    config = configured(walkers, tmp_path, f"data.height={height}")
    images = open_images(open_dataset(config.data, config.walkers).train, config.data)
    shown: list[list[sheets.Tile]] = []

    def keep(tiles: list[list[sheets.Tile]], titles: list[str]) -> None:
        shown.extend(tiles)
        assert titles == ["photo", *(f"{view}°" for view in range(45, 360, 45))]

    monkeypatch.setattr(sheets, "contact_sheet", keep)
    surface_sheet(images, config, tmp_path)
    assert len(shown) == SHOWN
    people = open_people(walkers / "bounding_box_train", config)
    refine = None if drafts else partial(refined, load_views())
    first, last = surface_people(people, [0, len(images) - 1], [0, 45, 180], refine)
    for row, person in ((shown[0], first), (shown[-1], last)):
        assert np.array_equal(np.asarray(row[0].image), person.photo)
        assert_pictures_alike(np.asarray(row[1].image), person.views[45])
        assert_pictures_alike(np.asarray(row[4].image), person.views[180])


def test_bodies_are_estimated_on_what_is_shown_alone(walkers: Path, tmp_path: Path) -> None:
    config = configured(walkers, tmp_path, "meshes.source=estimated")
    images = open_images(open_dataset(config.data, config.walkers).train, config.data)
    sheet = surface_sheet(images, config, tmp_path)
    assert sheet is not None and sheet.width > 8 * 96
    with np.load(tmp_path / BODIES) as bodies:
        assert len(bodies["names"]) == SHOWN


def test_no_sheet_where_bodies_are_not_known(walkers: Path, tmp_path: Path) -> None:
    config = configured(walkers, tmp_path, "meshes.source=folders", "meshes.root=/nowhere")
    images = open_images(open_dataset(config.data, config.walkers).train, config.data)
    assert surface_sheet(images, config, tmp_path) is None
