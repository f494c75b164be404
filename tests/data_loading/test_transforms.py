"""Augmentation and normalisation of pixels."""

import numpy as np
import pytest
import torch

from jgcl_ray.data.transforms import Augmentation, denormalise_images, normalise_images, normalise_meshes
from jgcl_ray.image_files import MEAN_COLOUR


def noise(height: int = 64, width: int = 32, seed: int = 0) -> np.ndarray:
    # No black and nothing of the mean colour, which mark what a crop and an eraser leave.
    return np.random.default_rng(seed).integers(150, 255, (height, width, 3), dtype=np.uint8)


def augmented(augmentation: Augmentation, seed: int) -> np.ndarray:
    return augmentation(noise(), np.random.default_rng(seed))


def test_nothing_asked_for_is_nothing_done():
    image = noise()
    result = Augmentation(0, 0, 0)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(result, image)
    assert result.flags.writeable and not np.shares_memory(result, image)


def test_flip_mirrors_half_of_the_images():
    mirrored = [(augmented(Augmentation(0.5, 0, 0), seed) == noise()[:, ::-1]).all() for seed in range(400)]
    assert 160 < sum(mirrored) < 240
    assert (augmented(Augmentation(1, 0, 0), 0) == noise()[:, ::-1]).all()


def test_crops_are_those_of_the_padded_image():
    padded = np.pad(noise(), ((10, 10), (10, 10), (0, 0)))
    corners = set()
    for seed in range(300):
        crop = augmented(Augmentation(0, 10, 0), seed)
        matching = [
            (top, left)
            for top in range(21)
            for left in range(21)
            if (padded[top : top + 64, left : left + 32] == crop).all()
        ]
        assert len(matching) == 1
        corners.update(matching)
    tops, lefts = (set(axis) for axis in zip(*corners, strict=True))
    assert tops == lefts == set(range(21))


def test_erased_rectangles():
    shares, erased = [], 0
    for seed in range(400):
        image = augmented(Augmentation(0, 0, 0.5), seed)
        marked = (image == MEAN_COLOUR).all(axis=-1)
        np.testing.assert_array_equal(image[~marked], noise()[~marked])
        if marked.any():
            rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
            height, width = rows.size, columns.size
            assert marked.sum() == height * width, "one rectangle"
            assert 0.2 < height / width < 5, "aspect 0.3 to 3.33, rounded to pixels"
            shares.append(marked.mean())
            erased += 1
    assert 160 < erased < 240
    assert 0.01 < min(shares) < 0.06 and 0.33 < max(shares) < 0.42


def test_erasing_gives_up_where_no_rectangle_fits():
    image = np.full((1, 1, 3), 200, dtype=np.uint8)
    assert (Augmentation(0, 0, 1)(image, np.random.default_rng(0)) == 200).all()


def test_padding_may_exceed_the_image():
    crops = [augmented(Augmentation(0, 100, 0), seed) for seed in range(20)]
    assert all(crop.shape == (64, 32, 3) for crop in crops)
    assert {bool(crop.any()) for crop in crops} == {True, False}, "some see the image, some only black"


def test_given_image_is_left_alone():
    image = noise()
    Augmentation(1, 10, 1)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(image, noise())


def test_same_generator_same_image():
    np.testing.assert_array_equal(augmented(Augmentation(), 7), augmented(Augmentation(), 7))
    assert (augmented(Augmentation(), 7) != augmented(Augmentation(), 8)).any()


def test_normalised_images():
    images = [noise(seed=seed) for seed in range(3)]
    expected = (np.stack(images) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    batch = normalise_images(images)
    assert batch.shape == (3, 3, 64, 32) and batch.dtype == torch.float32 and batch.is_contiguous()
    torch.testing.assert_close(batch, torch.from_numpy(expected).permute(0, 3, 1, 2).float(), atol=1e-6, rtol=1e-5)
    np.testing.assert_array_equal(denormalise_images(batch).numpy(), np.stack(images))


def test_erased_pixels_are_zero_once_normalised():
    batch = normalise_images([np.full((4, 2, 3), MEAN_COLOUR, dtype=np.uint8)])
    assert batch.abs().max() < 0.5 / 255 / 0.224


@pytest.mark.parametrize(("grey", "value"), [(0, -1.0), (255, 1.0)])
def test_normalised_meshes(grey, value):
    batch = normalise_meshes([np.full((4, 2), grey, dtype=np.uint8)] * 3)
    assert batch.shape == (3, 1, 4, 2) and batch.dtype == torch.float32
    assert (batch == value).all()
