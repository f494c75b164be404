"""SMPL from npz and pickle, against a slow skinning; pickles that name anything else are refused."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mesh_samples import as_smpl_object, make_smpl_arrays
from scipy.spatial.transform import Rotation

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_models import AnnyBody, SMPLBody
from jgcl_ray.meshes.smpl_files import read_smpl


@contextmanager
def fake_chumpy() -> Iterator[types.ModuleType]:
    """Classes under chumpy's names, for as long as a pickle is written."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch", "__init__": lambda self, **state: self.__dict__.update(state)})
    reordering.Select = type("Select", (ch.Ch,), {"__module__": "chumpy.reordering"})
    ch.Select = reordering.Select
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}
    sys.modules.update(modules)
    try:
        yield ch
    finally:
        for name in modules:
            del sys.modules[name]


def slow_skinning(
    arrays: dict[str, np.ndarray], betas: np.ndarray, pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and root of one body: SMPL (Loper et al. 2015), equations 2-10, a vertex and a joint at a time."""
    shaped = arrays["v_template"] + arrays["shapedirs"][:, :, : len(betas)] @ betas
    joints = arrays["J_regressor"] @ shaped
    shaped = shaped + arrays["posedirs"] @ (pose[1:] - np.eye(3)).ravel()
    world: list[np.ndarray] = []
    for joint in range(24):
        parent = int(arrays["kintree_table"][0, joint]) if joint else None
        local = np.eye(4)
        local[:3, :3] = pose[joint]
        local[:3, 3] = joints[joint] - (0 if parent is None else joints[parent])
        world.append(local if parent is None else world[parent] @ local)
    vertices = np.zeros_like(shaped)
    for number, vertex in enumerate(shaped):
        for joint, weight in enumerate(arrays["weights"][number]):
            moved = world[joint] @ np.append(vertex - joints[joint], 1.0)
            vertices[number] += weight * moved[:3]
    return vertices, world[0][:3, 3]


def random_pose(count: int) -> np.ndarray:
    vectors = np.random.default_rng(4).normal(scale=0.4, size=(count * 24, 3))
    return Rotation.from_rotvec(vectors).as_matrix().reshape(count, 24, 3, 3)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **arrays)


def write_npz_of_objects(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, **as_smpl_object(arrays), allow_pickle=True)


def write_pickle(path: Path, arrays: dict[str, np.ndarray], protocol: int) -> None:
    path.write_bytes(pickle.dumps(as_smpl_object(arrays), protocol))


def write_chumpy_pickle(path: Path, arrays: dict[str, np.ndarray], protocol: int) -> None:
    """As SMPL's site hands it out: arrays inside chumpy's objects, the first betas selected from more."""
    with fake_chumpy() as ch:
        content: dict[str, Any] = as_smpl_object(arrays)
        directions = arrays["shapedirs"]
        everything = np.concatenate([directions, np.full((*directions.shape[:2], 5), 7.0)], axis=2)
        chosen = np.arange(everything.size).reshape(everything.shape)[:, :, : directions.shape[2]].ravel()
        content["shapedirs"] = ch.Select(a=ch.Ch(x=everything), idxs=chosen, preferred_shape=directions.shape)
        content["v_template"] = ch.Ch(x=np.asfortranarray(arrays["v_template"]), _dirty_vars=set())
        content["weights"] = ch.Ch(x=arrays["weights"].astype(">f8"))
        path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize("num_betas", [10, 300])
@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".npz", write_npz),
        (".npz", write_npz_of_objects),
        *((".pkl", lambda path, arrays, p=p: write_pickle(path, arrays, p)) for p in (0, 2, 5)),
        *((".pkl", lambda path, arrays, p=p: write_chumpy_pickle(path, arrays, p)) for p in (1, 2, 4)),
    ],
    ids=["npz", "npz-objects", "pkl0", "pkl2", "pkl5", "chumpy1", "chumpy2", "chumpy4"],
)
def test_vertices_are_those_of_a_slow_skinning(tmp_path: Path, num_betas: int, suffix: str, write: Any) -> None:
    arrays = make_smpl_arrays(num_betas)
    write(tmp_path / f"smpl{suffix}", arrays)
    body = SMPLBody(tmp_path / f"smpl{suffix}")
    betas, pose = np.random.default_rng(2).normal(size=(2, 10)), random_pose(2)
    posed = body.posed(betas, pose)
    assert posed.vertices.dtype == np.float32 and body.num_shapes == num_betas and body.num_joints == 24
    np.testing.assert_array_equal(body.faces, arrays["f"])
    for row in range(2):
        vertices, root = slow_skinning(arrays, betas[row], pose[row])
        np.testing.assert_allclose(posed.vertices[row], vertices, atol=2e-5)
        np.testing.assert_allclose(posed.root[row], root, atol=1e-5)
    np.testing.assert_array_equal(body.vertices(betas, pose), posed.vertices)


def test_arrays_that_python_2_pickled(tmp_path: Path, smpl_arrays: dict[str, np.ndarray]) -> None:
    """Byte strings of Python 2, which no Python 3 writes: spelt out."""
    array = np.arange(6.0).reshape(2, 3)
    record = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", array.nbytes)
        + array.tobytes()
        + b"tb"
    )
    rest = pickle.dumps({key: value for key, value in smpl_arrays.items() if key != "f"}, 2)
    (tmp_path / "smpl.pkl").write_bytes(rest[:-1] + b"U\x01f" + record + b"s.")
    np.testing.assert_array_equal(read_smpl(tmp_path / "smpl.pkl").faces, array)


def test_a_pickle_that_names_anything_else_runs_nothing(tmp_path: Path, smpl_arrays: dict[str, np.ndarray]) -> None:
    marker = tmp_path / "was here"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    for protocol in (0, 2, 5):
        path = tmp_path / f"smpl{protocol}.pkl"
        path.write_bytes(pickle.dumps({**smpl_arrays, "extra": Attack()}, protocol))
        with pytest.raises(UserError, match=r"names (posix|nt|os)\.mkdir, which no SMPL model needs"):
            read_smpl(path)
    objects = np.empty((), object)
    objects[()] = Attack()
    np.savez(tmp_path / "smpl.npz", **{**smpl_arrays, "J_regressor": objects})
    with pytest.raises(UserError, match="mkdir"):
        read_smpl(tmp_path / "smpl.npz")
    assert not marker.exists()


def test_names_on_the_list_are_not_called_either(tmp_path: Path, smpl_arrays: dict[str, np.ndarray]) -> None:
    """A function below an allowed name is recorded, not imported and not called."""
    (tmp_path / "smpl.pkl").write_bytes(
        b"cchumpy.shell\nsystem\n(S'touch " + str(tmp_path / "x").encode() + b"'\ntR."
    )
    with pytest.raises(UserError, match="expected a dictionary"):
        read_smpl(tmp_path / "smpl.pkl")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None, "f": None}, "lacks weights, f"),
        ({"v_template": np.zeros((5, 2))}, r"v_template has shape \(5, 2\), expected 5 x 3"),
        ({"v_template": np.float64(1.0)}, "v_template has shape"),
        ({"posedirs": np.zeros((162, 3, 9))}, "posedirs has shape .* expected 162 x 3 x 207"),
        ({"J_regressor": np.zeros((52, 162))}, "52 joints, SMPL has 24"),
        ({"f": np.full((4, 3), 162, np.uint32)}, "f names vertices outside 0 ... 161"),
        ({"f": np.array([["a", "b", "c"]])}, "f holds something other than finite numbers"),
        ({"weights": np.full((162, 24), np.nan)}, "weights holds something other than finite numbers"),
        ({"kintree_table": np.full((2, 24), 9)}, "kintree_table is not a tree"),
    ],
)
def test_bad_arrays_are_named(
    tmp_path: Path, smpl_arrays: dict[str, np.ndarray], change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "smpl.npz"
    np.savez(path, **{key: value for key, value in {**smpl_arrays, **change}.items() if value is not None})
    with pytest.raises(UserError, match=message) as caught:
        read_smpl(path)
    assert str(path) in str(caught.value)


def test_bad_files_are_named(tmp_path: Path, smpl_arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"no SMPL file .*none\.npz: download"):
        read_smpl(tmp_path / "none.npz")
    whole = pickle.dumps(as_smpl_object(smpl_arrays), 2)
    for content in (b"", b"not a model", whole[: len(whole) // 2], pickle.dumps([1, 2])):
        (tmp_path / "smpl.pkl").write_bytes(content)
        with pytest.raises(UserError, match=r"smpl\.pkl cannot be read as an SMPL model"):
            read_smpl(tmp_path / "smpl.pkl")
    np.savez(tmp_path / "smpl.npz", **smpl_arrays)
    content = (tmp_path / "smpl.npz").read_bytes()
    (tmp_path / "smpl.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"smpl\.npz cannot be read"):
        read_smpl(tmp_path / "smpl.npz")


def test_more_betas_than_the_file_has(smpl_npz: Path) -> None:
    with pytest.raises(UserError, match="has 10 betas, the parameters have 11"):
        SMPLBody(smpl_npz).posed(np.zeros((1, 11)), random_pose(1))


def test_annys_root_is_its_first_joint_and_turns_the_body(anny: AnnyBody) -> None:
    shape = np.full((2, 6), 0.5, np.float32)
    pose = np.tile(np.eye(3, dtype=np.float32), (2, 104, 1, 1))
    turn = Rotation.from_rotvec([0.3, 0.5, 1.0]).as_matrix()
    pose[1, 0] = turn
    posed = anny.posed(shape, pose)
    assert posed.vertices.shape == (2, 13718, 3) and anny.num_joints == 104
    np.testing.assert_allclose(posed.root, anny.joint_positions(shape, pose)[:, 0], atol=1e-6)
    expected = (posed.vertices[0] - posed.root[0]) @ turn.T + posed.root[0]
    np.testing.assert_allclose(posed.vertices[1], expected, atol=1e-4)
    np.testing.assert_array_equal(anny.vertices(shape, pose), posed.vertices)
