"""Training pictures: pure functions of seed and number, and true to what is on them."""

from __future__ import annotations

import numpy as np
import torch

from jgcl_ray.estimator_training.cutouts import Cutouts
from jgcl_ray.estimator_training.pictures import MASK, draw_pictures
from jgcl_ray.meshes.estimator_network import HEIGHT, WIDTH


def test_a_batch_follows_from_seed_and_number(cutouts: Cutouts) -> None:
    first, again = (draw_pictures(cutouts, 16, seed=1, number=7) for _ in range(2))
    assert first.crops.shape == (16, 3, HEIGHT, WIDTH) and first.mask.shape == (16, *MASK)
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, vars(again)[name]), name
    for other in (draw_pictures(cutouts, 16, seed=1, number=8), draw_pictures(cutouts, 16, seed=2, number=7)):
        assert not torch.equal(first.crops, other.crops)
    assert first.crops.min() >= 0 and first.crops.max() <= 1


def test_the_walker_is_where_the_mask_says(cutouts: Cutouts) -> None:
    """Pasted before a plain background of another colour, the crop differs from it on the mask."""
    bright = np.full_like(cutouts.backdrops, 255)
    white = Cutouts(**{**vars(cutouts), "backdrops": bright})
    batch = draw_pictures(white, 32, seed=0, number=0, hardness=0)
    inside = batch.mask > 0.9
    joints = ((batch.joints + 1) / 2 * torch.tensor([MASK[1], MASK[0]])).long()
    x, y = joints.unbind(-1)
    within = (x >= 0) & (x < MASK[1]) & (y >= 0) & (y < MASK[0])
    rows = torch.arange(32)[:, None].expand_as(x)
    on_body = batch.mask[rows[within], y[within], x[within]] > 0
    assert on_body.float().mean() > 0.9 and inside.float().mean() > 0.1


def test_crops_are_as_detectors_cut_them(cutouts: Cutouts) -> None:
    batch = draw_pictures(cutouts, 400, seed=0, number=0)
    assert float(batch.proportions.min()) > 0.28 and float(batch.proportions.max()) < 0.64
    without_feet = (batch.joints[:, :, 1] > 1).any(1).float().mean()
    assert 0.05 < without_feet < 0.35
    assert abs(float(batch.yaw.sin().mean())) < 0.2  # mirrored as often as not


def test_easy_pictures_are_sharper(cutouts: Cutouts) -> None:
    def detail(hardness: float) -> float:
        crops = draw_pictures(cutouts, 96, seed=0, number=0, hardness=hardness).crops
        smooth = torch.nn.functional.avg_pool2d(crops, 5, 1, 2)
        return float((crops - smooth)[:, :, 8:-8, 8:-8].abs().mean())

    assert detail(0.0) > detail(1.0)
