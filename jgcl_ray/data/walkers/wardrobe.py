"""People dressed as widely as a street is: what encoders are pre-trained on, never what the walkers' sets show.

Bodies and kinds of garments are drawn as the walkers' are. Colours are drawn as clothes are bought, mostly black,
grey, white and blue, and not from two dozen; patterns, prints and bags are more, some pull a trolley, wear a mask or
hold an umbrella. Hair and skin say less: on many a street nearly everybody's are alike. Some come again in a second
outfit, as people of their own: they are told apart by clothes, whatever the body.
"""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np

from jgcl_ray.data.walkers.people import (
    NOISY_PATTERNS,
    PATTERNS,
    Appearance,
    Cloth,
    Color,
    Lower,
    Upper,
    draw_people,
    draw_person,
)

# Hue, saturation and value: low and high of each.
_DARK = ((0.0, 1.0), (0.0, 0.35), (0.03, 0.2))
_LIGHT = ((0.0, 1.0), (0.0, 0.12), (0.78, 0.97))
_GREY = ((0.0, 1.0), (0.0, 0.12), (0.2, 0.78))
_BLUE = ((0.55, 0.69), (0.25, 0.8), (0.12, 0.65))
_EARTH = ((0.05, 0.14), (0.2, 0.6), (0.25, 0.8))
_VIVID = ((0.0, 1.0), (0.3, 0.95), (0.2, 0.92))
_BOUGHT = (_DARK, _LIGHT, _GREY, _BLUE, _EARTH, _VIVID)
_FOR_UPPERS = (0.28, 0.16, 0.14, 0.12, 0.06, 0.24)
_FOR_LOWERS = (0.40, 0.05, 0.14, 0.22, 0.11, 0.08)
_DARK_HAIR = ((0.03, 0.1), (0.1, 0.5), (0.04, 0.16))
_SKIN = ((0.05, 0.075), (0.25, 0.45), (0.62, 0.95))
_FOR_BAGS = (0.50, 0.06, 0.12, 0.10, 0.08, 0.14)
_FOR_UMBRELLAS = (0.35, 0.05, 0.05, 0.15, 0.05, 0.35)
_MASKS: tuple[Color, ...] = ((0.93, 0.94, 0.95), (0.6, 0.78, 0.88), (0.08, 0.08, 0.09))
SECOND_OUTFITS = 0.12  # of the people are the one before in other clothes


def draw_street(rng: np.random.Generator, count: int) -> list[Appearance]:
    """`count` people, in groups of look-alikes as `draw_people` draws them, SECOND_OUTFITS of them dressed anew."""
    people = draw_people(rng, count, _draw_dressed)
    for index in range(1, count):
        if rng.random() < SECOND_OUTFITS:
            people[index] = changed(people[index - 1], rng)
    return people


def changed(person: Appearance, rng: np.random.Generator) -> Appearance:
    """The same body, hair and skin in other clothes, with other things to carry."""
    return replace(
        _draw_dressed(rng),
        shape=person.shape,
        arms=person.arms,
        skin=person.skin,
        hair=person.hair,
        hair_color=person.hair_color,
    )


def creased(person: Appearance, rng: np.random.Generator) -> Appearance:
    """The same clothes in other folds, as every step makes them; some put up an umbrella, and close it again."""
    umbrella = _color(rng, _FOR_UMBRELLAS) if rng.random() < 0.04 else None
    return replace(
        person, creases=float(rng.uniform(0.4, 2.0)), crease_phase=float(rng.uniform(0, 10)), umbrella=umbrella
    )


def _draw_dressed(rng: np.random.Generator) -> Appearance:
    person = draw_person(rng)
    alike = rng.random() < 0.75
    bag = rng.choice([person.bag, "rucksack", "shoulder", "tote", "trolley"], p=[0.78, 0.06, 0.06, 0.06, 0.04])
    return replace(
        person,
        skin=_drawn(rng, _SKIN) if alike else person.skin,
        hair="short" if person.hair == "bald" and alike else person.hair,
        hair_color=_drawn(rng, _DARK_HAIR) if alike else person.hair_color,
        bag=str(bag),
        mask=_MASKS[rng.integers(len(_MASKS))] if rng.random() < 0.08 else None,
        upper=_upper(person.upper, rng),
        lower=_lower(person.lower, rng),
        shoes=_color(rng, _FOR_BAGS),
        bag_color=_color(rng, _FOR_BAGS),
        head_color=_color(rng, _FOR_BAGS),
    )


def _upper(upper: Upper, rng: np.random.Generator) -> Upper:
    thick = upper.thickness > 0.025
    cloth = _cloth(rng, _FOR_UPPERS, plain=0.8 if thick else 0.55)
    same_sleeves = upper.sleeve_cloth == upper.cloth
    prints = not thick and cloth.pattern in ("plain", "heather") and rng.random() < 0.3
    return replace(
        upper,
        cloth=cloth,
        sleeve_cloth=cloth if same_sleeves else _cloth(rng, _FOR_UPPERS, plain=1.0),
        inner=_color(rng, _FOR_UPPERS),
        emblem="print" if prints else upper.emblem,
        emblem_color=_color(rng, _FOR_UPPERS),
    )


def _lower(lower: Lower, rng: np.random.Generator) -> Lower:
    trousers = lower.kind in ("trousers", "shorts")
    cloth = _cloth(rng, _FOR_LOWERS, plain=0.93 if trousers else 0.55)
    if trousers and rng.random() < 0.35:
        color = _drawn(rng, _BLUE)
        pale = tuple(float(value) for value in np.add(color, 0.75 * (np.array([0.75, 0.8, 0.88]) - color)))
        cloth = Cloth("denim", color, (pale[0], pale[1], pale[2]), 0.12, float(rng.uniform(0, 10)))
    return replace(lower, cloth=cloth)


def _cloth(rng: np.random.Generator, shares: tuple[float, ...], plain: float) -> Cloth:
    patterned = (*PATTERNS[1:], *NOISY_PATTERNS[:3])
    pattern = "plain" if rng.random() < plain else patterned[rng.integers(len(patterned))]
    scale = rng.uniform(0.04, 0.16) if pattern != "pinstripes" else rng.uniform(0.03, 0.05)
    color, second = _color(rng, shares), _color(rng, (0.2, 0.3, 0.1, 0.1, 0.05, 0.25))
    return Cloth(pattern, color, second, float(scale), float(rng.uniform(0, 10)))


def _color(rng: np.random.Generator, shares: tuple[float, ...]) -> Color:
    return _drawn(rng, _BOUGHT[rng.choice(len(_BOUGHT), p=shares)])


def _drawn(rng: np.random.Generator, kind: tuple[tuple[float, float], ...]) -> Color:
    hue, saturation, value = (float(rng.uniform(low, high)) for low, high in kind)
    return colorsys.hsv_to_rgb(hue, saturation, value)
