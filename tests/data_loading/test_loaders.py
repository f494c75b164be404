"""Batches as the training takes them, from loader processes or without."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from jgcl_ray.batches import NOVEL_VIEWS, ImageBatch, PairedBatch
from jgcl_ray.config import DataConfig
from jgcl_ray.data import image_store
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.data.image_store import ImageStore
from jgcl_ray.data.images import Images
from jgcl_ray.data.loaders import ExtractionLoader, Loader, open_images, paired_loader, warm_up_loader
from jgcl_ray.data.paired_views import PairedViews
from jgcl_ray.data.samplers import Draw, Shard, identity_batches, share, shuffled_batches
from jgcl_ray.data.transforms import Augmentation, denormalise_images
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import read_rgb

ROWS, HEIGHT, WIDTH = 24, 32, 16
PROCESSES = [0, 2]


class MadeProjections:
    """Grey values that tell row and view, brighter to the left."""

    def __init__(self, height: int = HEIGHT, width: int = WIDTH) -> None:
        self.shape = (height, width)

    def load(self, row: int, view: int) -> np.ndarray:
        if row == 13:
            raise UserError(f"render_{view}/13.png: no such file")
        grey = np.full(self.shape, 4 * row + view // 45, dtype=np.uint8)
        grey[:, : self.shape[1] // 2] += 100
        return grey


@pytest.fixture
def config(tmp_path) -> DataConfig:
    for row in range(ROWS):
        path = tmp_path / f"cam{row % 2}" / f"{row // 2:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(row).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return DataConfig(name="folder", root=tmp_path, height=HEIGHT, width=WIDTH, loader_workers=0)


@pytest.fixture
def images(config) -> ImageStore:
    return open_images(open_dataset(config).train, config)


def assert_equal(left: ImageBatch | PairedBatch, right: ImageBatch | PairedBatch) -> None:
    assert type(left) is type(right)
    for name, value in vars(left).items():
        assert torch.equal(value, getattr(right, name)), name


def test_images_as_they_are(images):
    batch = Images(images).batch([Draw(5), Draw(0)])
    assert batch.image.shape == (2, 3, HEIGHT, WIDTH) and batch.image.dtype == torch.float32
    assert batch.index.tolist() == [5, 0] and batch.index.dtype == torch.int64
    np.testing.assert_array_equal(
        denormalise_images(batch.image).numpy()[0], read_rgb(images.split.path(5), HEIGHT, WIDTH)
    )


def test_augmentation_follows_from_the_draw(images):
    source = Images(images, Augmentation(), seed=1)
    draws = [Draw(5, 0), Draw(5, 0, 1), Draw(5, 1), Draw(5, 0)]
    together = source.batch(draws).image
    assert torch.equal(together[0], together[3])
    assert len({image.numpy().tobytes() for image in together}) == 3
    assert torch.equal(together[1], source.batch([draws[1]]).image[0]), "not from its place in the batch"
    assert not torch.equal(together, Images(images, Augmentation(), seed=2).batch(draws).image)


def test_paired_views(images):
    views = PairedViews(images, MadeProjections(), seed=1)
    draws = [Draw(row, epoch) for row in (3, 8) for epoch in range(40)]
    batch = views.batch(draws)
    assert batch.image.shape == (80, 3, HEIGHT, WIDTH)
    assert batch.mesh.shape == batch.mesh_novel.shape == (80, 1, HEIGHT, WIDTH)
    assert set(batch.view.tolist()) == set(NOVEL_VIEWS) and batch.view.dtype == torch.int64
    assert batch.index.tolist() == [draw.row for draw in draws]
    right_half = ((batch.mesh + 1) * 127.5)[..., -1, -1].round().flatten()
    assert torch.equal(right_half, 4.0 * batch.index), "own view"
    right_half = ((batch.mesh_novel + 1) * 127.5)[..., -1, -1].round().flatten()
    assert torch.equal(right_half, 4.0 * batch.index + batch.view / 45), "the drawn view of the same row"


def test_drawn_views_follow_from_the_draw(images):
    draws = [Draw(row, epoch) for row in range(12) for epoch in range(4)]
    views = [PairedViews(images, MadeProjections(), seed).batch(draws).view.tolist() for seed in (1, 1, 2)]
    assert views[0] == views[1] and views[0] != views[2]
    backward = PairedViews(images, MadeProjections(), 1).batch(draws[::-1]).view.tolist()
    assert backward[::-1] == views[0]


def test_official_never_draws_315(images):
    draws = [Draw(row, epoch) for row in range(12) for epoch in range(20)]
    views = PairedViews(images, MadeProjections(), official=True).batch(draws).view
    assert set(views.tolist()) == {45, 90, 135, 180, 225, 270}


def test_flipped_pairs(images):
    draws = [Draw(row, epoch) for row in (3, 8) for epoch in range(20)]
    plain = PairedViews(images, MadeProjections(), seed=1).batch(draws)
    flipped = PairedViews(images, MadeProjections(), seed=1, flip_probability=1).batch(draws)
    assert torch.equal(flipped.view, plain.view)
    assert torch.equal(flipped.image, plain.image.flip(-1)) and torch.equal(flipped.mesh, plain.mesh.flip(-1))
    left_half = ((flipped.mesh_novel + 1) * 127.5)[..., 0, 0].round().flatten()
    assert torch.equal(left_half, 4.0 * flipped.index + (360 - flipped.view) / 45), "turned the other way, mirrored"


def test_projections_of_another_size_are_resized(images):
    batch = PairedViews(images, MadeProjections(16, 8), seed=1).batch([Draw(3)])
    whole = PairedViews(images, MadeProjections(), seed=1).batch([Draw(3)])
    assert batch.mesh.shape == (1, 1, HEIGHT, WIDTH)
    assert (batch.mesh - whole.mesh).abs().mean() < 0.05


@pytest.mark.parametrize("cache", [False, True])
def test_loader_processes_do_not_matter(images, config, cache):
    data = config.model_copy(update={"cache": cache})
    rows = np.delete(np.arange(ROWS), 13)
    loaders = {
        processes: paired_loader(
            open_images(images.split, data),
            MadeProjections(),
            data.model_copy(update={"loader_workers": processes}),
            1,
        )
        for processes in PROCESSES
    }
    for epoch in range(3):
        draws = share(shuffled_batches(rows, 4, seed=1, epoch=epoch), epoch, Shard())
        batches = {processes: list(loader.batches(draws)) for processes, loader in loaders.items()}
        assert [len(made) for made in batches.values()] == [5, 5]
        for alone, shared in zip(*batches.values(), strict=True):
            assert_equal(alone, shared)


def test_workers_together_see_what_one_sees(images, config):
    labels = np.repeat(np.arange(4), 6) - 1
    batches = identity_batches(labels, identities=2, images=4, seed=1, epoch=2)
    loader = warm_up_loader(images, config, seed=1)
    alone = list(loader.batches(share(batches, 2, Shard())))
    halves = [list(loader.batches(share(batches, 2, Shard(worker, 2)))) for worker in range(2)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert torch.equal(whole.image, torch.cat([first.image, second.image]))
        assert torch.equal(whole.index, torch.cat([first.index, second.index]))


@pytest.mark.parametrize("processes", PROCESSES)
def test_extraction_in_the_order_of_rows(images, config, processes):
    data = config.model_copy(update={"loader_workers": processes})
    parts = [ExtractionLoader(images, data, batch_size=5, shard=Shard(worker, 5)) for worker in range(5)]
    gathered = torch.cat([batch.index for part in parts for batch in part])
    assert gathered.tolist() == list(range(ROWS))
    again = list(parts[0])
    assert len(again) == len(parts[0]) == 1 and again[0].index.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(again[0].image, Images(images).batch([Draw(row) for row in range(5)]).image)


@pytest.mark.parametrize("processes", PROCESSES)
def test_user_errors_of_loader_processes_stay_one_line(images, processes):
    loader = Loader(PairedViews(images, MadeProjections()), processes)
    with pytest.raises(UserError) as caught:
        list(loader.batches([[Draw(12)], [Draw(13)], [Draw(14)]]))
    assert str(caught.value).endswith("/13.png: no such file") and "\n" not in str(caught.value)


def test_an_epoch_broken_off_leaves_nothing_behind(images):
    loader = Loader(Images(images), processes=2)
    next(loader.batches([[Draw(row)] for row in range(ROWS)]))
    assert [batch.index.tolist() for batch in loader.batches([[Draw(4)], [Draw(5)]])] == [[4], [5]]


def test_torch_random_state_is_left_alone(images):
    loader = Loader(Images(images), processes=0)
    before = torch.get_rng_state()
    list(loader.batches([[Draw(0)]]))
    assert torch.equal(torch.get_rng_state(), before)


def test_kept_images_are_read_once(images, config):
    kept = open_images(images.split, config.model_copy(update={"cache": True}))
    first = kept.load(3).copy()
    for path in config.root.glob("*/*.png"):
        path.unlink()
    np.testing.assert_array_equal(kept.load(3), first)
    with pytest.raises(UserError, match=r"cam0/04\.png: cannot be read"):
        kept.load(4)


def test_images_kept_by_loader_processes_are_kept_for_all(images, config):
    kept = open_images(images.split, config.model_copy(update={"cache": True}))
    list(Loader(Images(kept), processes=2).batches([[Draw(row)] for row in range(ROWS)]))
    expected = [images.load(row) for row in range(ROWS)]
    for path in config.root.glob("*/*.png"):
        path.unlink()
    np.testing.assert_array_equal([kept.load(row) for row in range(ROWS)], expected)


def test_too_little_shared_memory(images, config, monkeypatch):
    monkeypatch.setattr(image_store, "SHARED_MEMORY", config.root)
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(UserError, match="shared memory"):
        open_images(images.split, config.model_copy(update={"cache": True}))


def test_unreadable_image_is_named(images):
    path = images.split.path(2)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"cam0/02\.png: cannot be read.*on_bad_image"):
        images.load(2)
