"""Where on the body a point of Anny's surface lies, in the terms a tailor uses.

Every vertex has fixed coordinates on one body of reference (adult, mean shape, reference pose): whatever the walker's
shape and pose, a sleeve ends at the same fraction of the arm.
Axes of reference: x to the walker's left, y backwards, z up, metres, origin between the hip joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse

from jgcl_ray.meshes.body_models import REFERENCE_SHAPE, AnnyBody, anny_body

# Heights on the body of reference.
HIP, KNEE, ANKLE = 0.0, -0.433, -0.863
WAIST, NECK, CHIN, CROWN = 0.15, 0.545, 0.585, 0.815

# Columns of Surface.fields, and of the attributes that are interpolated to pixels.
FIELDS = ("x", "y", "z", "arm", "is_arm", "is_hand", "is_leg", "is_foot", "is_head", "is_trunk", "is_eye")


@dataclass(frozen=True)
class Surface:
    """Anny's surface; V vertices."""

    fields: np.ndarray  # (V, len(FIELDS)) float32; `arm` 0 at the shoulder, 1 at the wrist; is_* in [0, 1]
    normals: np.ndarray  # (V, 3) float32, on the body of reference
    smoother: scipy.sparse.csr_array  # (V, V), mean over the neighbours

    def __getitem__(self, field: str) -> np.ndarray:
        return self.fields[:, FIELDS.index(field)]


@lru_cache(maxsize=1)
def surface() -> Surface:
    """The process's Surface."""
    from jgcl_ray.meshes.cameras import Mesh

    body = anny_body()
    pose = np.tile(np.eye(3), (1, len(body.joints), 1, 1))
    vertices = body.reference
    heads = body.joint_positions(np.array([REFERENCE_SHAPE]), pose)[0]
    parts = {
        "is_arm": _skinned(body, ("shoulder01", "upperarm", "lowerarm")),
        "is_hand": _skinned(body, ("wrist", "finger", "metacarpal")),
        "is_leg": _skinned(body, ("upperleg", "lowerleg")),
        "is_foot": _skinned(body, ("foot", "toe")),
        "is_head": _skinned(body, ("head", "eye")),
        "is_trunk": _skinned(body, ("root", "pelvis", "spine", "clavicle", "neck")),
        "is_eye": _skinned(body, ("eye",)),
    }
    arm = np.maximum(*(_along_arm(vertices, heads, body, side) for side in "LR"))
    fields = np.column_stack([vertices, arm, *parts.values()]).astype(np.float32)
    edges = np.concatenate([body.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    adjacency = scipy.sparse.coo_array((np.ones(len(edges)), edges.T), shape=(len(vertices),) * 2).tocsr()
    adjacency = ((adjacency + adjacency.T) > 0).astype(np.float32)
    degree = np.maximum(adjacency.sum(axis=1), 1)
    smoother = scipy.sparse.csr_array(scipy.sparse.diags_array(1 / degree) @ adjacency)
    return Surface(fields, Mesh(vertices, body.faces).normals, smoother)


def _skinned(body: AnnyBody, prefixes: tuple[str, ...]) -> np.ndarray:
    """Share of each vertex that moves with the named joints, (V,)."""
    rows = [row for joint, row in body.joints.items() if joint.startswith(prefixes)]
    return body.joint_weights()[:, rows].sum(axis=1)


def _along_arm(vertices: np.ndarray, heads: np.ndarray, body: AnnyBody, side: str) -> np.ndarray:
    """0 at the shoulder, 0.5 at the elbow, 1 at the wrist, clipped to [0, 1.3]; 0 on the other half of the body."""
    shoulder, elbow, wrist = (
        heads[body.joints[f"{joint}.{side}"]] for joint in ("upperarm01", "lowerarm01", "wrist")
    )
    upper, lower = elbow - shoulder, wrist - elbow
    along_upper = (vertices - shoulder) @ upper / (upper @ upper)
    along_lower = (vertices - elbow) @ lower / (lower @ lower)
    along = np.where(along_lower > 0, 0.5 + 0.5 * along_lower, 0.5 * np.minimum(along_upper, 1))
    own_side = vertices[:, 0] * (1 if side == "L" else -1) > 0
    return np.where(own_side, np.clip(along, 0, 1.3), 0.0)
