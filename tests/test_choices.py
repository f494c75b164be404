"""Every name of a choice leads to the part that it stands for."""

from __future__ import annotations

from pkgutil import resolve_name

import pytest

from jgcl_ray import choices
from jgcl_ray.errors import UserError
from jgcl_ray.models.backbone import Backbone


@pytest.mark.parametrize("name", choices.DATA_SETS)
def test_data_set(name: str) -> None:
    assert callable(resolve_name(choices.DATA_SETS[name]))


def test_backbones_are_all_those_of_their_modules() -> None:
    found = {place: resolve_name(place) for place in choices.BACKBONES.values()}
    assert list(choices.BACKBONES) == [name for backbones in found.values() for name in backbones]
    assert all(isinstance(each, Backbone) for backbones in found.values() for each in backbones.values())


@pytest.mark.parametrize("name", choices.RENDERERS)
def test_renderer(name: str) -> None:
    try:
        renderer = resolve_name(choices.RENDERERS[name])
    except UserError as error:
        assert name == "pytorch3d" and "PyTorch3D cannot be imported" in str(error)
    else:
        assert callable(renderer.render)
