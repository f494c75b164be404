"""What the tests of meshes/ make up: a small body in SMPL's file format, and parameters of images."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy import sparse

PARENTS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def make_smpl_arrays(num_betas: int) -> dict[str, np.ndarray]:
    """Arrays under SMPL's keys: an egg 1.7 m high with 24 joints, everything else drawn by chance."""
    random = np.random.default_rng(3)
    ball = trimesh.creation.icosphere(subdivisions=2)
    template = np.array(ball.vertices) * [0.25, 0.85, 0.15]
    count = len(template)
    regressor = random.random((24, count)) * (random.random((24, count)) < 0.1)
    weights = random.random((count, 24)) ** 8
    return {
        "v_template": template,
        "shapedirs": random.normal(scale=0.01, size=(count, 3, num_betas)),
        "posedirs": random.normal(scale=0.005, size=(count, 3, 207)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.array([(2**32 - 1, *PARENTS[1:]), range(24)], np.uint32),
        "f": np.array(ball.faces, np.uint32),
    }


def as_smpl_object(arrays: dict[str, np.ndarray]) -> dict[str, object]:
    """The arrays as SMPL's own pickles hold them: the joint regressor sparse, and keys that nobody needs."""
    return {**arrays, "J_regressor": sparse.csc_matrix(arrays["J_regressor"]), "bs_type": "lrotmin"}


def make_parameters(names: list[str], /, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Body parameters of images; a change of None leaves the key out."""
    random = np.random.default_rng(5)
    pose = random.normal(scale=0.1, size=(len(names), 24, 3))
    pose[:, 0] = [np.pi, 0, 0]  # y down, facing the camera
    arrays: dict[str, np.ndarray | None] = {
        "names": np.array(names),
        "pose": pose,
        "betas": random.normal(size=(len(names), 10)),
        "camera": np.tile([0.9, 0.0, 0.05], (len(names), 1)),
        **changes,
    }
    return {key: array for key, array in arrays.items() if array is not None}
