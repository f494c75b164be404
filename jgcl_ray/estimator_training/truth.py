"""The truth about a rendered set of walkers, in the estimator's terms: what tests and benchmarks compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.estimator import BodyEstimates
from jgcl_ray.meshes.gait import ARMS, Gait, joint_rotations
from jgcl_ray.meshes.projection_folders import TRUTH
from jgcl_ray.meshes.walker_files import read_height, read_views
from jgcl_ray.meshes.walking_pose import MOVED


def read_truth(root: Path, body: AnnyBody) -> BodyEstimates:
    """What a perfect estimator would answer to the photos of a set, by its views.npz."""
    cameras = ("rotation", "position", "focal", "center", "stretch")
    views, height = read_views(root / TRUTH, "gait", "shape", *cameras), read_height(root)
    names, gaits, shape = tuple(views["names"].tolist()), views["gait"], views["shape"]
    rotation, position, focal, center, stretch = (views[key] for key in cameras)
    pose = np.stack([joint_rotations(_gait(row), body) for row in gaits]).astype(np.float32)
    ground = body.vertices(shape, pose)[:, :, 2].min(axis=1)
    root_place = np.column_stack([np.zeros((len(names), 2)), -ground])  # in the world: hips above the origin
    local = np.einsum("nij,nj->ni", rotation, root_place - position)
    pixels = local[:, :2] / local[:, 2:] * focal[:, None] * np.column_stack([stretch, np.ones(len(names))]) + center
    return BodyEstimates(
        names=names,
        yaw=np.degrees(np.arctan2(-rotation[:, 0, 1], rotation[:, 0, 0])),
        deviation=np.zeros(len(names)),
        turn=rotation,
        pose=pose[:, [body.joints[joint] for joint in MOVED]],
        phenotypes=shape,
        scale=focal / local[:, 2] / (height / 2),
        root=pixels / [height / 4, height / 2] - 1,
        size=np.column_stack([np.full(len(names), height), height / 2 / stretch]),
    )


def _gait(row: np.ndarray) -> Gait:
    phase, stride, arms, lean, turn, nod, elbow, spread = row.tolist()
    return Gait(phase, stride, ARMS[round(arms)], lean, turn, nod, elbow, spread)
