"""Per-image body parameters: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mesh_samples import make_parameters
from scipy.spatial.transform import Rotation

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_parameters import read_body_parameters

NAMES = ["0001_c1s1_000001_00.jpg", "a/0002_c2s1_000001_00.jpg", "a/0003_c2s1_000001_00.jpg"]


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "parameters.npz"
    np.savez(path, **make_parameters(NAMES, **changes))
    read_body_parameters.cache_clear()
    return path


def test_axis_angle_and_matrices_are_the_same(tmp_path: Path) -> None:
    vectors = make_parameters(NAMES)["pose"]
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(3, 24, 3, 3)
    for pose in (vectors, vectors.reshape(3, 72), matrices):
        read = read_body_parameters(write(tmp_path, pose=pose))
        assert read.names == tuple(NAMES) and read.body == "smpl" and read.pose.dtype == np.float32
        np.testing.assert_allclose(read.pose, matrices, atol=1e-6)


def test_images_may_share_a_stem(tmp_path: Path) -> None:
    read = read_body_parameters(write(tmp_path, names=np.array(["a.jpg", "a.png", "b.jpg"])))
    assert read.pictures == ["a.jpg.png", "a.png.png", "b.png"]
    np.testing.assert_array_equal(read.rows_of(["a.png", "a.jpg"], tmp_path), [1, 0])


def test_rows_follow_the_data_set(tmp_path: Path) -> None:
    read = read_body_parameters(write(tmp_path))
    np.testing.assert_array_equal(read.rows_of([NAMES[2], NAMES[0]], tmp_path), [2, 0])
    with pytest.raises(
        UserError, match=r"no parameters for 2 of 3 images, first x\.jpg, y\.jpg; .* begin with 0001_c1"
    ):
        read.rows_of(["x.jpg", NAMES[0], "y.jpg"], tmp_path)


def test_the_camera_covers_the_images_own_field(tmp_path: Path) -> None:
    """A point of the body falls on the same fraction of the picture, whatever the sizes of image and picture."""
    read = read_body_parameters(write(tmp_path, size=np.array([[160, 60], [100, 50], [90, 120]])))
    point = np.array([0.2, -0.4, 0.1])
    for row, (height, width) in enumerate([(160, 60), (100, 50), (90, 120)]):
        own = read.camera_of(row, height, width).project(point)[:2] / [width, height]
        half = max(height, width) / 2
        np.testing.assert_allclose(
            own, 0.5 + 0.9 * half * (point[:2] + np.array([0, 0.05])) / [width, height], atol=2e-3
        )
        np.testing.assert_allclose(read.camera_of(row, 256, 128).project(point)[:2] / [128, 256], own, atol=1e-9)


def test_annys_parameters(tmp_path: Path) -> None:
    pose = np.tile(np.eye(3), (3, 104, 1, 1))
    read = read_body_parameters(write(tmp_path, betas=None, phenotypes=np.full((3, 6), 0.5), pose=pose))
    assert read.body == "anny" and read.shape.shape == (3, 6) and read.pose.shape == (3, 104, 3, 3)


def improper() -> np.ndarray:
    return np.tile(np.diag([1.0, 1.0, -1.0]), (3, 24, 1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": None}, "holds betas, camera, names; expected names, pose, camera, and either betas"),
        ({"betas": None}, "holds camera, names, pose; expected"),
        ({"phenotypes": np.zeros((3, 6))}, "expected names, pose, camera, and either betas"),
        ({"names": np.arange(3)}, r"names is int64 \(3,\), expected text"),
        ({"names": np.array([], str)}, "expected text of shape"),
        ({"names": np.array(["a.jpg", "b.jpg", "a.jpg"])}, "names holds a.jpg twice"),
        ({"names": np.array(["a.jpg", "../b.jpg", "c.jpg"])}, r"'\.\./b\.jpg' in names is not a path relative"),
        ({"names": np.array(["a.jpg", "/b.jpg", "c.jpg"])}, "'/b.jpg' in names is not a path relative"),
        ({"names": np.array(["a.jpg", "b\\b.jpg", "c.jpg"])}, "in names is not a path relative"),
        ({"names": np.array(["a.jpg", ".", "c.jpg"])}, "'.' in names is not a path relative"),
        ({"names": np.array(["a.jpg", "b\0b.jpg", "c.jpg"])}, "in names is not a path relative"),
        ({"names": np.array(NAMES, object)}, "cannot be read as an npz of plain arrays"),
        ({"pose": np.zeros((3, 23, 3))}, r"pose is float64 \(3, 23, 3\), expected numbers of shape \(3, 24, 3\) or"),
        ({"pose": np.zeros((2, 24, 3))}, r"pose is float64 \(2, 24, 3\)"),
        ({"pose": np.full((3, 24, 3), np.nan)}, r"pose of 0001_.* is not finite \(3 such"),
        ({"pose": np.full((3, 24, 3, 3), 0.5)}, "pose of 0001_.* is not made of rotation matrices"),
        ({"pose": improper()}, "is not made of rotation matrices"),
        ({"betas": np.zeros((3,))}, r"betas is float64 \(3,\), expected numbers of shape \(3, any\)"),
        ({"betas": np.array([["x"] * 10] * 3)}, "betas is <U1"),
        ({"camera": np.zeros((3, 4))}, "camera is float64"),
        (
            {"camera": np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]])},
            "camera of a/0002_.* has a scale that is not positive",
        ),
        ({"camera": np.array([[1, 0, 0], [1, 0, np.inf], [1, 0, 0]])}, "camera of a/0002_.* is not finite"),
        ({"size": np.array([[10, 10], [0, 5], [3, 3]])}, "size of a/0002_.* is below one pixel"),
        ({"betas": np.full((3, 10), 1e30)}, r"betas of 0001_.* is beyond 1e\+06 \(3 such"),
        ({"camera": np.array([[1, 0, 0], [1e30, 0, 0], [1, 0, 0]])}, "camera of a/0002_.* is beyond"),
        ({"size": np.array([10, 10, 10])}, r"size is int64 \(3,\)"),
    ],
)
def test_bad_parameters_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        read_body_parameters(path)
    assert str(path) in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    read_body_parameters.cache_clear()
    with pytest.raises(UserError, match=r"no parameter file .*none\.npz"):
        read_body_parameters(tmp_path / "none.npz")
    for number, content in enumerate((b"", b"text", write(tmp_path).read_bytes()[:200])):
        (tmp_path / f"{number}.npz").write_bytes(content)
        with pytest.raises(UserError, match=rf"{number}\.npz is not an npz: save with"):
            read_body_parameters(tmp_path / f"{number}.npz")
    whole = bytearray(write(tmp_path).read_bytes())
    whole[100:400] = bytes(300)
    (tmp_path / "damaged.npz").write_bytes(whole)
    with pytest.raises(UserError, match=r"damaged\.npz cannot be read as an npz of plain arrays"):
        read_body_parameters(tmp_path / "damaged.npz")
