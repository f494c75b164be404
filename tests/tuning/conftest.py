"""Tiny runs, as those of the training tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jgcl_ray.data.walkers import WalkersSize, render

sys.path.append(str(Path(__file__).parents[1] / "training"))  # tiny_run


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "walkers"
    render(folder, WalkersSize(train=4, test=2, images=4, true_views=0, height=80), seed=2, workers=1)
    return folder
