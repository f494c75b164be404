"""The generator that refines drafts: shapes, the bare draft before it has learnt, its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jgcl_ray.batches import WarpedView
from jgcl_ray.errors import UserError
from jgcl_ray.models.origin import halved
from jgcl_ray.models.textured_generator import TexturedGenerator, check_size, load_views, refined

pytestmark = pytest.mark.usefixtures("one_thread")


def given(
    views: int, height: int = 32, width: int = 16
) -> tuple[WarpedView, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of views // 2 photos."""
    random = torch.Generator().manual_seed(views)
    pictures = [torch.rand(views, 3, height, width, generator=random) for _ in range(2)]
    maps = [torch.rand(views, height, width, generator=random) for _ in range(2)]
    places = torch.rand(views, height, width, 3, generator=random)
    places[:, :, : width // 2] = torch.nan
    photos = torch.rand(views // 2, 3, height, width, generator=random)
    return WarpedView(*pictures, *maps), places, photos, places[::2].flip(2)


@pytest.fixture
def generator() -> TexturedGenerator:
    torch.manual_seed(0)
    generator = TexturedGenerator().eval()
    with torch.no_grad():
        generator.paint.weight.normal_(std=0.1)
    return generator


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 16), (96, 48), (40, 24)])
def test_views_have_the_size_of_drafts(generator: TexturedGenerator, height: int, width: int) -> None:
    arguments = given(4, height, width)
    views = generator(*arguments)
    assert views.shape == (4, 3, height, width) and views.dtype == torch.float32 and torch.isfinite(views).all()
    assert not torch.allclose(views, arguments[0].picture, atol=1e-3)


@torch.no_grad()
def test_untrained_it_leaves_drafts_as_they_are() -> None:
    draft, *others = given(4)
    assert torch.equal(TexturedGenerator()(draft, *others), draft.picture)


@torch.no_grad()
def test_each_view_follows_from_its_own_draft_and_photo(generator: TexturedGenerator) -> None:
    draft, places, photos, photo_places = given(4)
    whole = generator(draft, places, photos, photo_places)
    last = WarpedView(**{name: tensor[2:] for name, tensor in vars(draft).items()})
    torch.testing.assert_close(generator(last, places[2:], photos[1:], photo_places[1:]), whole[2:])
    with torch.no_grad():
        for block in generator.blocks:
            block.style.weight.normal_(std=0.1)
    coloured = generator(draft, places, torch.cat([photos[:1], 1 - photos[1:]]), photo_places)
    before = generator(draft, places, photos, photo_places)
    torch.testing.assert_close(coloured[:2], before[:2])
    assert not torch.allclose(coloured[2:], before[2:])


def test_a_file_is_read_strictly(generator: TexturedGenerator, tmp_path: Path) -> None:
    path = tmp_path / "views.safetensors"
    save_file(halved(generator), path)
    again = load_views(path)
    arguments = given(2)
    torch.testing.assert_close(refined(again, *arguments), refined(generator, *arguments), atol=0.02, rtol=0)
    state = halved(generator)
    del state["bottom.weight"]
    save_file(state, path)
    with pytest.raises(UserError, match=r"views\.safetensors.*bottom\.weight"):
        load_views(path)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_views(path)


def test_sizes_that_cannot_be_halved_are_refused(generator: TexturedGenerator) -> None:
    with pytest.raises(UserError, match=r"36 x 16 do not suit the generator of views.*multiples of 8"):
        generator(*given(2, 36, 16))
    for size in ((8, 48), (96, 52)):
        with pytest.raises(UserError, match=f"{size[0]} x {size[1]}"):
            check_size(*size)
