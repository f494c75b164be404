"""Photos with true views of the same person: pure functions of seed and number, drafts that agree where they can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jgcl_ray.estimator_training.cutouts import SIDES, Cutouts, surface_places
from jgcl_ray.estimator_training.pasting import cut, cut_places
from jgcl_ray.pretraining import view_pairs
from jgcl_ray.pretraining.view_pairs import PairDrawing, ViewBatch, draw_views

SHAPE = (64, 32)
DRAWING = PairDrawing(SIDES, photos=3, views=2, shape=SHAPE)


def tensors_of(batch: ViewBatch) -> dict[str, torch.Tensor]:
    own = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return own | vars(batch.draft)


def test_a_batch_follows_from_seed_and_number(street: Cutouts) -> None:
    first, again = (tensors_of(draw_views(street, DRAWING, seed=1, number=7)) for _ in range(2))
    assert first["photos"].shape == (3, 3, *SHAPE) and first["truth"].shape == (6, 3, *SHAPE)
    assert first["picture"].shape == first["sharp"].shape == first["truth"].shape
    assert first["places"].shape == (6, *SHAPE, 3) and first["person"].shape == (6, 1, *SHAPE)
    for name, tensor in first.items():
        assert torch.equal(tensor.nan_to_num(-9), again[name].nan_to_num(-9)), name
    for seed, number in ((1, 8), (2, 7)):
        other = draw_views(street, DRAWING, seed, number)
        assert not torch.equal(first["photos"], other.photos) and not torch.equal(first["truth"], other.truth)
    for name in ("photos", "truth", "person", "confidence", "cover"):
        assert first[name].min() >= 0 and first[name].max() <= 1, name


def test_a_flipped_picture_shows_the_mirrored_person(street: Cutouts) -> None:
    rows = np.array([0, 5])
    window = np.concatenate([street.box[rows, :2] - 4, street.box[rows, 2:] + 4], axis=1)
    plain, mirrored = (cut_places(street, rows, window, np.array([flip, flip]), SHAPE) for flip in (False, True))
    pictures = [cut(street, rows, window, np.array([flip, flip]), SHAPE) for flip in (False, True)]
    torch.testing.assert_close(pictures[1], pictures[0].flip(3), atol=1e-4, rtol=0)
    expected = plain.flip(2) * torch.tensor([-1.0, 1.0, 1.0])
    # A pixel at the border of two codes may fall to either.
    same = (mirrored.nan_to_num(-9) - expected.nan_to_num(-9)).abs().amax(3) < 1e-6
    assert same.float().mean() > 0.98 and (~torch.isnan(plain[..., 0])).float().mean() > 0.1


def test_points_are_read_and_never_mixed(street: Cutouts) -> None:
    rows = np.arange(4)
    window = np.tile([0.0, 0.0, 80.0, 112.0], (4, 1))
    places = cut_places(street, rows, window, np.zeros(4, bool), (96, 48))
    for row in range(4):
        there = {tuple(code) for code in surface_places(street.surface[row]).reshape(3, -1).T.round(5).tolist()}
        found = places[row][~torch.isnan(places[row, ..., 0])].numpy().round(5).tolist()
        assert len(found) > 100 and all(tuple(place) in there for place in found)


def test_a_body_is_moved_by_as_much_as_is_said(street: Cutouts) -> None:
    rows, window = np.array([2]), street.box[2:3]
    still, there = np.zeros(1, bool), torch.zeros(1, *SHAPE, 2)
    there[..., 0] = 2 * 3 / SHAPE[1]  # three pixels to the right
    plain = cut_places(street, rows, window, still, SHAPE)
    moved = cut_places(street, rows, window, still, SHAPE, there)
    torch.testing.assert_close(moved[:, :, :-3].nan_to_num(-9), plain[:, :, 3:].nan_to_num(-9))


def test_drafts_agree_with_the_truth_where_all_is_visible_and_alike(
    street: Cutouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People painted by height alone, bodies as they are, no camera: a draft is the true view inside the body."""
    places = surface_places(street.surface)
    grey = np.nan_to_num(0.5 + 0.4 * np.sin(7 * places[:, 2]))
    mask = ~np.isnan(places[:, 2])
    layers = np.stack([grey * mask, 0.5 * mask, (1 - grey) * mask, mask, mask], axis=1)
    painted = replace(street, layers=np.round(255 * layers).astype(np.uint8))
    monkeypatch.setattr(view_pairs, "SPOILT", 0.0)
    monkeypatch.setattr(view_pairs, "ACCOMPANIED", 0.0)
    monkeypatch.setattr(view_pairs, "relit", lambda layer, *_, **__: layer)
    monkeypatch.setattr(view_pairs, "degraded", lambda crops, *_: crops)
    batch = draw_views(painted, replace(DRAWING, photos=6), seed=0, number=0)
    sure = (batch.draft.confidence > 0.5) & (batch.person[:, 0] > 0.99)
    apart = (batch.draft.picture - batch.truth).abs().mean(1)
    assert sure.float().mean() > 0.05 and apart[sure].mean() < 0.04
    # Before the same backdrop, by the same camera: where neither side shows the person nothing differs.
    away = (batch.draft.confidence > 0.99) & (batch.person[:, 0] == 0)
    assert away.any() and apart[away].max() < 0.05 and apart[away].mean() < 1e-3


def test_spoilt_bodies_differ_from_the_true_ones_by_pixels(street: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(view_pairs, "SPOILT", share)
        batch = draw_views(street, replace(DRAWING, photos=8), seed=0, number=0)
        seen[share] = ~torch.isnan(batch.places[..., 0])
    both, either = (seen[0.0] & seen[1.0]).sum(), (seen[0.0] | seen[1.0]).sum()
    assert 0.5 < both / either < 0.93


def test_true_views_take_the_light_of_the_photo(street: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second side rendered darker, the drafts' colours on the person are nearer to the lit true views'."""
    monkeypatch.setattr(view_pairs, "SPOILT", 0.0)
    layers = street.layers.copy()
    layers[1::2, :3] = layers[1::2, :3] * 0.75
    uneven, apart = replace(street, layers=layers), {}
    for name, lit in (("lit", view_pairs._lit_alike), ("as rendered", lambda truth, *_: truth)):
        monkeypatch.setattr(view_pairs, "_lit_alike", lit)
        batch = draw_views(uneven, replace(DRAWING, photos=12), seed=0, number=0)
        sure = batch.draft.confidence[:, None] * (batch.person > 0.9)
        means = [(picture * sure).sum((2, 3)) / sure.sum((2, 3)) for picture in (batch.draft.picture, batch.truth)]
        apart[name] = (means[0] - means[1]).abs().mean()
    assert apart["lit"] < 0.5 * apart["as rendered"]


def test_flips_come_through_to_places(street: Cutouts) -> None:
    """The left half of the body is seen on the left as often as on the right."""
    sides = []
    for number in range(8):
        batch = draw_views(street, DRAWING, seed=0, number=number)
        x = batch.photo_places[..., 0]
        column = torch.arange(SHAPE[1]).float().expand_as(x)
        seen = ~torch.isnan(x)
        sides += [torch.corrcoef(torch.stack([x[i][seen[i]], column[i][seen[i]]]))[0, 1] > 0 for i in range(len(x))]
    assert 0 < sum(map(float, sides)) < len(sides)
