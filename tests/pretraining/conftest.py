"""A few people's cut-outs, rendered once for all tests of the pre-training."""

from __future__ import annotations

import pytest

from jgcl_ray.estimator_training.cutouts import Cutouts, render_shard


@pytest.fixture(scope="session")
def street() -> Cutouts:
    return render_shard(seed=3, number=0, figures=4)
