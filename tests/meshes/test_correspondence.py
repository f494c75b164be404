"""Pixels moved along the surface: against a slow literal version, and on bodies whose texture is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.correspondence import VOXEL_PIXELS, SurfaceSettings, see_surface, surface_view
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.shading import see_reference
from jgcl_ray.meshes.silhouettes import nearest_inside, nearest_inside_in_parallel, without
from jgcl_ray.meshes.voxels import Box, joined

HEIGHT, WIDTH = 128, 64
Texture = Callable[[np.ndarray], np.ndarray]  # (..., 3) metres -> (..., 3) in [0, 1]


def of_height(points: np.ndarray) -> np.ndarray:
    """The same all round the body."""
    return 0.5 + 0.4 * np.sin(np.array([6.0, 9.0, 13.0]) * points[..., 2:])


def of_everything(points: np.ndarray) -> np.ndarray:
    """The halves and the front differ."""
    return 0.5 + 0.4 * np.tanh(np.stack([4 * points[..., 0], 9 * points[..., 1], 2 * points[..., 2]], -1))


@pytest.fixture(scope="module")
def coordinates(anny: AnnyBody, anny_mesh: Mesh) -> np.ndarray:
    """Of eight views of a standing body, (8, H, W, 3) float16."""
    middle = (anny_mesh.vertices.max(0) + anny_mesh.vertices.min(0)) / 2
    ahead = Camera.look_at(middle + np.array([0, -8.0, 0.5]), middle, focal=8.2 * HEIGHT / 1.9, center=(32.0, 64.0))
    cameras = [ahead.turned(view, middle) for view in range(0, 360, 45)]
    return see_reference(EmbreeMesh(anny_mesh).fragments(cameras, HEIGHT, WIDTH), anny_mesh, anny.reference)


def painted(seen: np.ndarray, texture: Texture) -> np.ndarray:
    """A picture of the body before a plain backdrop, uint8 (H, W, 3)."""
    picture = np.full(seen.shape, 0.2)
    body = ~np.isnan(seen[..., 0])
    picture[body] = texture(seen[body].astype(float))
    return np.round(255 * picture).astype(np.uint8)


@pytest.mark.parametrize("view", [1, 2, 7])
@pytest.mark.parametrize("texture", [of_height, of_everything])
def test_a_known_texture_comes_out_where_the_confidence_is_high(
    coordinates: np.ndarray, texture: Texture, view: int
) -> None:
    photo, novel = coordinates[0], coordinates[view]
    draft, confidence = surface_view(painted(photo, texture), photo, novel)
    assert draft.dtype == np.uint8 and draft.shape == (HEIGHT, WIDTH, 3)
    assert confidence.dtype == np.float32 and confidence.shape == (HEIGHT, WIDTH)
    assert confidence.min() >= 0 and confidence.max() <= 1
    error = np.abs(draft.astype(float) - painted(novel, texture)).mean(axis=2)
    body = ~np.isnan(novel[..., 0])
    sure = body & (confidence > 0.8)
    assert sure.sum() > (0.05 if view == 2 else 0.3) * body.sum()
    assert error[sure].mean() < 8 and np.quantile(error[sure], 0.95) < 24
    assert error[sure].mean() < error[body & ~sure].mean() + 1
    far = nearest_inside(torch.from_numpy((body | ~np.isnan(photo[..., 0]))[None]), 12)[0][0].numpy() > 12
    assert far.any() and (error[far] == 0).all() and (confidence[far] == 1).all()


def test_turned_far_it_knows_that_it_does_not_know(coordinates: np.ndarray) -> None:
    photo = painted(coordinates[0], of_everything)
    trust = [
        surface_view(photo, coordinates[0], novel)[1][~np.isnan(novel[..., 0])].mean() for novel in coordinates[:5]
    ]
    assert trust[0] > trust[1] > trust[2] > trust[4]


def test_the_other_half_is_seen_in_the_mirror(coordinates: np.ndarray) -> None:
    """From the left, a symmetric texture of the right side."""

    def stripes(points: np.ndarray) -> np.ndarray:
        return 0.5 + 0.4 * np.sin(np.stack([40 * np.abs(points[..., 0]), 25 * points[..., 2], points[..., 1]], -1))

    left, right = coordinates[2], coordinates[6]
    draft, _ = surface_view(painted(left, stripes), left, right)
    alone, _ = surface_view(painted(left, stripes), left, right, settings=SurfaceSettings(mirrored=0.0))
    truth, body = painted(right, stripes).astype(float), ~np.isnan(right[..., 0])
    assert np.abs(draft - truth)[body].mean() < 0.75 * np.abs(alone - truth)[body].mean()


def test_clothes_that_stick_out_are_kept(coordinates: np.ndarray) -> None:
    """A body painted two pixels wider than it is, before a backdrop of another colour."""
    photo, novel = coordinates[0], coordinates[1]
    wide = nearest_inside(torch.from_numpy(~np.isnan(np.stack([photo, novel])[..., 0])), 2)[0].numpy() <= 2
    red, green = np.array([200, 40, 40], np.uint8), np.array([40, 160, 60], np.uint8)
    dressed, truth = (np.where(covered[..., None], red, green) for covered in wide)
    draft, _ = surface_view(dressed, photo, novel)
    hem = wide[1] & np.isnan(novel[..., 0])
    assert np.abs(draft[hem].astype(float) - truth[hem]).mean() < 0.35 * np.abs(red.astype(float) - green).mean()
    naked, _ = surface_view(painted(photo, lambda p: np.full(p.shape, 0.8)), photo, novel)
    outside = nearest_inside(torch.from_numpy(~np.isnan(novel[None, ..., 0])), 3)[0][0].numpy()
    assert np.abs(naked[outside >= 3].astype(float) - 51).mean() < 5


def test_another_backdrop(coordinates: np.ndarray) -> None:
    backdrop = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    photo = painted(coordinates[0], of_height)
    draft, confidence = surface_view(photo, coordinates[0], coordinates[1], backdrop)
    own, _ = surface_view(photo, coordinates[0], coordinates[1])
    outside = nearest_inside(torch.from_numpy(~np.isnan(coordinates[1:2, ..., 0])), 8)[0][0].numpy() > 8
    np.testing.assert_array_equal(draft[outside], backdrop[outside])
    assert (confidence[outside] == 1).all()
    body = ~np.isnan(coordinates[1, ..., 0])
    np.testing.assert_array_equal(draft[body], own[body])


def test_without_a_body_nothing_is_drawn(coordinates: np.ndarray) -> None:
    photo = painted(coordinates[0], of_height)
    nobody = np.full_like(coordinates[0], np.nan)
    draft, confidence = surface_view(photo, nobody, coordinates[1])
    np.testing.assert_array_equal(draft, photo)
    body = ~np.isnan(coordinates[1, ..., 0])
    assert (confidence[body] == 0).all() and (confidence[~body] == 1).all()
    cleared, _ = surface_view(photo, coordinates[0], nobody)
    assert np.abs(cleared.astype(float) - 51).max() <= 1


def test_bad_input_is_refused(coordinates: np.ndarray) -> None:
    photo = painted(coordinates[0], of_height)
    with pytest.raises(ValueError, match=r"photo is float64"):
        surface_view(photo / 255, coordinates[0], coordinates[1])
    with pytest.raises(ValueError, match=r"coordinates_novel is \(64"):
        surface_view(photo, coordinates[0], coordinates[1][:64])


def tensors(coordinates: np.ndarray, *views: int) -> torch.Tensor:
    return torch.from_numpy(coordinates[list(views)].astype(np.float32))


def test_batches_are_their_photos(coordinates: np.ndarray) -> None:
    pictures = [painted(coordinates[view], of_everything) for view in (0, 3)]
    photos = torch.from_numpy(np.stack(pictures) / np.float32(255)).permute(0, 3, 1, 2)
    drafts = see_surface(photos, tensors(coordinates, 0, 3)).draw(tensors(coordinates, 1, 5))
    for row, (view, novel) in enumerate(((0, 1), (3, 5))):
        draft, confidence = surface_view(pictures[row], coordinates[view], coordinates[novel])
        off = (drafts.picture[row].permute(1, 2, 0) * 255 - torch.from_numpy(draft)).abs().amax(-1)
        assert (off <= 1).float().mean() > 0.95  # photos drawn together share a box: another edge of it
        assert (drafts.confidence[row] - torch.from_numpy(confidence)).abs().mean() < 0.005


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same(coordinates: np.ndarray) -> None:
    photos = torch.from_numpy(painted(coordinates[0], of_everything) / np.float32(255)).permute(2, 0, 1)[None]
    seen, novel = tensors(coordinates, 0), tensors(coordinates, 3)
    here = see_surface(photos, seen).draw(novel)
    there = see_surface(photos.cuda(), seen.cuda()).draw(novel.cuda())
    assert (here.picture - there.picture.cpu()).abs().mean() < 1e-3
    assert (here.confidence - there.confidence.cpu()).abs().mean() < 1e-3


def test_with_a_gradient_it_draws_the_same(coordinates: np.ndarray) -> None:
    """PyTorch's operations where a gradient is wanted, compiled loops where not."""
    photos = torch.from_numpy(painted(coordinates[0], of_everything) / np.float32(255)).permute(2, 0, 1)[None]
    drafts = []
    for wanted in (False, True):
        drafts.append(see_surface(photos.clone().requires_grad_(wanted), tensors(coordinates, 0)))
    one, other = (seen.draw(tensors(coordinates, 2)) for seen in drafts)
    assert not one.picture.requires_grad and other.picture.requires_grad
    np.testing.assert_allclose(one.picture, other.picture.detach(), atol=1e-4)
    np.testing.assert_allclose(one.confidence, other.confidence.detach(), atol=1e-4)


def test_gradients_flow_to_the_photo(coordinates: np.ndarray) -> None:
    """Every pixel of the draft is a mean of the photo's: raising all of these by one raises it by one."""
    photos = torch.from_numpy(painted(coordinates[0], of_everything) / np.float32(255)).permute(2, 0, 1)[None]
    photos.requires_grad_()
    draft = see_surface(photos, tensors(coordinates, 0)).draw(tensors(coordinates, 1))
    (gradient,) = torch.autograd.grad(draft.picture.sum(), photos)
    assert torch.isfinite(gradient).all() and (gradient >= -1e-5).all()
    assert gradient.sum().item() == pytest.approx(draft.picture.numel(), rel=0.02)
    body = torch.from_numpy(~np.isnan(coordinates[0][..., 0]))
    assert (gradient[0, :, body] > 0).float().mean() > 0.9


def slow_view(
    photo: np.ndarray, seen: np.ndarray, novel: np.ndarray, settings: SurfaceSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The same by loops over pixels and voxels."""
    height, width, _ = photo.shape
    pixels = [(row, column) for row in range(height) for column in range(width)]

    def sees(places: np.ndarray, pixel: tuple[int, int]) -> bool:
        return not np.isnan(places[pixel][0])

    def nearest(inside: list[tuple[int, int]], pixel: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        square, place = min(((r - pixel[0]) ** 2 + (c - pixel[1]) ** 2, (r, c)) for r, c in inside)
        return math.sqrt(square), place

    reach = max(1, round(settings.band * height))
    body = [pixel for pixel in pixels if sees(seen, pixel)]
    ground = [pixel for pixel in pixels if not sees(seen, pixel)]
    band = {pixel: nearest(body, pixel) for pixel in pixels}
    hidden = np.array([band[pixel][0] <= reach for pixel in pixels]).reshape(1, height, width)
    filled = (
        without(torch.from_numpy(photo).permute(2, 0, 1)[None], torch.from_numpy(hidden))[0].permute(1, 2, 0).numpy()
    )
    off = ((photo - filled) ** 2).sum(-1)
    person = off / (off + settings.contrast**2)

    def step(pixel: tuple[int, int]) -> float:
        around = [(pixel[0] + dr, pixel[1] + dc) for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        ends = [np.abs(seen[n] - seen[pixel]).max() if sees(seen, n) else 9 for n in around if n in set_of_pixels]
        return float(max(ends))

    set_of_pixels = set(pixels)
    steps = {pixel: step(pixel) for pixel in body}
    smooth = [value for value in steps.values() if value <= 0.12]
    usual = sum(smooth) / len(smooth)
    rim = max(1, round(settings.rim * height))

    def weight(pixel: tuple[int, int]) -> float:
        value = settings.edge if steps[pixel] > 0.12 else min(max(usual / steps[pixel], 0.05), 1.0)
        at_rim = nearest(ground, pixel)[0] <= rim
        return value * (settings.doubt + (1 - settings.doubt) * person[pixel]) if at_rim else value

    points = [(seen[pixel], weight(pixel), photo[pixel]) for pixel in body]
    both = points + [(p * [-1, 1, 1], settings.mirrored * w, c) for p, w, c in points]
    ends = np.array([p for p, _, _ in both])
    voxel, block = max(settings.voxel, VOXEL_PIXELS * 1.75 / height), 2 ** (settings.levels - 1)
    first = np.floor(ends.min(0) / (voxel * block) + 0.5) - 0.5
    shape = np.round((np.ceil(ends.max(0) / (voxel * block) + 0.5) - 0.5 - first) * block).astype(int)
    origin = first * voxel * block

    def sums(level: int, entries: list, corner: np.ndarray, side: float, cells: np.ndarray) -> dict:  # type: ignore[type-arg]
        found: dict[tuple[int, ...], np.ndarray] = {}
        for point, values in entries:
            cell = np.floor((point - corner) / side).astype(int).clip(0, cells - 1) >> level
            found[tuple(cell)] = found.get(tuple(cell), 0) + values
        return found

    entries = [(p, w * np.array([1, *c])) for p, w, c in both]
    levels = [sums(level, entries, origin, voxel, shape) for level in range(settings.levels)]
    total = sum(values for _, values in entries)

    def corners(point: np.ndarray, side: float, cells: np.ndarray, corner: np.ndarray) -> list:  # type: ignore[type-arg]
        local = (point - corner) / side - 0.5
        low = np.floor(local)
        return [
            (
                tuple((low + end).astype(int).clip(0, cells - 1)),
                float(np.prod(np.where(np.array(end) == 1, local - low, 1 - local + low))),
            )
            for end in itertools.product((0, 1), repeat=3)
        ]

    @cache
    def filled_voxel(level: int, cell: tuple[int, ...]) -> np.ndarray:
        if level == settings.levels:
            return np.array([*(total[1:] / total[0]), 0.0])
        own = levels[level].get(cell, np.zeros(4))
        told = np.array([*own[1:], own[0] * settings.confidence_decay**level])
        middle = origin + (np.array(cell) + 0.5) * voxel * 2**level
        below = between(level + 1, middle)
        if level <= 2:  # what the opposite side of the body shows
            across = [v for (x, _, z), v in levels[level].items() if (x, z) == (cell[0], cell[2])]
            if across:
                flat = sum(across)
                share = settings.through * flat[0] / (flat[0] + settings.enough)
                below = np.array([*(below[:3] + share * (flat[1:] / flat[0] - below[:3])), below[3]])
        return (told + settings.enough * below) / (own[0] + settings.enough)

    def between(level: int, point: np.ndarray) -> np.ndarray:
        if level == settings.levels:
            return filled_voxel(level, ())
        found = corners(point, voxel * 2**level, shape >> level, origin)
        return sum(share * filled_voxel(level, cell) for cell, share in found)  # type: ignore[no-any-return]

    side = settings.band_voxel
    extent = origin + shape * voxel
    band_first = np.floor(origin / (2 * side) + 0.5) - 0.5
    band_shape = np.round((np.ceil(extent / (2 * side) + 0.5) - 0.5 - band_first) * 2).astype(int)
    told_around: list[dict[tuple[int, ...], np.ndarray]] = []
    narrow: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(settings.bins)]

    def bin_of(distance: float) -> int:
        return min(max(math.ceil(distance * settings.bins / reach), 1), settings.bins) - 1

    for pixel in pixels:
        distance, place = band[pixel]
        if 0 < distance <= reach:
            cover = off[pixel] / (
                off[pixel] + 0.5 * ((photo[pixel] - photo[place]) ** 2).sum() + settings.contrast**2
            )
            values = np.array([1, cover, *(cover * photo[pixel])])
            narrow[bin_of(distance)] += [
                (seen[place], values),
                (seen[place] * [-1, 1, 1], settings.mirrored * values),
            ]
    for entries_of_bin in narrow:
        fine = sums(0, entries_of_bin, band_first * 2 * side, side, band_shape)
        wide = sums(1, entries_of_bin, band_first * 2 * side, side, band_shape)
        voxels = {}
        for cell in itertools.product(*map(range, band_shape)):
            middle = band_first * 2 * side + (np.array(cell) + 0.5) * side
            found = corners(middle, 2 * side, band_shape // 2, band_first * 2 * side)
            more = sum(share * wide.get(where, np.zeros(5)) for where, share in found)
            voxels[cell] = fine.get(cell, np.zeros(5)) + 0.3 * more
        told_around.append(voxels)

    draft = filled.copy()
    confidence = np.where(hidden[0], settings.confidence_decay**2, 1.0)
    shown = [pixel for pixel in pixels if sees(novel, pixel)]
    for pixel in pixels:
        distance, place = nearest(shown, pixel)
        if distance > reach:
            continue
        point = novel[place]
        own = sum(s * levels[0].get(cell, np.zeros(4)) for cell, s in corners(point, voxel, shape, origin))
        coarse = between(1, point)
        color = (own[1:] + settings.enough * coarse[:3]) / (own[0] + settings.enough)
        sure = (own[0] + settings.enough * coarse[3]) / (own[0] + settings.enough)
        cover = 1.0
        if distance > 0:
            found = corners(point, side, band_shape, band_first * 2 * side)
            told = sum(share * told_around[bin_of(distance)][cell] for cell, share in found)
            usually = 1 / (1 + math.exp(-(settings.widened - distance * 1.75 / height) / settings.softness))
            cover = (told[1] + usually) / (told[0] + 1)
            color = (told[2:] + usually * color) / (told[1] + usually)
        draft[pixel] += cover * (color - draft[pixel])
        confidence[pixel] += cover * (sure - confidence[pixel])
    return draft, confidence


def test_against_the_slow_version(coordinates: np.ndarray) -> None:
    random = np.random.default_rng(1)
    seen, novel = (coordinates[view, 2::5, 1::4].astype(np.float32) for view in (0, 1))
    photo = painted(seen, of_everything) / 255 + random.normal(0, 0.05, seen.shape)
    photo = np.clip(photo, 0, 1).astype(np.float32)
    settings = SurfaceSettings(levels=3, band_voxel=0.25)
    draft, confidence = slow_view(photo, seen, novel, settings)
    batch = torch.from_numpy(photo).permute(2, 0, 1)[None]
    fast = see_surface(batch, torch.from_numpy(seen)[None], None, settings).draw(torch.from_numpy(novel)[None])
    off = np.abs(fast.picture[0].permute(1, 2, 0).numpy() - draft).max(axis=-1)
    assert (off < 2e-3).mean() > 0.97  # of equally near pixels, either may be the nearest
    assert (np.abs(fast.confidence[0].numpy() - confidence) < 2e-3).mean() > 0.97


@pytest.mark.parametrize("nearest", [nearest_inside, nearest_inside_in_parallel])
@pytest.mark.parametrize("shape", [(3, 9, 5), (1, 16, 16), (2, 4, 30)])
@pytest.mark.parametrize("reach", [1, 3, 7])
def test_nearest_inside_against_all_pairs(
    nearest: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]], shape: tuple[int, int, int], reach: int
) -> None:
    mask = np.random.default_rng(reach).random(shape) < 0.06
    mask[0] = False
    distance, place = (found.numpy() for found in nearest(torch.from_numpy(mask), reach))
    for batch, row, column in np.ndindex(shape):
        inside = np.argwhere(mask[batch])
        apart = np.sqrt(((inside - [row, column]) ** 2).sum(1)) if len(inside) else np.array([np.inf])
        if apart.min() > reach:
            assert distance[batch, row, column] > reach
            continue
        assert distance[batch, row, column] == pytest.approx(apart.min())
        there = divmod(int(place[batch, row, column]), shape[2])
        assert mask[(batch, *there)]
        assert math.hypot(there[0] - row, there[1] - column) == pytest.approx(apart.min())


def test_what_is_hidden_is_filled_in_from_around() -> None:
    random = np.random.default_rng(0)
    picture = torch.from_numpy(random.random((2, 3, 33, 18)).astype(np.float32))
    hidden = torch.zeros(2, 33, 18, dtype=torch.bool)
    hidden[0, 5:28, 4:12] = True
    hidden[1] = True
    filled = without(picture, hidden)
    np.testing.assert_allclose(filled[0][:, ~hidden[0]], picture[0][:, ~hidden[0]], atol=1e-6)
    inside = filled[0][:, hidden[0]]
    assert inside.min() > 0.1 and inside.max() < 0.9
    np.testing.assert_allclose(filled[1], picture[1], atol=1e-6)
    slope = torch.linspace(0, 1, 33)[None, None, :, None].expand(1, 3, 33, 18)
    assert (without(slope, hidden[:1]) - slope).abs().max() < 0.3
    assert (without(torch.full_like(slope, 0.4), hidden[:1]) - 0.4).abs().max() < 1e-5


def test_voxels_against_loops() -> None:
    random = np.random.default_rng(2)
    points, values = random.uniform(-0.3, 0.3, (60, 3)).astype(np.float32), random.random((60, 2)).astype(np.float32)
    which = random.integers(0, 2, 60)
    lowest, highest = torch.tensor([-0.3, -0.3, -0.3]), torch.tensor([0.3, 0.3, 0.3])
    box = Box.around(lowest, highest, 0.1, 2, 2)
    assert box.shape == (6, 6, 6) and torch.allclose(box.origin, torch.tensor(-0.3))  # a block around the origin
    sums = box.sums(torch.from_numpy(points), torch.from_numpy(which), torch.from_numpy(values))
    slow = np.zeros((2, 6, 6, 6, 2))
    for point, row, value in zip(points, which, values, strict=True):
        slow[(row, *np.floor((point + np.float32(0.3)) / np.float32(0.1)).astype(int))] += value
    np.testing.assert_allclose(sums, slow, atol=1e-5)
    np.testing.assert_allclose(joined(sums)[1, 2, 1, 0], slow[1, 4:6, 2:4, 0:2].sum((0, 1, 2)), atol=1e-5)
    middles = -0.3 + 0.1 * (np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1) + 0.5)
    linear = torch.from_numpy((middles @ np.array([[1.0], [2.0], [-3.0]])).astype(np.float32)).repeat(2, 1, 1, 1, 1)
    points = points.clip(-0.25, 0.25)  # beyond the outermost voxels' centres nothing is extrapolated
    inside = torch.from_numpy(points)
    np.testing.assert_allclose(
        box.read(linear, inside, torch.from_numpy(which))[:, 0], points @ np.array([1.0, 2.0, -3.0]), atol=1e-4
    )
    assert box.coarser().shape == (3, 3, 3) and box.coarser().voxel == pytest.approx(0.2)
