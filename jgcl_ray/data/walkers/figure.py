"""A dressed walker as one mesh: the body, swollen under cloth, plus skirt, hair, hat and bag as geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jgcl_ray.data.walkers.people import Appearance
from jgcl_ray.data.walkers.surface import FIELDS, HIP, WAIST, Surface, surface
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.cameras import Mesh
from jgcl_ray.meshes.gait import Gait, joint_rotations

BODY, SKIRT, BAG, HAIR, HEADWEAR, UMBRELLA = range(6)

_LEG = 0.86  # hip to ankle on the body of reference, metres


@dataclass(frozen=True)
class Figure:
    """One walker at one instant, facing -y, feet on z = 0, hips above the origin."""

    body: Mesh  # the bare body: what the projections show
    dressed: Mesh  # what the photo shows; its first vertices are the body's
    fields: np.ndarray  # (V, len(FIELDS)) float32, surface.FIELDS of each vertex of `dressed`
    part: np.ndarray  # (F,) int8, BODY, SKIRT, ... of each face of `dressed`


@dataclass(frozen=True)
class _Piece:
    vertices: np.ndarray  # (V, 3), on the posed body
    faces: np.ndarray  # (F, 3)
    fields: np.ndarray  # (V, len(FIELDS))
    part: int


def dress(person: Appearance, gait: Gait) -> Figure:
    """The figure of a walker at an instant of the gait."""
    body, skin = anny_body(), surface()
    posed = body.vertices(np.array([person.shape]), joint_rotations(gait, body)[None])[0]
    posed = posed - np.array([0.0, 0.0, posed[:, 2].min()], np.float32)
    bare = Mesh(posed, body.faces)
    pieces = [_Piece(_swell(person, bare, skin), body.faces, skin.fields, BODY)]
    if person.lower.kind in ("skirt", "long skirt"):
        bottom = HIP - person.lower.length * _LEG
        pieces.append(_hang(posed, skin, WAIST - 0.02, bottom, person.lower.thickness, 0.10))
    if person.upper.hem < -0.2:
        flare, off = (0.06, person.upper.thickness + 0.012)
        pieces.append(_hang(posed, skin, WAIST - 0.1, person.upper.hem, off, flare))
    pieces += _hair_and_hat(person, posed, skin) + _bag(person, posed, skin) + _umbrella(person, posed, skin)
    offsets = np.cumsum([0] + [len(piece.vertices) for piece in pieces[:-1]])
    return Figure(
        body=bare,
        dressed=Mesh(
            np.concatenate([piece.vertices for piece in pieces]).astype(np.float32),
            np.concatenate([piece.faces + offset for piece, offset in zip(pieces, offsets, strict=True)]).astype(
                np.int32
            ),
        ),
        fields=np.concatenate([piece.fields for piece in pieces]).astype(np.float32),
        part=np.concatenate([np.full(len(piece.faces), piece.part, np.int8) for piece in pieces]),
    )


def _swell(person: Appearance, bare: Mesh, skin: Surface) -> np.ndarray:
    """The body's vertices, smoothed under cloth and moved outwards by its thickness."""
    upper, lower = person.upper, person.lower
    z, arm = skin["z"], skin["arm"]
    covered_leg = _step(z, HIP - lower.length * _LEG, 0.02) * np.maximum(skin["is_leg"], skin["is_trunk"])
    on_legs = lower.thickness * covered_leg * _step(-z, -WAIST, 0.02)
    on_trunk = upper.thickness * _step(z, upper.hem, 0.015) * (1 - _step(z, 0.50, 0.06)) * skin["is_trunk"]
    on_arms = 0.8 * upper.thickness * _step(upper.sleeve - arm, 0.0, 0.03) * skin["is_arm"]
    shoe = 0.012 * skin["is_foot"] + (0.012 * _step(-z, 0.86 - person.boots, 0.02) if person.boots else 0.0)
    hair = _hair_depth(person, skin)
    thickness = np.maximum.reduce([on_legs, on_trunk, on_arms, shoe * np.ones_like(z), hair])
    # Cloth bridges hollows: relax the surface where it is covered, the more the thicker.
    vertices = bare.vertices
    relax = np.clip(np.maximum(on_trunk, on_legs) / 0.012, 0, 1)[:, None]
    for _ in range(12):
        vertices = vertices + 0.7 * relax * (skin.smoother @ vertices - vertices)
    return vertices + thickness[:, None] * bare.normals


def hair_region(fields: Callable[[str], np.ndarray]) -> np.ndarray:
    """Signed distance-like, positive where hair grows: above a line from the forehead down to the nape."""
    y, z = fields("y"), fields("z")
    line = np.interp(y, [-0.16, -0.10, -0.055, -0.03, 0.02], [0.752, 0.745, 0.70, 0.615, 0.585])
    return np.where(fields("is_head") > 0.4, z - line, -1.0)


def _hair_depth(person: Appearance, skin: Surface) -> np.ndarray:
    depth = {"bald": 0.0, "short": 0.012, "bob": 0.028, "long": 0.024, "bun": 0.012, "cap": 0.02, "hat": 0.022}
    depth["hood"] = 0.035
    return depth[person.hair] * np.clip(hair_region(skin.__getitem__) / 0.02, 0, 1)


def _hang(posed: np.ndarray, skin: Surface, top: float, bottom: float, off: float, flare: float) -> _Piece:
    """Cloth that hangs from the hips around both legs: ellipses around what lies inside, never narrower below."""
    rings, segments = 14, 40
    legs = (skin["is_leg"] + skin["is_trunk"] + skin["is_foot"]) > 0.5
    points, reference_z = posed[legs], skin["z"][legs]
    heights = np.linspace(top, bottom, rings)
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    half, center, vertices, fields = np.zeros(2), None, [], []
    for ring, height in enumerate(heights):
        inside = points[np.abs(reference_z - height) < 0.035]
        low, high = inside[:, :2].min(axis=0), inside[:, :2].max(axis=0)
        middle, extent = (low + high) / 2, (high - low) / 2
        center = middle if center is None else 0.6 * center + 0.4 * middle
        extent = np.maximum(extent + np.abs(middle - center), extent)
        half = np.maximum(half + (top - bottom) / rings * flare, extent * 1.02 + off)
        folds = 1 + 0.05 * ring / rings * np.cos(6 * angles + 0.7)
        level = np.median(inside[:, 2])
        vertices.append(np.column_stack([center + circle * half * folds[:, None], np.full(segments, level)]))
        fields.append(_fields(x=circle[:, 0] * 0.17, y=circle[:, 1] * 0.13, z=np.full(segments, height), is_leg=1.0))
    return _Piece(np.concatenate(vertices), _tube(rings, segments), np.concatenate(fields), SKIRT)


def _hair_and_hat(person: Appearance, posed: np.ndarray, skin: Surface) -> list[_Piece]:
    anchor = skin["is_head"] > 0.95
    if person.hair == "long":
        mane = _ellipsoid((0, 0.005, 0.60), (0.085, 0.045, 0.17), power=0.8)
        return [_attach(mane, HAIR, anchor, posed, skin)]
    if person.hair == "bob":
        return [_attach(_ellipsoid((0, -0.02, 0.675), (0.095, 0.075, 0.10)), HAIR, anchor, posed, skin)]
    if person.hair == "bun":
        return [_attach(_ellipsoid((0, 0.045, 0.765), (0.045, 0.045, 0.045)), HAIR, anchor, posed, skin)]
    if person.hair == "cap":
        return [_attach(_ellipsoid((0, -0.195, 0.752), (0.075, 0.075, 0.012)), HEADWEAR, anchor, posed, skin)]
    if person.hair == "hat":
        return [_attach(_ellipsoid((0, -0.065, 0.765), (0.155, 0.165, 0.012)), HEADWEAR, anchor, posed, skin)]
    return []


def _bag(person: Appearance, posed: np.ndarray, skin: Surface) -> list[_Piece]:
    trunk = skin["is_trunk"] > 0.9
    if person.bag == "rucksack":
        anchor = trunk & (skin["z"] > 0.2) & (skin["z"] < 0.45)
        return [_attach(_ellipsoid((0, 0.155, 0.30), (0.155, 0.095, 0.21), power=0.45), BAG, anchor, posed, skin)]
    if person.bag == "shoulder":
        anchor = trunk & (skin["z"] < 0.1)
        return [_attach(_ellipsoid((-0.21, 0.03, -0.02), (0.055, 0.14, 0.11), power=0.4), BAG, anchor, posed, skin)]
    if person.bag == "tote":
        anchor = trunk & (skin["z"] < 0.1)
        return [_attach(_ellipsoid((0.25, 0.0, -0.12), (0.045, 0.17, 0.16), power=0.35), BAG, anchor, posed, skin)]
    if person.bag == "trolley":  # it stands on the ground behind the walker's side, whatever the walker does
        case = _ellipsoid((0.27, 0.34, 0.33), (0.19, 0.13, 0.30), power=0.3)
        handle = _ellipsoid((0.27, 0.24, 0.78), (0.07, 0.012, 0.17), power=0.3)
        return [_on_the_ground(piece) for piece in (case, handle)]
    return []


def _umbrella(person: Appearance, posed: np.ndarray, skin: Surface) -> list[_Piece]:
    if person.umbrella is None:
        return []
    head = skin["is_head"] > 0.95
    canopy = _ellipsoid((0.10, -0.06, 0.92), (0.46, 0.46, 0.13), power=0.9)
    rim = canopy[0][:, 2] < 0.92
    canopy[0][rim, 2] = 0.92 + 0.2 * (0.92 - canopy[0][rim, 2])  # hollow below
    stick = _ellipsoid((0.10, -0.14, 0.66), (0.012, 0.012, 0.30), power=0.3)
    return [_attach(piece, UMBRELLA, head, posed, skin) for piece in (canopy, stick)]


def _on_the_ground(shape: tuple[np.ndarray, np.ndarray]) -> _Piece:
    points, faces = shape
    return _Piece(points, faces, _fields(x=points[:, 0], y=points[:, 1], z=points[:, 2]), BAG)


def _attach(
    shape: tuple[np.ndarray, np.ndarray], part: int, anchor: np.ndarray, posed: np.ndarray, skin: Surface
) -> _Piece:
    """Carry a piece from the body of reference to the posed one, by the similarity that fits the anchor."""
    points, faces = shape
    source, target = skin.fields[anchor][:, :3].astype(float), posed[anchor].astype(float)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    u, singular, vt = np.linalg.svd((target - target_mean).T @ (source - source_mean))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / ((source - source_mean) ** 2).sum()
    moved = scale * (points - source_mean) @ rotation.T + target_mean
    return _Piece(moved, faces, _fields(x=points[:, 0], y=points[:, 1], z=points[:, 2]), part)


def _ellipsoid(
    center: tuple[float, float, float], half_axes: tuple[float, float, float], power: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """A superellipsoid; `power` below 1 makes it boxy."""
    rings, segments = 13, 24
    polar = np.linspace(0.02, np.pi - 0.02, rings)[:, None]
    around = np.linspace(0, 2 * np.pi, segments, endpoint=False)[None]

    def bulge(value: np.ndarray) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** power

    unit = np.stack(
        np.broadcast_arrays(
            bulge(np.sin(polar)) * bulge(np.cos(around)),
            bulge(np.sin(polar)) * bulge(np.sin(around)),
            bulge(np.cos(polar)),
        ),
        axis=-1,
    )
    points = unit.reshape(-1, 3) * np.array(half_axes) + np.array(center)
    lids = np.array([[0, k, k + 1] for k in range(1, segments - 1)])
    bottom = (rings - 1) * segments + lids[:, ::-1]
    return points, np.concatenate([_tube(rings, segments), lids, bottom])


def _tube(rings: int, segments: int) -> np.ndarray:
    """Faces between successive rings of points, outwards where the rings go down counter-clockwise."""
    ring, segment = np.divmod(np.arange((rings - 1) * segments), segments)
    a = ring * segments + segment
    b = ring * segments + (segment + 1) % segments
    return np.concatenate([np.column_stack([a, a + segments, b]), np.column_stack([b, a + segments, b + segments])])


def _fields(**values: np.ndarray | float) -> np.ndarray:
    count = max(np.size(value) for value in values.values())
    return np.column_stack([np.broadcast_to(values.get(name, 0.0), count) for name in FIELDS])


def _step(values: np.ndarray, edge: float, width: float) -> np.ndarray:
    """0 below the edge, 1 above, linear over +-width."""
    return np.clip((values - edge) / (2 * width) + 0.5, 0, 1)
