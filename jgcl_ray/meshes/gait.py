"""Walking poses: a few numbers with a meaning -> the rotations of Anny's joints.

The curves over one gait cycle follow the textbook shape of level walking (Winter, Biomechanics and Motor Control of
Human Movement): the hip swings once, the knee bends lightly under load and strongly in mid-swing, the arms swing
against the legs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from jgcl_ray.meshes.body_models import AnnyBody

ARMS = ("swing", "phone", "pockets", "carry")

# Of Anny's reference pose, radians: how far the upper arm is lifted sideways, and how far the elbow is bent.
_ARM_LIFT = math.radians(41.6)
_ELBOW_BEND = math.radians(42.0)
# Axis about which the left forearm turns towards the front, in the reference pose; mirrored for the right.
_ELBOW_AXIS = np.array([-0.75, -0.06, -0.66])


@dataclass(frozen=True)
class Gait:
    """One instant of a walk; angles in radians."""

    phase: float  # in [0, 2 pi), 0 at the left heel's strike
    stride: float  # 0 stands, 1 strides out
    arms: str  # one of ARMS
    lean: float  # of the trunk, forwards
    head_turn: float  # to the left
    head_nod: float  # downwards
    elbow: float  # least bend of the elbows
    spread: float  # of the arms, sideways


def draw_gait(rng: np.random.Generator, arms: str) -> Gait:
    """A random instant of a random walk; one walker in eight stands."""
    stands = rng.random() < 0.125
    return Gait(
        phase=float(rng.uniform(0, 2 * math.pi)),
        stride=float(rng.uniform(0.0, 0.15) if stands else rng.uniform(0.6, 1.1)),
        arms=arms,
        lean=float(rng.normal(0.04, 0.03)),
        head_turn=float(rng.normal(0.0, 0.25)),
        head_nod=float(rng.normal(0.1, 0.12)),
        elbow=float(rng.uniform(0.15, 0.5)),
        spread=float(rng.uniform(0.10, 0.22)),
    )


def joint_rotations(gait: Gait, body: AnnyBody) -> np.ndarray:
    """Rotations (J, 3, 3) float64 of Anny's joints for a gait."""
    pose = np.tile(np.eye(3), (len(body.joints), 1, 1))

    def turn(joint: str, *rotations: np.ndarray) -> None:
        pose[body.joints[joint]] = np.linalg.multi_dot([np.eye(3), *rotations])

    swing = 0.12 * gait.stride * math.cos(gait.phase)
    turn("root", _about("z", -swing))
    turn("spine03", _about("x", 0.5 * gait.lean), _about("z", swing))
    turn("spine02", _about("x", 0.5 * gait.lean), _about("z", swing))
    turn("neck02", _about("x", 0.4 * gait.head_nod - gait.lean), _about("z", 0.4 * gait.head_turn))
    turn("head", _about("x", 0.6 * gait.head_nod), _about("z", 0.6 * gait.head_turn))
    for side, sign, phase in (("L", 1.0, gait.phase), ("R", -1.0, gait.phase + math.pi)):
        hip = math.radians(4 + 25 * math.cos(phase)) * gait.stride
        turn(f"upperleg01.{side}", _about("x", -hip), _about("y", sign * 0.035))
        turn(f"lowerleg01.{side}", _about("x", _knee(phase) * gait.stride + 0.04))
        turn(f"foot.{side}", _about("x", 0.25 * gait.stride * math.sin(phase - 0.6)))
        forward, bend = _arm(gait, side, phase)
        drop = _ARM_LIFT - gait.spread
        turn(f"shoulder01.{side}", _about("y", sign * 0.35 * drop))
        turn(f"upperarm01.{side}", _about("x", -forward), _about("y", sign * 0.65 * drop))
        axis = _ELBOW_AXIS * np.array([1.0, sign, sign])
        turn(f"lowerarm01.{side}", _about_axis(axis, bend - _ELBOW_BEND))
    return pose


def _arm(gait: Gait, side: str, phase: float) -> tuple[float, float]:
    """How far an arm reaches forwards and how far its elbow is bent."""
    forward = -math.radians(22) * math.cos(phase) * gait.stride
    if gait.arms == "phone" and side == "R":
        return 0.45, 1.75
    if gait.arms == "pockets":
        return -0.15, 0.75
    if gait.arms == "carry" and side == "L":
        return 0.15, 1.3
    return forward, gait.elbow + 0.5 * max(forward, 0.0)


def _knee(phase: float) -> float:
    """Bend of the knee over the cycle: a dip of 15 degrees under load, 58 in swing."""

    def bump(center: float, width: float) -> float:
        distance = math.remainder(phase - center, 2 * math.pi)
        return math.exp(-((distance / width) ** 2))

    return math.radians(15 * bump(0.9, 0.55) + 58 * bump(4.55, 0.75))


def _about(axis: str, angle: float) -> np.ndarray:
    return _about_axis(np.eye(3)["xyz".index(axis)], angle)


def _about_axis(axis: np.ndarray, angle: float) -> np.ndarray:
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
