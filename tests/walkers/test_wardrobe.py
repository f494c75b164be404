"""People of the street: patterns that walkers do not wear, dark hair on most, and walkers as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jgcl_ray.data.walkers.paint import albedo
from jgcl_ray.data.walkers.people import NOISY_PATTERNS, PATTERNS, draw_people
from jgcl_ray.data.walkers.surface import surface
from jgcl_ray.data.walkers.wardrobe import creased, draw_street


def test_the_street_wears_more_than_walkers_do() -> None:
    street, walkers = draw_street(np.random.default_rng(0), 400), draw_people(np.random.default_rng(0), 400)
    worn = [
        {cloth.pattern for person in people for cloth in (person.upper.cloth, person.lower.cloth)}
        for people in (street, walkers)
    ]
    assert worn[0] == {*PATTERNS, *NOISY_PATTERNS} and worn[1] == {*PATTERNS}
    assert len(street) == 400 and any(person.upper.emblem == "print" for person in street)
    dark = np.mean([max(person.hair_color) < 0.2 for person in street])
    bags = [np.mean([person.bag != "none" for person in people]) for people in (street, walkers)]
    assert dark > 0.6 and bags[0] > bags[1] + 0.05


def test_other_folds_are_the_same_clothes() -> None:
    rng = np.random.default_rng(1)
    person = draw_street(rng, 1)[0]
    one, other = creased(person, rng), creased(person, rng)
    assert one != other and replace(one, creases=1.0, crease_phase=0.0) == person


def test_every_pattern_is_painted_in_its_two_colours() -> None:
    person = draw_street(np.random.default_rng(2), 1)[0]
    red, blue = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)
    fields = surface().fields
    trunk = (surface()["is_trunk"] > 0.9) & (np.abs(surface()["z"] - 0.3) < 0.08)
    part = np.zeros(len(fields), np.int8)
    seen = {}
    for pattern in NOISY_PATTERNS[:3]:
        cloth = replace(person.upper.cloth, pattern=pattern, color=red, second=blue, scale=0.08)
        upper = replace(person.upper, cloth=cloth, emblem="none", back_emblem="none", open_width=0.0, hem=0.0)
        colors = albedo(replace(person, upper=upper, bag="none", creases=0.0), fields, part)[trunk]
        assert (colors[:, 0] > 0.5).any() and (colors[:, 2] > 0.3).any(), pattern
        seen[pattern] = colors
    assert not np.allclose(seen["plaid"], seen["blotches"])
