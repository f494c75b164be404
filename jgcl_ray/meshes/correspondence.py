"""A photo's own pixels, moved along the body's surface into another view of the person: nothing is learnt.

For each pixel of the photo and of the new view it is known which point of the body of reference it sees
(ProjectionSource.coordinates). The photo's pixels are gathered in voxels around those points and around the mirrored
points: bodies and clothes are nearly symmetric. A pixel of the new view reads the voxels where it looks, coarser ones
where the fine ones hold nothing. Clothes, hair and bags stick out of the bare body: what lies just outside the
silhouette belongs to the nearest point of the surface; how far it is covered follows from the photo's contrast there.

Letters: B photos, H x W pixels, P pixels that see a body, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jgcl_ray.batches import WarpedView
from jgcl_ray.meshes.silhouettes import nearest_inside, without
from jgcl_ray.meshes.voxels import Box, joined

BODY_HEIGHT = 1.75  # metres, about, of what fills a picture


@dataclass(frozen=True)
class SurfaceSettings:
    """How pixels are weighed; chosen on walkers (benchmarks/README.md, "Views along the surface")."""

    voxel: float = 0.016  # side of the finest voxels, metres; at least VOXEL_PIXELS pixels of the picture
    levels: int = 5  # each of twice the side of the one before
    mirrored: float = 0.15  # weight of a pixel on the other half of the body
    enough: float = 0.3  # summed weight in a voxel that outweighs the coarser ones
    enough_sharp: float = 0.03  # the same, of the sharp picture
    confidence_decay: float = 0.55  # confidence in a level over that in the one before
    edge: float = 0.3  # weight of a pixel at a silhouette or a fold
    rim: float = 0.03  # of the picture's height: how far inside the silhouette a pixel may yet be backdrop
    doubt: float = 0.1  # weight there of a pixel that looks like the backdrop
    band: float = 0.04  # of the picture's height: how far outside the silhouette clothes are looked for
    bins: int = 4  # distances to the silhouette that are distinguished within the band
    band_voxel: float = 0.08  # metres
    contrast: float = 0.08  # difference of colour in [0, 1] at which a pixel is as likely the person as backdrop
    widened: float = 0.012  # metres that clothes stick out where the photo does not show it
    softness: float = 0.0075  # metres over which that ends
    through: float = 0.3  # share of the opposite side of the body where no near pixel is known


VOXEL_PIXELS = 1.2


@dataclass(frozen=True, eq=False)
class SeenSurface:
    """What B photos show of their bodies' surfaces, ready to be drawn in any number of other views."""

    settings: SurfaceSettings
    fine: tuple[Box, Tensor]  # (B, X, Y, Z, 4): weight, weighed colour
    coarse: tuple[Box, Tensor]  # (B, X/2, Y/2, Z/2, 4): colour, confidence
    around: tuple[Box, Tensor]  # (B * bins, ...): count, cover, covered colour of the pixels outside the silhouette
    filled: Tensor  # (B, 3, H, W): the photos, filled in where the person stood
    backdrop: Tensor  # (B, 3, H, W): what views are drawn before, those or others that were given
    known: Tensor  # (B, H, W): confidence in the backdrop
    any_body: Tensor  # (B,) bool

    def draw(self, coordinates: Tensor) -> WarpedView:
        """The person in the view in which each pixel sees these coordinates, (B, H, W, 3), NaN where no body.

        Differentiable in the photo, whose weights are constants to the gradient.
        """
        settings = self.settings
        height, width = coordinates.shape[1:3]
        reach = _pixels(settings.band, height)
        seen = ~torch.isnan(coordinates[..., 0])
        distance, place = nearest_inside(seen, reach)
        drawn = _where((distance <= reach) & self.any_body[:, None, None])
        photo = drawn // (height * width)
        nearest = place.flatten()[drawn] + photo * (height * width)
        points = coordinates.reshape(-1, 3).index_select(0, nearest).float()
        outside = distance.flatten()[drawn]
        fine = self.fine[0].read(self.fine[1], points, photo)
        coarse = self.coarse[0].read(self.coarse[1], points, photo)
        color, sharp = (
            (fine[:, 1:] + enough * coarse[:, :3]) / (fine[:, :1] + enough)
            for enough in (settings.enough, settings.enough_sharp)
        )
        sure = (fine[:, 0] + settings.enough * coarse[:, 3]) / (fine[:, 0] + settings.enough)
        cover = torch.ones_like(sure)
        (rim,) = outside.nonzero(as_tuple=True)
        cover[rim], color[rim] = self._outside(points[rim], outside[rim], photo[rim], color[rim], reach, height)
        sharp[rim] = color[rim]
        backdrop, known = self.backdrop.permute(0, 2, 3, 1).reshape(-1, 3), self.known.flatten()
        behind, before = backdrop.index_select(0, drawn), known[drawn]
        picture, sharper = (
            backdrop.index_copy(0, drawn, behind + cover[:, None] * (shown - behind)) for shown in (color, sharp)
        )
        confidence = known.index_copy(0, drawn, before + cover * (sure - before))
        shape = len(self.known), height, width
        unknown = seen & ~self.any_body[:, None, None]
        covered = cover.new_zeros(known.shape).index_copy(0, drawn, cover)
        return WarpedView(
            picture.view(*shape, 3).permute(0, 3, 1, 2),
            sharper.view(*shape, 3).permute(0, 3, 1, 2),
            confidence.view(shape).masked_fill(unknown, 0.0),
            covered.view(shape),
        )

    def _outside(
        self, points: Tensor, outside: Tensor, photo: Tensor, color: Tensor, reach: int, height: int
    ) -> tuple[Tensor, Tensor]:
        """Cover (P,) and colour (P, 3) of pixels outside the silhouette, from the photo's and what is usual."""
        settings = self.settings
        box, seen = self.around
        seen_here = box.read(seen, points, photo * settings.bins + _bin(outside, reach, settings.bins))
        metres = outside * (BODY_HEIGHT / height)
        usual = torch.sigmoid((settings.widened - metres) / settings.softness)[:, None]
        covered = seen_here[:, 1:2] + usual
        mixed = (seen_here[:, 2:] + usual * color) / covered.clamp(min=1e-6)
        return (covered / (seen_here[:, :1] + 1))[:, 0], mixed


def see_surface(
    photos: Tensor, coordinates: Tensor, backdrop: Tensor | None = None, settings: SurfaceSettings | None = None
) -> SeenSurface:
    """What photos (B, 3, H, W) in [0, 1] show of the surface at coordinates (B, H, W, 3), NaN where no body.

    backdrop (B, 3, H, W): to draw the views before, instead of the photo's own, filled in where the person stood.
    """
    settings = settings or SurfaceSettings()
    batch, _, height, width = photos.shape
    coordinates = coordinates.float()
    mask = ~torch.isnan(coordinates[..., 0])
    reach = _pixels(settings.band, height)
    outside, place = nearest_inside(mask, reach)
    near = outside <= reach
    filled = without(photos, near)
    off = (photos - filled).detach().square().sum(1)
    person = off / (off + settings.contrast**2)  # likely not backdrop, (B, H, W)

    count, places = height * width, coordinates.reshape(-1, 3)
    colors = photos.permute(0, 2, 3, 1).reshape(-1, 3)
    body = _where(mask)
    points = places.index_select(0, body)
    box = _box_around(points, batch, settings, height)
    weight = _weight(coordinates, mask, person, settings).flatten()[body, None]
    values = torch.cat([weight, weight * colors.index_select(0, body)], 1)
    fine = _with_mirrored(box, points, body // count, values, settings.mirrored)

    rim = _where(near & ~mask)
    nearest = place.flatten()[rim] + rim // count * count
    own = colors.index_select(0, rim)
    inner = colors.detach().index_select(0, nearest)
    here = off.flatten()[rim]
    cover = here / (here + 0.5 * (own.detach() - inner).square().sum(1) + settings.contrast**2)
    covered = torch.cat([torch.ones_like(cover)[:, None], cover[:, None], cover[:, None] * own], 1)
    bins = rim // count * settings.bins + _bin(outside.flatten()[rim], reach, settings.bins)
    x, y, z = box.shape
    extent = box.voxel * torch.tensor([x, y, z], device=photos.device)
    wide = Box.around(box.origin, box.origin + extent, settings.band_voxel, batch * settings.bins, 2)
    around = _with_mirrored(wide, places.index_select(0, nearest), bins, covered, settings.mirrored)
    around = around + 0.3 * _enlarged(joined(around).movedim(-1, 1)).movedim(1, -1)
    known = torch.where(near, settings.confidence_decay**2, 1.0)
    return SeenSurface(
        settings=settings,
        fine=(box, fine),
        coarse=(box.coarser(), _coarse(joined(fine), settings)),
        around=(wide, around),
        filled=filled,
        backdrop=filled if backdrop is None else backdrop,
        known=known if backdrop is None else torch.ones_like(known),
        any_body=mask.flatten(1).any(1),
    )


Refine = Callable[[WarpedView, Tensor, Tensor, Tensor], Tensor]
"""Drafts of V views, places (V, H, W, 3) that they see, photos (B, 3, H, W) and theirs -> views (V, 3, H, W)."""


@torch.no_grad()
def surface_views(
    photos: np.ndarray,
    coordinates: Callable[[int], np.ndarray],
    views: Sequence[int],
    refine: Refine | None = None,
) -> dict[int, np.ndarray]:
    """Photos uint8 (B, H, W, 3) by degrees: turned to each of `views`, a view of 0 the photos themselves.

    coordinates(view): float (B, H, W, 3), as of `see_surface`, of all of them turned by so many degrees. refine: what
    makes views of drafts (models.textured_generator.refined); None: the drafts are the views.
    """
    pictures = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
    places = torch.from_numpy(coordinates(0))
    surface = see_surface(pictures, places)
    turned = {0: photos} if 0 in views else {}
    for view in views:
        if view:
            there = torch.from_numpy(coordinates(view))
            draft = surface.draw(there)
            drawn = draft.picture if refine is None else refine(draft, there, pictures, places)
            turned[view] = _levels(drawn).permute(0, 2, 3, 1).numpy()
    return turned


def surface_view(
    photo: np.ndarray,
    coordinates: np.ndarray,
    coordinates_novel: np.ndarray,
    backdrop: np.ndarray | None = None,
    settings: SurfaceSettings | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A photo's person in another view: the draft uint8 (H, W, 3) and its confidence float32 (H, W) in [0, 1].

    photo uint8 (H, W, 3); coordinates and coordinates_novel float (H, W, 3): which point of the body of reference
    each pixel of the photo, and of the new view, sees, in metres, x to its left, mirrored by x -> -x; NaN where no
    body is seen. backdrop uint8 (H, W, 3): another one than the photo's own. ValueError at other shapes.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"photo is {photo.dtype} {photo.shape}, expected uint8 (H, W, 3)")
    for name, array in (
        ("coordinates", coordinates),
        ("coordinates_novel", coordinates_novel),
        ("backdrop", backdrop),
    ):
        if array is not None and array.shape != photo.shape:
            raise ValueError(f"{name} is {array.shape}, the photo {photo.shape}")

    def picture(pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]

    def places(seen: np.ndarray) -> Tensor:
        return torch.from_numpy(seen.astype(np.float32))[None]

    with torch.no_grad():
        behind = None if backdrop is None else picture(backdrop)
        seen = see_surface(picture(photo), places(coordinates), behind, settings)
        draft = seen.draw(places(coordinates_novel))
        pixels = _levels(draft.picture[0].permute(1, 2, 0))
    return pixels.numpy(), draft.confidence[0].clamp(0, 1).numpy()


def _levels(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8)


def _pixels(share: float, height: int) -> int:
    return max(1, round(share * height))


def _bin(outside: Tensor, reach: int, bins: int) -> Tensor:
    return (outside * (bins / reach)).ceil().long().clamp(1, bins) - 1


def _where(mask: Tensor) -> Tensor:
    """Places (P,) of what is true in the flattened mask."""
    return mask.flatten().nonzero()[:, 0]


def _box_around(points: Tensor, batch: int, settings: SurfaceSettings, height: int) -> Box:
    """A box around all points (P, 3) and their mirrored ones."""
    ends = points if len(points) else points.new_zeros(1, 3)
    low, high = ends.amin(0), ends.amax(0)
    wide = torch.maximum(high[:1], -low[:1])
    voxel = max(settings.voxel, VOXEL_PIXELS * BODY_HEIGHT / height)
    low, high = torch.cat([-wide, low[1:]]), torch.cat([wide, high[1:]])
    return Box.around(low, high, voxel, batch, 2 ** (settings.levels - 1))


def _weight(coordinates: Tensor, mask: Tensor, person: Tensor, settings: SurfaceSettings) -> Tensor:
    """How far each pixel shows what it should, (B, H, W).

    Little at silhouettes and folds, at a grazing angle, and near the silhouette where it looks like the backdrop.
    """
    held = [axis.masked_fill(~mask, 100.0) for axis in coordinates.unbind(-1)]
    steps = torch.zeros_like(person)  # metres to the neighbour on the surface that is farthest away
    for axis in (1, 2):
        size = mask.shape[axis] - 1
        x, y, z = ((along.narrow(axis, 1, size) - along.narrow(axis, 0, size)).abs() for along in held)
        step = torch.maximum(torch.maximum(x, y), z)
        for start in (0, 1):
            part = steps.narrow(axis, start, size)
            part.copy_(torch.maximum(part, step))
    fold = steps > 0.12
    smooth = mask & ~fold
    count = smooth.flatten(1).sum(1).clamp(min=1)
    usual = ((steps * smooth).flatten(1).sum(1) / count)[:, None, None]
    grazing = (usual / steps.clamp(min=1e-6)).clamp(0.05, 1.0)
    reach = _pixels(settings.rim, mask.shape[1])
    near_edge = nearest_inside(~mask, reach)[0] <= reach
    weight = torch.where(fold, settings.edge, grazing)
    doubted = settings.doubt + (1 - settings.doubt) * person
    return torch.where(near_edge, weight * doubted, weight)


def _with_mirrored(box: Box, points: Tensor, row: Tensor, values: Tensor, mirrored: float) -> Tensor:
    flipped = points * points.new_tensor([-1.0, 1.0, 1.0])
    both = torch.cat([values, mirrored * values])
    return box.sums(torch.cat([points, flipped]), torch.cat([row, row]), both)


def _coarse(sums: Tensor, settings: SurfaceSettings) -> Tensor:
    """Colour and confidence everywhere, from sums (B, X, Y, Z, 4): each level outweighs the coarser by its weight."""
    pyramid = [sums.movedim(-1, 1)]
    for _ in range(settings.levels - 2):
        pyramid.append(joined(pyramid[-1].movedim(1, -1)).movedim(-1, 1))
    total = pyramid[-1].sum((2, 3, 4), keepdim=True)
    mean = total[:, 1:] / total[:, :1].clamp(min=1e-6)
    shape = pyramid[-1].shape
    below = torch.cat([mean, torch.zeros_like(mean[:, :1])], 1).expand(shape)
    for level in range(len(pyramid), 0, -1):
        now = pyramid[level - 1]
        seen_here = torch.cat([now[:, 1:], now[:, :1] * settings.confidence_decay**level], 1)
        if settings.through and level <= 2:
            flat = now.sum(3, keepdim=True)
            seen = flat[:, 1:] / flat[:, :1].clamp(min=1e-6)
            share = settings.through * flat[:, :1] / (flat[:, :1] + settings.enough)
            below = torch.cat([below[:, :3] + share * (seen - below[:, :3]), below[:, 3:]], 1)
        filled = (seen_here + settings.enough * below) / (now[:, :1] + settings.enough)
        below = _enlarged(filled) if level > 1 else filled
    return below.movedim(1, -1).contiguous()


def _enlarged(voxels: Tensor) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C, 2X, 2Y, 2Z), trilinear."""
    return F.interpolate(voxels, scale_factor=2, mode="trilinear", align_corners=False)
