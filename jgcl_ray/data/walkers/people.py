"""Who the walkers are: bodies and clothes, drawn from a seed.

Many walkers come in groups of look-alikes that share body and clothes but for one attribute, so that a colour
histogram does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Color = tuple[float, float, float]  # sRGB in [0, 1]

PATTERNS = ("plain", "stripes", "pinstripes", "checks", "gradient", "blocks", "dots")
NOISY_PATTERNS = ("plaid", "blotches", "heather", "denim")  # of wardrobe.py's people, no walkers'
LOOK_ALIKE_SHARE = 0.6  # of the walkers that stand in a group
LOOK_ALIKE_SIZES = (2, 3, 4)


@dataclass(frozen=True)
class Cloth:
    """What a garment is made of."""

    pattern: str  # one of PATTERNS or NOISY_PATTERNS
    color: Color
    second: Color
    scale: float  # period of the pattern, metres
    phase: float = 0.0  # what tells one noisy pattern from another of the same scale


@dataclass(frozen=True)
class Upper:
    """What covers trunk and arms; lengths on the body of reference (surface.py), metres."""

    cloth: Cloth
    sleeve: float  # 0 none, 0.5 to the elbow, 1 to the wrist
    sleeve_cloth: Cloth  # of another colour on some
    hem: float  # height of the lower edge above the hips; below 0 it hangs over the legs
    collar: float  # 0 wide neckline, 1 closed up to the chin
    thickness: float  # how far it stands off the body, metres
    open_width: float  # half width of the strip that an open front shows, 0 if closed
    inner: Color  # seen in that strip
    emblem: str  # none | bar | disc | triangle | text | print, on the chest
    emblem_color: Color
    back_emblem: str  # on the back
    belt: bool


@dataclass(frozen=True)
class Lower:
    """What covers hips and legs."""

    kind: str  # trousers | shorts | skirt | long skirt
    cloth: Cloth
    length: float  # 0 hip, 1 ankle
    thickness: float  # metres
    side_stripe: Color | None
    stockings: Color | None  # on the legs below a skirt


@dataclass(frozen=True)
class Appearance:
    """One walker."""

    shape: tuple[float, ...]  # AnnyBody.PHENOTYPES
    arms: str  # habit, one of gait.ARMS
    skin: Color
    hair: str  # bald | short | bob | long | bun | cap | hat | hood
    hair_color: Color
    head_color: Color  # of cap, hat or hood
    upper: Upper
    lower: Lower
    shoes: Color
    boots: float  # height of the shaft above the ankle, metres
    bag: str  # none | rucksack | shoulder | tote | trolley
    bag_color: Color
    creases: float = 1.0  # how deep the folds of the clothes are
    crease_phase: float = 0.0  # where they lie
    # Of wardrobe.py's people, no walkers', as a trolley is:
    mask: Color | None = None  # over mouth and nose
    umbrella: Color | None = None  # open


_CLOTH_COLORS: tuple[Color, ...] = (
    (0.08, 0.08, 0.09),
    (0.08, 0.08, 0.09),
    (0.22, 0.22, 0.24),
    (0.45, 0.45, 0.46),
    (0.70, 0.70, 0.70),
    (0.93, 0.93, 0.91),
    (0.93, 0.93, 0.91),
    (0.10, 0.14, 0.30),
    (0.10, 0.14, 0.30),
    (0.20, 0.32, 0.55),
    (0.45, 0.62, 0.82),
    (0.15, 0.40, 0.42),
    (0.12, 0.32, 0.17),
    (0.45, 0.48, 0.25),
    (0.75, 0.82, 0.35),
    (0.80, 0.68, 0.45),
    (0.42, 0.28, 0.18),
    (0.60, 0.40, 0.22),
    (0.72, 0.10, 0.12),
    (0.45, 0.08, 0.14),
    (0.90, 0.45, 0.12),
    (0.93, 0.78, 0.20),
    (0.88, 0.52, 0.62),
    (0.55, 0.25, 0.52),
)
_DENIM: tuple[Color, ...] = ((0.16, 0.22, 0.36), (0.28, 0.38, 0.55), (0.45, 0.55, 0.68))
_SKINS: tuple[Color, ...] = (
    (0.94, 0.78, 0.68),
    (0.88, 0.69, 0.56),
    (0.78, 0.58, 0.44),
    (0.62, 0.43, 0.31),
    (0.45, 0.30, 0.21),
    (0.32, 0.21, 0.16),
)
_HAIR_COLORS: tuple[Color, ...] = (
    (0.07, 0.06, 0.06),
    (0.07, 0.06, 0.06),
    (0.20, 0.13, 0.09),
    (0.35, 0.22, 0.13),
    (0.72, 0.56, 0.33),
    (0.60, 0.60, 0.60),
    (0.55, 0.25, 0.12),
)


def draw_people(
    rng: np.random.Generator, count: int, draw: Callable[[np.random.Generator], Appearance] | None = None
) -> list[Appearance]:
    """`count` walkers, LOOK_ALIKE_SHARE of them in groups that differ in one attribute only.

    draw: how one is drawn; None: `draw_person`.
    """
    people: list[Appearance] = []
    while len(people) < count:
        first = (draw or draw_person)(rng)
        people.append(first)
        if rng.random() < _group_probability():
            size = min(int(rng.choice(LOOK_ALIKE_SIZES)) - 1, count - len(people))
            changes = rng.choice(len(_CHANGES), size=size, replace=False)
            people += [_CHANGES[change](first, rng) for change in changes]
    return people


def _group_probability() -> float:
    """So that LOOK_ALIKE_SHARE of all walkers stand in a group of mean size m: p m / (p m + 1 - p)."""
    mean = sum(LOOK_ALIKE_SIZES) / len(LOOK_ALIKE_SIZES)
    return LOOK_ALIKE_SHARE / (LOOK_ALIKE_SHARE + mean * (1 - LOOK_ALIKE_SHARE))


def draw_person(rng: np.random.Generator) -> Appearance:
    """A walker of the sets."""
    female = rng.random() < 0.5
    child = rng.random() < 0.06
    gender = np.clip(rng.normal(0.92 if female else 0.08, 0.08), 0, 1)
    age = rng.uniform(0.38, 0.5) if child else rng.uniform(0.6, 1.0)
    shape = (gender, age, rng.uniform(0.25, 0.8), rng.beta(2, 2.5), rng.normal(0.5, 0.07), rng.uniform(0.3, 0.7))
    head = rng.choice(["hair", "cap", "hat", "hood"], p=[0.82, 0.09, 0.04, 0.05])
    if head == "hair":
        styles = (["short", "bob", "long", "bun"], [0.12, 0.3, 0.38, 0.2])
        if not female:
            styles = (["bald", "short", "bob"], [0.15, 0.78, 0.07])
        head = rng.choice(styles[0], p=styles[1])
    skin = np.array(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.93, 1.05)
    return Appearance(
        shape=tuple(float(np.clip(value, 0.02, 0.98)) for value in shape),
        arms=str(rng.choice(["swing", "phone", "pockets", "carry"], p=[0.7, 0.08, 0.14, 0.08])),
        skin=_color(skin),
        hair=str(head),
        hair_color=_HAIR_COLORS[rng.integers(len(_HAIR_COLORS))],
        head_color=_cloth_color(rng),
        upper=_draw_upper(rng),
        lower=_draw_lower(rng, female),
        shoes=_cloth_color(rng),
        boots=float(rng.choice([0.0, 0.0, 0.0, 0.12, 0.28])),
        bag=str(rng.choice(["none", "rucksack", "shoulder", "tote"], p=[0.52, 0.22, 0.16, 0.10])),
        bag_color=_cloth_color(rng),
    )


def _draw_upper(rng: np.random.Generator) -> Upper:
    kind = rng.choice(["shirt", "t-shirt", "top", "sweater", "jacket", "coat"], p=[0.2, 0.25, 0.07, 0.18, 0.2, 0.1])
    cloth = _draw_cloth(rng, plain=0.75 if kind in ("jacket", "coat") else 0.45)
    sleeve = {"t-shirt": rng.uniform(0.28, 0.48), "top": 0.02}.get(kind, rng.uniform(0.9, 1.02))
    hem = {"coat": rng.uniform(-0.48, -0.28), "jacket": rng.uniform(-0.06, 0.06), "top": 0.04}.get(kind)
    raglan = rng.random() < 0.15
    opens = kind in ("jacket", "coat", "shirt") and rng.random() < 0.5
    emblems = ["none", "bar", "disc", "triangle", "text"]
    plain_top = kind in ("t-shirt", "sweater") and cloth.pattern in ("plain", "gradient")
    return Upper(
        cloth=cloth,
        sleeve=float(sleeve),
        sleeve_cloth=_draw_cloth(rng, plain=1.0) if raglan else cloth,
        hem=float(rng.uniform(-0.10, 0.04) if hem is None else hem),
        collar=float({"jacket": 1.0, "coat": 1.0, "sweater": 0.7, "top": 0.0}.get(kind, rng.uniform(0.2, 0.6))),
        thickness=float({"jacket": 0.03, "coat": 0.035, "sweater": 0.02, "top": 0.006}.get(kind, 0.012)),
        open_width=float(rng.uniform(0.035, 0.075)) if opens else 0.0,
        inner=_cloth_color(rng),
        emblem=str(rng.choice(emblems, p=[0.3, 0.2, 0.2, 0.1, 0.2])) if plain_top else "none",
        emblem_color=_contrast(rng, cloth.color),
        back_emblem=str(rng.choice(emblems, p=[0.7, 0.1, 0.05, 0.05, 0.1])),
        belt=bool(kind == "coat" and rng.random() < 0.4),
    )


def _draw_lower(rng: np.random.Generator, female: bool) -> Lower:
    weights = [0.62, 0.12, 0.16, 0.10] if female else [0.8, 0.2, 0.0, 0.0]
    kind = str(rng.choice(["trousers", "shorts", "skirt", "long skirt"], p=weights))
    length = {"trousers": 1.0, "shorts": rng.uniform(0.35, 0.55), "skirt": rng.uniform(0.38, 0.6)}.get(kind, 0.88)
    cloth = _draw_cloth(rng, plain=0.85 if kind in ("trousers", "shorts") else 0.5)
    if kind in ("trousers", "shorts") and rng.random() < 0.4:
        denim = _DENIM[rng.integers(len(_DENIM))]
        cloth = Cloth("plain", denim, denim, 0.1)
    return Lower(
        kind=kind,
        cloth=cloth,
        length=float(length),
        thickness=float(rng.uniform(0.006, 0.03)),
        side_stripe=_contrast(rng, cloth.color) if kind != "skirt" and rng.random() < 0.15 else None,
        stockings=_cloth_color(rng) if kind == "skirt" and rng.random() < 0.5 else None,
    )


def _draw_cloth(rng: np.random.Generator, plain: float) -> Cloth:
    patterned = PATTERNS[1:]
    pattern = "plain" if rng.random() < plain else patterned[rng.integers(len(patterned))]
    color = _cloth_color(rng)
    scale = rng.uniform(0.05, 0.16) if pattern != "pinstripes" else rng.uniform(0.03, 0.05)
    return Cloth(pattern, color, _contrast(rng, color), float(scale))


def _cloth_color(rng: np.random.Generator) -> Color:
    base = np.array(_CLOTH_COLORS[rng.integers(len(_CLOTH_COLORS))])
    return _color(base * rng.uniform(0.85, 1.1) + rng.normal(0, 0.02, 3))


def _contrast(rng: np.random.Generator, color: Color, distance: float = 0.45) -> Color:
    """A cloth colour far from `color` in RGB."""
    while True:
        other = _cloth_color(rng)
        if np.linalg.norm(np.subtract(other, color)) > distance:
            return other


def _color(values: np.ndarray) -> Color:
    red, green, blue = (float(value) for value in np.clip(values, 0.03, 0.97))
    return red, green, blue


def _other_upper_color(person: Appearance, rng: np.random.Generator) -> Appearance:
    cloth = replace(person.upper.cloth, color=_contrast(rng, person.upper.cloth.color))
    return replace(person, upper=replace(person.upper, cloth=cloth, sleeve_cloth=cloth))


def _other_upper_pattern(person: Appearance, rng: np.random.Generator) -> Appearance:
    """Another pattern of the same two colours: hard for a histogram."""
    others = [pattern for pattern in PATTERNS[1:] if pattern != person.upper.cloth.pattern]
    pattern = others[rng.integers(len(others))]
    cloth = replace(person.upper.cloth, pattern=pattern, scale=0.1)
    return replace(person, upper=replace(person.upper, cloth=cloth))


def _other_lower_color(person: Appearance, rng: np.random.Generator) -> Appearance:
    color = _contrast(rng, person.lower.cloth.color)
    return replace(person, lower=replace(person.lower, cloth=replace(person.lower.cloth, color=color)))


def _swapped_colors(person: Appearance, rng: np.random.Generator) -> Appearance:
    """Upper and lower change colours: the same histogram over the whole picture."""
    upper, lower = person.upper.cloth, person.lower.cloth
    if np.linalg.norm(np.subtract(upper.color, lower.color)) < 0.35:
        return _other_lower_color(person, rng)
    swapped = replace(upper, color=lower.color)
    return replace(
        person,
        upper=replace(person.upper, cloth=swapped, sleeve_cloth=swapped),
        lower=replace(person.lower, cloth=replace(lower, color=upper.color)),
    )


def _other_sleeves(person: Appearance, rng: np.random.Generator) -> Appearance:
    cloth = Cloth("plain", _contrast(rng, person.upper.cloth.color), person.upper.cloth.second, 0.1)
    return replace(person, upper=replace(person.upper, sleeve=1.0, sleeve_cloth=cloth))


def _other_bag(person: Appearance, rng: np.random.Generator) -> Appearance:
    if person.bag == "none":
        return replace(person, bag="rucksack", bag_color=_contrast(rng, person.upper.cloth.color))
    return replace(person, bag_color=_contrast(rng, person.bag_color))


def _other_legs(person: Appearance, rng: np.random.Generator) -> Appearance:
    length = 0.42 if person.lower.length > 0.7 else 1.0
    kind = "shorts" if length < 0.7 else "trousers"
    return replace(person, lower=replace(person.lower, kind=kind, length=length, stockings=None))


def _other_head(person: Appearance, rng: np.random.Generator) -> Appearance:
    if person.hair in ("cap", "hat", "hood"):
        return replace(person, hair="short")
    return replace(person, hair="cap", head_color=_contrast(rng, person.hair_color))


_CHANGES: tuple[Callable[[Appearance, np.random.Generator], Appearance], ...] = (
    _other_upper_color,
    _other_upper_pattern,
    _other_lower_color,
    _swapped_colors,
    _other_sleeves,
    _other_bag,
    _other_legs,
    _other_head,
)
