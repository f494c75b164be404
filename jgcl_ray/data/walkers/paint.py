"""The colour of every point of a dressed walker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jgcl_ray.data.walkers.figure import BAG, BODY, HAIR, HEADWEAR, SKIRT, UMBRELLA, hair_region
from jgcl_ray.data.walkers.people import NOISY_PATTERNS, Appearance, Cloth, Color
from jgcl_ray.data.walkers.surface import ANKLE, FIELDS, HIP, WAIST

_LEG = HIP - ANKLE


@dataclass(frozen=True)
class _Points:
    """P points of the surface."""

    fields: np.ndarray  # (P, len(FIELDS))

    def __call__(self, name: str) -> np.ndarray:
        return self.fields[:, FIELDS.index(name)]


def albedo(person: Appearance, fields: np.ndarray, part: np.ndarray) -> np.ndarray:
    """sRGB colours (P, 3) float32 for fields (P, len(FIELDS)) and parts (P,) of points on the walker's surface."""
    at = _Points(fields)
    colors = np.empty((len(fields), 3), np.float32)
    colors[:] = person.skin
    _paint_head(colors, person, at)
    _paint_lower(colors, person, at)
    _paint_shoes(colors, person, at)
    _paint_upper(colors, person, at)
    _paint_straps(colors, person, at)
    on_skirt = part == SKIRT
    if on_skirt.any():
        hangs_from_upper = (
            on_skirt & (at("z") >= person.upper.hem - 1e-3) if person.upper.hem < -0.2 else on_skirt & False
        )
        lower = on_skirt & ~hangs_from_upper
        colors[lower] = _cloth(person.lower.cloth, at)[lower]
        colors[hangs_from_upper] = _cloth(person.upper.cloth, at)[hangs_from_upper]
        if person.upper.open_width:
            gap = hangs_from_upper & (np.abs(at("x")) < 0.8 * person.upper.open_width) & (at("y") < 0)
            colors[gap] = np.multiply(person.lower.cloth.color, 0.8)
    colors[part == HAIR] = person.hair_color
    colors[part == HEADWEAR] = person.head_color
    if person.umbrella is not None:
        colors[part == UMBRELLA] = person.umbrella
    bag = part == BAG
    colors[bag] = person.bag_color
    flap = bag & (np.abs(at("z") - 0.33) < 0.012)
    colors[flap] = np.multiply(person.bag_color, 0.55)
    body = (part == BODY) | (part == SKIRT)
    colors[body] *= _folds(person, at)[body, None]
    return np.clip(colors, 0, 1)


def _paint_head(colors: np.ndarray, person: Appearance, at: _Points) -> None:
    head = at("is_head") > 0.4
    x, y, z = at("x"), at("y"), at("z")
    colors[at("is_eye") > 0.5] = (0.12, 0.09, 0.08)
    brows = head & (y < -0.11) & (np.abs(z - 0.722) < 0.006) & (np.abs(np.abs(x) - 0.032) < 0.02)
    colors[brows] = np.multiply(person.hair_color, 0.8)
    lips = head & (y < -0.11) & (np.abs(z - 0.627) < 0.008) & (np.abs(x) < 0.024)
    colors[lips] = np.multiply(person.skin, (0.85, 0.62, 0.62))
    if person.mask is not None:
        colors[head & (y < -0.03) & (z > 0.575) & (z < 0.668)] = person.mask
    grows = hair_region(at) > 0
    if person.hair in ("cap", "hat"):
        colors[grows] = person.hair_color
        colors[grows & (z > 0.735)] = person.head_color
    elif person.hair == "hood":
        colors[grows] = person.head_color
    elif person.hair != "bald":
        colors[grows] = person.hair_color


def _paint_lower(colors: np.ndarray, person: Appearance, at: _Points) -> None:
    lower, z = person.lower, at("z")
    body = np.maximum(at("is_leg"), at("is_trunk")) + at("is_foot") > 0.4
    below_waist = body & (z < WAIST + 0.02) & (at("is_hand") + at("is_arm") < 0.4)
    legs = below_waist & (z > HIP - lower.length * _LEG)
    if lower.stockings is not None:
        colors[below_waist] = lower.stockings
    if lower.kind in ("skirt", "long skirt"):
        legs = below_waist & (z > HIP - 0.3)
    colors[legs] = _cloth(lower.cloth, at)[legs]
    if lower.side_stripe is not None:
        outside = legs & (np.abs(at("y")) < 0.022) & (np.abs(at("x")) > 0.13)
        colors[outside] = lower.side_stripe


def _paint_shoes(colors: np.ndarray, person: Appearance, at: _Points) -> None:
    foot = (at("is_foot") > 0.45) & (at("is_hand") < 0.1) & (at("z") < ANKLE + 0.10)
    shaft = (at("is_leg") > 0.4) & (at("z") < ANKLE + person.boots) if person.boots else foot
    colors[foot | shaft] = person.shoes
    sole = foot & (at("z") < -0.922)
    colors[sole] = np.clip(np.multiply(person.shoes, 0.4), 0, 1)


def _paint_upper(colors: np.ndarray, person: Appearance, at: _Points) -> None:
    upper = person.upper
    x, y, z = at("x"), at("y"), at("z")
    neckline = 0.50 + 0.075 * upper.collar + np.where(y < -0.03, -0.10 * (1 - upper.collar), 0.0)
    neckline = neckline + np.minimum(np.abs(x) * 0.55, 0.1) * (1 - upper.collar)
    on_legs = at("is_leg") > 0.4
    trunk = (at("is_trunk") > 0.4) | on_legs
    trunk &= (z > upper.hem) & (z < neckline) & (at("is_head") < 0.4)
    if upper.sleeve < 0.1:
        trunk &= np.abs(x) < 0.15
    sleeves = (at("is_arm") > 0.4) & (at("arm") < upper.sleeve)
    colors[trunk] = _cloth(upper.cloth, at)[trunk]
    colors[sleeves] = _cloth(upper.sleeve_cloth, at, across=at("arm") * 0.55)[sleeves]
    front = trunk & (y < -0.02)
    if upper.open_width:
        gap = front & (np.abs(x) < upper.open_width * (0.75 + 0.5 * np.clip(z / 0.5, 0, 1)))
        colors[gap] = upper.inner
    if upper.belt:
        colors[trunk & (np.abs(z - 0.13) < 0.018)] = np.multiply(upper.cloth.color, 0.5)
    _paint_emblem(colors, front & (z < 0.48), upper.emblem, upper.emblem_color, x, z)
    _paint_emblem(colors, trunk & (y > 0.02), upper.back_emblem, upper.emblem_color, -x, z)


def _paint_emblem(
    colors: np.ndarray, where: np.ndarray, emblem: str, color: Color, x: np.ndarray, z: np.ndarray
) -> None:
    height = z - 0.36
    shapes = {
        "none": np.zeros_like(where),
        "bar": np.abs(height) < 0.045,
        "disc": x**2 + height**2 < 0.085**2,
        "triangle": (height > -0.08) & (np.abs(x) < 0.10 - (height + 0.08) * 0.6),
        "text": (np.abs(height) < 0.035) & (np.abs(x) < 0.11) & (np.mod(x, 0.045) < 0.032),
        "print": (np.abs(height + 0.03) < 0.1) & (np.abs(x) < 0.11) & (_noise(x, 0 * x, z, 0.07, color[0] * 40) > 0),
    }
    colors[where & shapes[emblem]] = color


def _paint_straps(colors: np.ndarray, person: Appearance, at: _Points) -> None:
    trunk = (at("is_trunk") > 0.4) & (at("is_head") < 0.3)
    x, y, z = at("x"), at("y"), at("z")
    dark = np.multiply(person.bag_color, 0.75)
    if person.bag == "rucksack":
        colors[trunk & (y < 0.05) & (np.abs(np.abs(x) - 0.105) < 0.02) & (z > 0.2)] = dark
    if person.bag == "shoulder":
        colors[trunk & (np.abs(z - 0.28 - 1.5 * x) < 0.035) & (z < 0.56) & (z > -0.05)] = dark


def _cloth(cloth: Cloth, at: _Points, across: np.ndarray | None = None) -> np.ndarray:
    """Colour of the cloth at each point, (P, 3); `across` replaces the height as the pattern's first axis."""
    x, y, z = at("x"), at("y"), at("z")
    first = z if across is None else across
    around = x + 0.6 * y
    period = cloth.scale
    if cloth.pattern == "stripes":
        mix = np.mod(first, period) < period / 2
    elif cloth.pattern == "pinstripes":
        mix = np.mod(around, period) < period / 3
    elif cloth.pattern == "checks":
        mix = 0.5 * (np.mod(first, period) < period / 2) + 0.5 * (np.mod(around, period) < period / 2)
    elif cloth.pattern == "gradient":
        mix = np.clip((first + 0.05) / 0.55, 0, 1)
    elif cloth.pattern == "blocks":
        mix = first > 0.3
    elif cloth.pattern == "dots":
        mix = (np.mod(first, period) - period / 2) ** 2 + (np.mod(around, period) - period / 2) ** 2 < (
            period / 3.2
        ) ** 2
    elif cloth.pattern in NOISY_PATTERNS:
        mix = _noisy(cloth, first, around, at)
    else:
        mix = np.zeros_like(x)
    weight = np.asarray(mix, np.float32)[:, None]
    return (1 - weight) * np.array(cloth.color, np.float32) + weight * np.array(cloth.second, np.float32)


def _noisy(cloth: Cloth, first: np.ndarray, around: np.ndarray, at: _Points) -> np.ndarray:
    """Share of the second colour at each point, (P,), of one of NOISY_PATTERNS."""
    x, y, z = at("x"), at("y"), at("z")
    if cloth.pattern == "plaid":
        shift = 0.1 * cloth.phase
        bands = [np.mod((line + shift) / cloth.scale, 1) for line in (first, around)]
        broad, narrow = (np.sum([band < width for band in bands], axis=0) for width in (0.45, 0.12))
        return np.asarray(0.35 * broad + 0.15 * narrow)
    if cloth.pattern == "denim":
        worn = np.clip(1 - np.abs(z + 0.25) / 0.2, 0, 1) * np.clip(1 - np.abs(np.abs(x) - 0.1) / 0.07, 0, 1) * (y < 0)
        return np.clip(0.6 * worn + 0.1 * _noise(x, y, z, cloth.scale, cloth.phase), 0, 1)
    noise = _noise(x, y, z, cloth.scale, cloth.phase)
    return noise > 0.25 if cloth.pattern == "blotches" else np.clip(0.25 + 0.5 * noise, 0, 1)


def _noise(x: np.ndarray, y: np.ndarray, z: np.ndarray, period: float, phase: float) -> np.ndarray:
    """Smooth blotches of about half a period, (P,), mostly in [-1, 1]; `phase` moves and reshapes them."""
    total = np.zeros_like(x)
    for wave in range(5):
        turn = 2.4 * wave + phase
        along = np.cos(turn) * x + np.sin(1.7 * turn) * y + np.sin(turn) * z
        total += np.sin(2 * np.pi * along / period * (0.7 + 0.2 * wave) + 3 * turn + np.sin(total))
    return total / 2


def _folds(person: Appearance, at: _Points) -> np.ndarray:
    """Folds of the cloth as slow changes of brightness, (P,)."""
    x, y, z, arm = at("x"), at("y"), at("z"), at("arm")
    x, z = x + person.crease_phase, z + person.crease_phase
    wave = np.sin(31 * z + 9 * x + 4 * np.sin(17 * y)) + np.sin(23 * x - 13 * z + 40 * arm) + np.sin(47 * z - 29 * y)
    skin = (at("is_head") > 0.4) | (at("is_hand") > 0.4)
    return np.where(skin, 1.0, 1 + 0.045 * person.creases * wave).astype(np.float32)
