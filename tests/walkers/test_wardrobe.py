"""People of the street: patterns that walkers do not wear, dark hair on most, and walkers as they were."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from jgcl_ray.data.walkers.figure import BAG, UMBRELLA, dress
from jgcl_ray.data.walkers.paint import albedo
from jgcl_ray.data.walkers.people import NOISY_PATTERNS, PATTERNS, draw_people
from jgcl_ray.data.walkers.surface import surface
from jgcl_ray.data.walkers.wardrobe import creased, draw_street
from jgcl_ray.meshes.gait import draw_gait


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
    assert dark > 0.6 and bags[0] > bags[1]


def test_other_folds_are_the_same_clothes() -> None:
    rng = np.random.default_rng(1)
    person = draw_street(rng, 1)[0]
    one, other = creased(person, rng), creased(person, rng)
    assert one != other and replace(one, creases=1.0, crease_phase=0.0, umbrella=None) == person
    open_ones = np.mean([creased(person, rng).umbrella is not None for _ in range(400)])
    assert 0.01 < open_ones < 0.1


def test_some_come_again_in_a_second_outfit() -> None:
    people = draw_street(np.random.default_rng(3), 400)
    again = [(a, b) for a, b in pairwise(people) if a.shape == b.shape and a.upper != b.upper and a.lower != b.lower]
    assert 0.06 * len(people) < len(again) < 0.35 * len(people)  # the rest of a group keeps the old clothes
    assert all(a.skin == b.skin and a.hair_color == b.hair_color for a, b in again)
    assert any(a.bag != b.bag for a, b in again)


def test_trolleys_stand_on_the_ground_umbrellas_over_heads_and_masks_cover_mouths() -> None:
    plain = replace(draw_street(np.random.default_rng(4), 1)[0], bag="none", mask=None, hair="short")
    gait = draw_gait(np.random.default_rng(0), "swing")
    bare = dress(plain, gait)
    for person, part in ((replace(plain, bag="trolley"), BAG), (replace(plain, umbrella=(1.0, 0.0, 0.0)), UMBRELLA)):
        figure = dress(person, gait)
        added = figure.dressed.vertices[np.unique(figure.dressed.faces[figure.part == part])]
        assert len(added) and not (bare.part == part).any()
        if part == BAG:
            assert -0.01 < added[:, 2].min() < 0.1
        else:
            assert added[:, 2].max() > bare.dressed.vertices[:, 2].max()
    fields, white = surface().fields, (1.0, 1.0, 1.0)
    part = np.zeros(len(fields), np.int8)
    masked, open_faced = (albedo(replace(plain, mask=mask, creases=0.0), fields, part) for mask in (white, None))
    covered = np.flatnonzero((masked != open_faced).any(axis=1))
    assert len(covered) > 20 and (surface()["is_head"][covered] > 0.4).all() and (masked[covered] > 0.9).all()
    height = surface()["z"][covered]
    assert height.min() > 0.55 and height.max() < 0.7  # below the eyes


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
