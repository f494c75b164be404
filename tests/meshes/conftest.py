"""The default body, and a small one in SMPL's file format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mesh_samples import make_smpl_arrays

from jgcl_ray.meshes.body_models import AnnyBody, anny_body
from jgcl_ray.meshes.cameras import Mesh


@pytest.fixture(scope="session")
def anny() -> AnnyBody:
    return anny_body()


@pytest.fixture(scope="session")
def anny_mesh(anny: AnnyBody) -> Mesh:
    """A standing Anny with one foot before the other: no two views are alike."""
    pose = np.tile(np.eye(3, dtype=np.float32), (1, 104, 1, 1))
    pose[0, anny.joints["upperleg01.L"]] = [[1, 0, 0], [0, 0.9, 0.436], [0, -0.436, 0.9]]
    return Mesh(anny.vertices(np.full((1, 6), 0.5, np.float32), pose)[0], anny.faces)


@pytest.fixture(scope="session")
def smpl_arrays() -> dict[str, np.ndarray]:
    return make_smpl_arrays(10)


@pytest.fixture
def smpl_npz(tmp_path: Path, smpl_arrays: dict[str, np.ndarray]) -> Path:
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **smpl_arrays)
    return tmp_path / "SMPL_NEUTRAL.npz"
