"""Body models: shape and pose parameters in, a triangle mesh out.

Anny (free, NAVER, Apache-2.0) is the default; SMPL through `smplx` where the user has its file.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError

from jgcl_ray.atomic import one_at_a_time
from jgcl_ray.cache import cache_folder
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.smpl_files import read_smpl
from jgcl_ray.places import check_folder
from jgcl_ray.stored_files import in_short

REFERENCE_SHAPE = (0.5, 0.6, 0.5, 0.5, 0.5, 0.5)  # AnnyBody.PHENOTYPES of the body of reference


@dataclass(frozen=True)
class PosedBodies:
    """Bodies in the frame of their pose's root rotation: the world's, or a camera's."""

    vertices: np.ndarray  # (B, V, 3) float32, metres
    root: np.ndarray  # (B, 3) float32, where the root joint (the pelvis) is


class BodyModel(Protocol):
    """A rigged body of fixed topology."""

    faces: np.ndarray  # (F, 3) int32
    num_joints: int  # J
    num_shapes: int  # largest S

    @property
    def reference(self) -> np.ndarray:
        """Where each vertex lies on the unposed body of reference, (V, 3) float32, metres.

        x to the body's left, y backwards, z up; the body is symmetric but for centimetres under x -> -x.
        """
        ...

    def posed(self, shape: np.ndarray, pose: np.ndarray) -> PosedBodies:
        """The bodies of shape (B, S) with rotations of the joints (B, J, 3, 3), the root first."""
        ...

    def vertices(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """The vertices alone, (B, V, 3) float32 in metres."""
        ...


class AnnyBody:
    """Anny: z up, facing -y, S = 6 phenotypes in [0, 1] (PHENOTYPES), J = 104 joints (`joints`).

    A joint's rotation is given in the world's axes relative to the reference pose (arms hanging obliquely), after its
    parent's: identity everywhere is that pose.
    """

    PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")

    def __init__(self) -> None:
        self._model = _load_anny()
        if tuple(self._model.phenotype_labels) != self.PHENOTYPES:
            raise RuntimeError(f"anny's phenotypes changed: {self._model.phenotype_labels}")
        self.joints: dict[str, int] = {name: row for row, name in enumerate(self._model.bone_labels)}
        self.faces = np.ascontiguousarray(self._model.get_triangular_faces().numpy().astype(np.int32))
        self.num_joints, self.num_shapes = len(self.joints), len(self.PHENOTYPES)

    @cached_property
    def reference(self) -> np.ndarray:
        """See BodyModel: an adult of mean shape in the reference pose, the origin between the hip joints."""
        pose = np.tile(np.eye(3, dtype=np.float32), (1, self.num_joints, 1, 1))
        return self.vertices(np.array([REFERENCE_SHAPE], np.float32), pose)[0]

    def posed(self, shape: np.ndarray, pose: np.ndarray) -> PosedBodies:
        """See BodyModel."""
        output = self._run(shape, pose)
        root = output["bone_poses"][:, 0, :3, 3]
        return PosedBodies(output["vertices"].numpy().astype(np.float32), root.numpy().astype(np.float32))

    def vertices(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """See BodyModel."""
        return self.posed(shape, pose).vertices

    def joint_positions(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Positions of the joints (B, J, 3) float32, metres; arguments as for `vertices`."""
        return self._run(shape, pose)["bone_poses"][..., :3, 3].numpy().astype(np.float32)

    def joint_weights(self) -> np.ndarray:
        """How much each vertex moves with each joint, (V, J) float32, rows sum to one."""
        weights, joints = self._model.vertex_bone_weights, self._model.vertex_bone_indices
        dense = torch.zeros(len(weights), len(self.joints)).scatter_add_(1, joints.long(), weights.float())
        return dense.numpy()

    @torch.no_grad()
    def _run(self, shape: np.ndarray, pose: np.ndarray) -> dict[str, torch.Tensor]:
        transforms = torch.eye(4).repeat(*pose.shape[:2], 1, 1)
        transforms[..., :3, :3] = torch.as_tensor(pose, dtype=torch.float32)
        phenotypes = {
            name: torch.as_tensor(shape[:, column], dtype=torch.float32)
            for column, name in enumerate(self.PHENOTYPES)
        }
        output: dict[str, torch.Tensor] = self._model(pose_parameters=transforms, phenotype_kwargs=phenotypes)
        return output


def make_anny_tables() -> Path:
    """The folder of the tables that Anny's network is read from, made on a machine's first use, with one thread.

    Where Anny's cache lacks them it makes them itself, but then of two processes each makes its own, whose last bits
    differ (a singular value decomposition), and one that is killed meanwhile leaves half a file. Whoever starts
    processes that need them calls this before: else all but one of them say that they wait.
    """
    tables = cache_folder() / f"anny-{version('anny')}"
    if not tables.exists():
        check_folder(tables, "cache (JGCL_RAY_CACHE)")
        with one_at_a_time(tables.with_name(f".{tables.name}.lock")):
            if not tables.exists():
                partial = tables.with_name(f".{tables.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                with _fast_tables():
                    _anny_with(partial)
                for step in partial.rglob("*.safetensors"):  # 780 MB that only the making needed
                    if not step.name.startswith("build_compact_model_data"):
                        step.unlink()
                partial.rename(tables)
    return tables


def _load_anny() -> Any:
    tables = make_anny_tables()
    try:
        return _anny_with(tables)
    except SafetensorError as error:
        raise UserError(f"{tables}: damaged ({in_short(error)}); remove it, the tables are made again") from None


def _anny_with(tables: Path) -> Any:
    import anny
    from anny import paths

    before = paths.get_anny_cache_path()
    paths.set_anny_cache_path(tables)
    try:
        # Skinning in plain torch: as fast for one body, and warp's compiler is never started.
        return anny.Anny(skinning_method="lbs").to(torch.float32)
    finally:
        paths.set_anny_cache_path(before)


@contextmanager
def _fast_tables() -> Iterator[None]:
    """One thread, and Anny's thousand text files read at once each instead of number by number: 8 s, not 46.

    The numbers are the same (test_body_models.py).
    """
    from anny.models import full_model

    def load_blend_shape(
        filename: str, vertices_count: int, world_transformation: Any, dtype: torch.dtype
    ) -> torch.Tensor:
        shape = torch.zeros((vertices_count, 3), dtype=dtype)
        with warnings.catch_warnings(action="ignore"):  # some are empty: the body of reference
            rows = np.loadtxt(filename, ndmin=2)
        if len(rows):
            shape[rows[:, 0].astype(np.int64)] = torch.as_tensor(rows[:, 1:], dtype=dtype)
        moved: torch.Tensor = world_transformation.apply(shape)
        return moved

    own, threads = full_model.load_blend_shape, torch.get_num_threads()
    full_model.load_blend_shape = load_blend_shape
    torch.set_num_threads(1)
    try:
        yield
    finally:
        full_model.load_blend_shape = own
        torch.set_num_threads(threads)


class SMPLBody:
    """SMPL (Loper et al., SIGGRAPH Asia 2015) from the user's file: S betas, at most the file's; J = 24 joints.

    y up, facing z, before the root's rotation, which in the parameters of HMR and its kin turns it into the camera's
    axes (y down, facing -z).
    """

    def __init__(self, path: Path) -> None:
        arrays = read_smpl(path)
        self.faces = arrays.faces
        self.num_joints = len(arrays.parents)
        self.num_shapes = arrays.shape_directions.shape[2]
        self._path = path
        x, y, z = arrays.template.T
        self.reference = np.stack([x, -z, y], axis=1).astype(np.float32)  # mean shape, rest pose (BodyModel's axes)
        self._template = torch.from_numpy(arrays.template)
        self._shape_directions = torch.from_numpy(arrays.shape_directions)
        self._pose_directions = torch.from_numpy(arrays.pose_directions).flatten(0, 1).T.contiguous()
        self._joint_regressor = torch.from_numpy(arrays.joint_regressor)
        self._weights = torch.from_numpy(arrays.weights)
        self._parents = torch.from_numpy(arrays.parents)

    @torch.no_grad()
    def posed(self, shape: np.ndarray, pose: np.ndarray) -> PosedBodies:
        """See BodyModel."""
        from smplx.lbs import lbs

        if shape.shape[1] > self.num_shapes:
            raise UserError(f"{self._path} has {self.num_shapes} betas, the parameters have {shape.shape[1]}")
        vertices, joints = lbs(
            torch.as_tensor(shape, dtype=torch.float32),
            torch.as_tensor(pose, dtype=torch.float32),
            self._template,
            self._shape_directions[:, :, : shape.shape[1]],
            self._pose_directions,
            self._joint_regressor,
            self._parents,
            self._weights,
            pose2rot=False,
        )
        return PosedBodies(vertices.numpy(), joints[:, 0].numpy())

    def vertices(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """See BodyModel."""
        return self.posed(shape, pose).vertices


@lru_cache(maxsize=1)
def anny_body() -> AnnyBody:
    """The process's Anny body; loading takes seconds."""
    return AnnyBody()


@lru_cache(maxsize=1)
def smpl_body(path: Path) -> SMPLBody:
    """The process's SMPL body of this file."""
    return SMPLBody(path)
