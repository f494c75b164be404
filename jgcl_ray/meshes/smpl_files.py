"""Reads the arrays of an SMPL file (.npz or .pkl), without chumpy and without running anything a pickle says.

SMPL's own files are pickles of chumpy, NumPy and SciPy objects. Unpickling them would call whatever they name; here
every name becomes an inert record of its arguments, names outside a short list are refused, and the arrays are then
built from the records' bytes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from scipy import sparse

from jgcl_ray.errors import UserError

KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
NUM_JOINTS = 24


@dataclass(frozen=True)
class SMPLArrays:
    """An SMPL model: V vertices, J = 24 joints, S shape directions."""

    template: np.ndarray  # (V, 3) float32, metres
    shape_directions: np.ndarray  # (V, 3, S) float32
    pose_directions: np.ndarray  # (V, 3, 9 * (J - 1)) float32
    joint_regressor: np.ndarray  # (J, V) float32
    weights: np.ndarray  # (V, J) float32
    parents: np.ndarray  # (J,) int64, -1 for the root
    faces: np.ndarray  # (F, 3) int32


def read_smpl(path: Path) -> SMPLArrays:
    """The arrays of an SMPL file; UserError if it is missing, is not one, or its arrays do not fit together."""
    if not path.is_file():
        raise UserError(
            f"no SMPL file {path}: download SMPL_NEUTRAL.npz or .pkl from https://smpl.is.tue.mpg.de after "
            "registration and give its path (meshes.smpl, or --smpl)"
        )
    try:
        if zipfile.is_zipfile(path):
            arrays = _read_npz(path)
        else:
            with path.open("rb") as file:
                arrays = _read_pickle(file)
    except Exception as error:  # a damaged pickle can fail in any way; all of them are the file's fault
        raise UserError(f"{path} cannot be read as an SMPL model: {type(error).__name__}: {error}") from error
    return _checked(path, arrays)


def _checked(path: Path, arrays: Mapping[str, np.ndarray]) -> SMPLArrays:
    if missing := [key for key in KEYS if key not in arrays]:
        raise UserError(f"{path} is not an SMPL model: it lacks {', '.join(missing)}")
    vertices, joints = ((*arrays[key].shape, 0)[0] for key in ("v_template", "J_regressor"))
    if joints != NUM_JOINTS:
        raise UserError(
            f"{path} has {joints} joints, SMPL has {NUM_JOINTS}: SMPL-H and SMPL-X files do not serve here"
        )
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
        "f": (None, 3),
    }
    for key, shape in expected.items():
        array = arrays[key]
        fits = array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            raise UserError(f"{path}: {key} has shape {array.shape}, expected {wanted}")
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise UserError(f"{path}: {key} holds something other than finite numbers")
    faces = arrays["f"].astype(np.int64)
    if not len(faces) or faces.min() < 0 or faces.max() >= vertices:
        raise UserError(f"{path}: f names vertices outside 0 ... {vertices - 1}")
    parents = arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # the files hold 2^32 - 1
    if (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, joints)).any():
        raise UserError(f"{path}: kintree_table is not a tree with parents first")
    template, shape_directions, pose_directions, joint_regressor, weights = (
        np.array(arrays[key], np.float32, order="C") for key in KEYS[:5]
    )
    return SMPLArrays(
        template, shape_directions, pose_directions, joint_regressor, weights, parents, faces.astype(np.int32)
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for key in KEYS:
            if f"{key}.npy" not in archive.namelist():
                continue
            data = io.BytesIO(archive.read(f"{key}.npy"))
            try:
                arrays[key] = np.load(data, allow_pickle=False)
            except (
                ValueError
            ):  # an object array, as numpy.savez writes SciPy's and chumpy's: a pickle after the header
                data.seek(0)
                _skip_header(data)
                arrays[key] = _to_array(_InertUnpickler(data, encoding="latin1").load())
    return arrays


def _skip_header(data: BinaryIO) -> None:
    version = np.lib.format.read_magic(data)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    reader(data)


def _read_pickle(file: BinaryIO) -> dict[str, np.ndarray]:
    content = _InertUnpickler(file, encoding="latin1").load()
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, expected a dictionary")
    return {key: _to_array(content[key]) for key in KEYS if key in content}


class _Inert:
    """What a pickle wanted to make: the name, the arguments and the state; nothing is ever called."""

    name: ClassVar[str]

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> _Inert:
        # copyreg._reconstructor(cls, object, None) stands for cls(): Python 2's way to pickle a plain object.
        made = super().__new__(arguments[0] if cls.name.endswith("._reconstructor") else cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Refuses every name but those that SMPL files use, and makes those inert."""

    FUNCTIONS = frozenset(
        {
            "copy_reg._reconstructor",
            "copyreg._reconstructor",
            "__builtin__.object",
            "builtins.object",
            "__builtin__.set",  # chumpy keeps notes in sets
            "builtins.set",
            "_codecs.encode",
            "numpy.ndarray",
            "numpy.dtype",
            *(
                f"numpy.{core}.{name}"
                for core in ("core", "_core")
                for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
            ),
        }
    )

    def find_class(self, module: str, name: str) -> type[_Inert]:
        full = f"{module}.{name}"
        if full not in self.FUNCTIONS and module.split(".")[0] != "chumpy" and not full.startswith("scipy.sparse."):
            raise pickle.UnpicklingError(f"the pickle names {full}, which no SMPL model needs: not loaded")
        return type("Inert", (_Inert,), {"name": full})


def _to_array(value: Any) -> np.ndarray:
    """The array that a record, or a tree of records, stands for."""
    if not isinstance(value, _Inert):
        return np.asarray(value)
    kind = value.name.rsplit(".", 1)[1]
    if kind == "_reconstruct":
        _, shape, dtype, fortran, data = value.state
        if _to_dtype(dtype) is None:  # an object array around the thing itself
            return _to_array(data[0])
        return np.frombuffer(_to_bytes(data), _to_dtype(dtype)).reshape(shape, order="F" if fortran else "C")
    if kind == "_frombuffer":
        data, dtype, shape, order = value.arguments
        return np.frombuffer(_to_bytes(data), _to_dtype(dtype)).reshape(shape, order=order)
    if value.name.startswith("scipy.sparse."):
        return _to_dense(kind, value.state)
    if kind == "Ch":
        return _to_array(value.state["x"])
    if kind == "Select":  # chumpy's indexing: SMPL's first ten of 300 betas
        chosen = _to_array(value.state["a"]).ravel()[_to_array(value.state["idxs"])]
        return chosen.reshape(value.state.get("preferred_shape", chosen.shape))
    raise ValueError(f"holds a {value.name}, whose array is not known; save the file's arrays as an .npz")


def _to_dense(kind: str, state: Mapping[str, Any]) -> np.ndarray:
    builders = {"csc": sparse.csc_array, "csr": sparse.csr_array}
    shape = state.get("_shape", state.get("shape"))
    parts = tuple(_to_array(state[name]) for name in ("data", "indices", "indptr"))
    dense: np.ndarray = builders[kind[:3]](parts, shape=shape).toarray()
    return dense


def _to_dtype(record: _Inert) -> np.dtype[Any] | None:
    """The number type of a pickled NumPy dtype; None for Python objects."""
    dtype = np.dtype(record.arguments[0])
    if dtype.kind == "O":
        return None
    if dtype.kind not in "biuf":
        raise ValueError(f"holds an array of {dtype}, expected numbers")
    return dtype.newbyteorder(record.state[1]) if record.state else dtype


def _to_bytes(data: Any) -> bytes:
    if isinstance(data, _Inert):  # _codecs.encode(text, "latin1")
        data = data.arguments[0]
    return data.encode("latin1") if isinstance(data, str) else bytes(data)
