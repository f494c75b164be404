"""Body models: shape and pose parameters in, a triangle mesh out.

Anny (free, NAVER, Apache-2.0) is the default; SMPL through `smplx` where the user has its file.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch


class BodyModel(Protocol):
    """A rigged body of fixed topology."""

    faces: np.ndarray  # (F, 3) int32

    def vertices(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Vertices (B, V, 3) float32 in metres for shape (B, S) and rotations of the joints (B, J, 3, 3)."""
        ...


class AnnyBody:
    """Anny: z up, facing -y, S = 6 phenotypes in [0, 1] (PHENOTYPES), J = 104 joints (`joints`).

    A joint's rotation is given in the world's axes relative to the reference pose (arms hanging obliquely), after its
    parent's: identity everywhere is that pose.
    """

    PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")

    def __init__(self) -> None:
        import anny

        # Skinning in plain torch: as fast for one body, and warp's compiler is never started.
        self._model = anny.Anny(skinning_method="lbs").to(torch.float32)
        if tuple(self._model.phenotype_labels) != self.PHENOTYPES:
            raise RuntimeError(f"anny's phenotypes changed: {self._model.phenotype_labels}")
        self.joints: dict[str, int] = {name: row for row, name in enumerate(self._model.bone_labels)}
        self.faces = np.ascontiguousarray(self._model.get_triangular_faces().numpy().astype(np.int32))

    @torch.no_grad()
    def vertices(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """See BodyModel."""
        output = self._run(shape, pose)
        return output["vertices"].numpy().astype(np.float32)

    @torch.no_grad()
    def joint_positions(self, shape: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Positions of the joints (B, J, 3) float32, metres; arguments as for `vertices`."""
        return self._run(shape, pose)["bone_poses"][..., :3, 3].numpy().astype(np.float32)

    def joint_weights(self) -> np.ndarray:
        """How much each vertex moves with each joint, (V, J) float32, rows sum to one."""
        weights, joints = self._model.vertex_bone_weights, self._model.vertex_bone_indices
        dense = torch.zeros(len(weights), len(self.joints)).scatter_add_(1, joints.long(), weights.float())
        return dense.numpy()

    def _run(self, shape: np.ndarray, pose: np.ndarray) -> dict[str, torch.Tensor]:
        transforms = torch.eye(4).repeat(*pose.shape[:2], 1, 1)
        transforms[..., :3, :3] = torch.as_tensor(pose, dtype=torch.float32)
        phenotypes = {
            name: torch.as_tensor(shape[:, column], dtype=torch.float32)
            for column, name in enumerate(self.PHENOTYPES)
        }
        output: dict[str, torch.Tensor] = self._model(pose_parameters=transforms, phenotype_kwargs=phenotypes)
        return output


@lru_cache(maxsize=1)
def anny_body() -> AnnyBody:
    """The process's Anny body; loading takes seconds."""
    return AnnyBody()
