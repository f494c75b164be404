"""Batches of people: pure functions of seed and number, the same people before every camera, look-alikes in pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jgcl_ray.estimator_training.cutouts import CUTOUTS, Cutouts
from jgcl_ray.pretraining.pictures import Drawing, draw_identities

DRAWING = Drawing(CUTOUTS, people=4, cameras=3, shape=(64, 32))


def test_a_batch_follows_from_seed_and_number(street: Cutouts) -> None:
    first, again = (draw_identities(street, DRAWING, seed=1, number=7) for _ in range(2))
    assert first.pictures.shape == (12, 3, 64, 32)
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.identities, again.identities)
    for seed, number in ((1, 8), (2, 7)):
        assert not torch.equal(first.pictures, draw_identities(street, DRAWING, seed, number).pictures)
    assert first.pictures.min() >= 0 and first.pictures.max() <= 1


def test_each_camera_sees_the_same_people_and_pairs_of_neighbours(street: Cutouts) -> None:
    batch = draw_identities(street, DRAWING, seed=0, number=0)
    by_camera = batch.identities.view(3, 4)
    assert (batch.cameras.view(3, 4) == torch.arange(3)[:, None]).all()
    assert (by_camera == by_camera[0]).all()
    first, second = by_camera[0].view(2, 2).unbind(1)
    assert (second == first + 1).all() and (first % 2 == 0).all() and len(set(first.tolist())) == 2


def test_a_person_is_drawn_from_the_persons_own_cut_outs(street: Cutouts) -> None:
    """With each figure painted in a grey of its own before black, the picture's brightest grey is of its identity."""
    layers = street.layers.copy()
    figures = len(street) // CUTOUTS
    for figure in range(figures):
        rows = slice(figure * CUTOUTS, (figure + 1) * CUTOUTS)
        layers[rows, :3] = layers[rows, 3:4] * ((figure + 1) / figures)
    painted = Cutouts(**{**vars(street), "layers": layers, "backdrops": np.zeros_like(street.backdrops)})
    sums = torch.zeros(figures)
    for number in range(12):
        batch = draw_identities(painted, DRAWING, seed=0, number=number, hardness=0)
        middle = batch.pictures[:, :, 16:40, 12:20].mean((1, 2, 3))
        sums.index_add_(0, batch.identities, middle)
    assert sums.argmax() == figures - 1 and sums.argmin() == 0


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_pictures_are_numbers_at_any_hardness(street: Cutouts, hardness: float) -> None:
    batch = draw_identities(street, DRAWING, seed=3, number=1, hardness=hardness)
    assert torch.isfinite(batch.pictures).all()


def test_infrared_cameras_show_everybody_without_colour(street: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    def colourfulness() -> torch.Tensor:
        """Of each camera: the mean spread of the three channels about the pixel's mean, less what is tint."""
        crops = draw_identities(street, DRAWING, seed=0, number=2, hardness=0).pictures
        spread = crops - crops.mean(1, keepdim=True)
        spread = spread - spread.mean((2, 3), keepdim=True)
        return spread.abs().mean((1, 2, 3)).view(3, 4).mean(1)

    monkeypatch.setattr("jgcl_ray.pretraining.pictures.INFRARED", 0.0)
    coloured = colourfulness()
    monkeypatch.setattr("jgcl_ray.pretraining.pictures.INFRARED", 1.0)
    assert (colourfulness() < 0.35 * coloured).all()
