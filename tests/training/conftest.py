"""The walkers of the tiny runs, rendered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from jgcl_ray.data.walkers import WalkersSize, render


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "walkers"
    render(folder, WalkersSize(train=4, test=2, images=4, true_views=0, height=80), seed=2, workers=1)
    return folder
