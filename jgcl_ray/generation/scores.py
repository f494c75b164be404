"""Generated views of walkers against the true ones, which the renderer kept in views.npz.

Letters: M photos with true views, V views of each, H x W image size, F width of features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from jgcl_ray.data.transforms import normalise_images, normalise_meshes
from jgcl_ray.errors import UserError
from jgcl_ray.generation.people import People
from jgcl_ray.generation.similarity import frechet_distance, psnr, ssim
from jgcl_ray.generation.view_generator import ViewGenerator
from jgcl_ray.image_files import resize
from jgcl_ray.meshes.projection_folders import TRUTH
from jgcl_ray.meshes.shading import BACKGROUND_GREY
from jgcl_ray.meshes.walker_files import read_views

BATCH = 16
# What the plain background of walkers' projections is to the generator, exactly.
_BACKGROUND = normalise_meshes([np.full((1, 1), round(255 * BACKGROUND_GREY), np.uint8)]).item()

Features = Callable[[np.ndarray], np.ndarray]  # uint8 (B, H, W, 3) -> (B, F)


@dataclass(frozen=True, eq=False)
class TrueViews:
    """Photos of the walkers in a folder from other sides."""

    rows: np.ndarray  # (M,) rows of the folder's images
    views: tuple[int, ...]  # V, degrees
    pictures: np.ndarray  # uint8 (M, V, H, W, 3)


@dataclass(frozen=True)
class ViewSimilarity:
    """To the true views."""

    psnr: float  # dB, mean over pictures; higher is nearer
    psnr_body: float  # the same, of the pixels that the true view's body covers: backgrounds left out
    ssim: float  # mean over pictures, at most 1; higher is nearer
    fid: float | None = None  # of all pictures together; lower is nearer


@dataclass(frozen=True)
class ViewScores:
    """Of generated views, and of a stranger to turning who answers with the photo itself."""

    images: int  # M
    pictures: int  # M * V
    features: str  # whose the Frechet distance is
    generated: ViewSimilarity
    copy: ViewSimilarity
    by_view: dict[int, dict[str, ViewSimilarity]]  # degrees -> generated, copy

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_true_views(people: People) -> TrueViews:
    """The true views of the walkers in the folder of `people`; UserError where there are none."""
    file = people.folder.parent / TRUTH
    if not file.exists():
        raise UserError(
            f"--score: no {file.name} beside {people.folder}; only walkers have true views "
            "(python -m jgcl_ray.data.walkers --out FOLDER, then --images FOLDER/query)"
        )
    arrays = read_views(file, "photo_rows", "photo_views", "photos")
    names, rows, views, pictures = (arrays[key] for key in ("names", "photo_rows", "photo_views", "photos"))
    places = {f"{people.folder.name}/{name}": row for row, name in enumerate(people.names)}
    here = [i for i, row in enumerate(rows) if names[row] in places]
    if not here:
        raise UserError(f"--score: {file} has true views of other folders' images, none of {people.folder}")
    size = people.store.height, people.store.width
    resized = [[resize(Image.fromarray(picture), *size) for picture in pictures[i]] for i in here]
    return TrueViews(np.array([places[names[rows[i]]] for i in here]), tuple(map(int, views)), np.array(resized))


def score_views(
    generator: ViewGenerator,
    people: People,
    truth: TrueViews,
    features: Features,
    features_name: str,
    track: Callable[[range], Iterable[int]] = iter,
) -> ViewScores:
    """PSNR, SSIM and Frechet distance to the true views. `track` watches the batches go by."""
    measured: dict[str, dict[int, list[np.ndarray]]] = {
        name: {view: [] for view in truth.views} for name in ("generated", "copy")
    }
    seen: dict[str, list[np.ndarray]] = {"generated": [], "copy": [], "truth": []}
    for start in track(range(0, len(truth.rows), BATCH)):
        rows, true = truth.rows[start : start + BATCH].tolist(), truth.pictures[start : start + BATCH]
        codes, photos = generator.codes(people.images(rows)), people.pixels(rows)
        of_photos = features(photos)
        for column, (view, meshes) in enumerate(people.meshes(rows, truth.views).items()):
            drawn = generator.draw(meshes, codes).numpy()
            body = meshes != _BACKGROUND
            measured["generated"][view].append(_one_to_one(drawn, true[:, column], body))
            measured["copy"][view].append(_one_to_one(photos, true[:, column], body))
            seen["generated"].append(features(drawn))
            seen["copy"].append(of_photos)
            seen["truth"].append(features(true[:, column]))
    joined = {name: np.concatenate(parts) for name, parts in seen.items()}
    numbers = {
        name: {view: np.concatenate(parts) for view, parts in of_views.items()} for name, of_views in measured.items()
    }

    def likeness(name: str) -> ViewSimilarity:
        return _similarity(
            np.concatenate(list(numbers[name].values())), frechet_distance(joined[name], joined["truth"])
        )

    return ViewScores(
        images=len(truth.rows),
        pictures=len(joined["truth"]),
        features=features_name,
        generated=likeness("generated"),
        copy=likeness("copy"),
        by_view={view: {name: _similarity(numbers[name][view]) for name in numbers} for view in truth.views},
    )


def own_features(generator: ViewGenerator) -> Features:
    """The embedding of the checkpoint's own encoder, before normalisation."""

    @torch.inference_mode()
    def features(pictures: np.ndarray) -> np.ndarray:
        images = normalise_images(list(pictures)).to(generator.device)
        return generator.encoder(images).embedding.cpu().numpy()

    return features


def inception_features(file: Path, device: torch.device) -> Features:
    """The network of the Frechet *inception* distance from a TorchScript file, as NVIDIA's StyleGAN projects hand it
    out (inception-2015-12-05.pt): uint8 (B, 3, H, W) of any size and return_features=True -> (B, 2048).
    """
    try:
        network = torch.jit.load(file, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{file}: no TorchScript file ({str(error).splitlines()[0]})") from None

    @torch.inference_mode()
    def features(pictures: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device)
        return network(images, return_features=True).flatten(1).float().cpu().numpy()

    return features


def _one_to_one(pictures: np.ndarray, truth: np.ndarray, body: torch.Tensor) -> np.ndarray:
    """PSNR, PSNR within the body, SSIM of each pair: uint8 (B, H, W, 3) twice, bool (B, 1, H, W) -> (B, 3)."""
    a, b = (torch.from_numpy(some / np.float32(255)).permute(0, 3, 1, 2) for some in (pictures, truth))
    return torch.stack([psnr(a, b), psnr(a, b, body), ssim(a, b)], dim=1).numpy()


def _similarity(numbers: np.ndarray, fid: float | None = None) -> ViewSimilarity:
    overall, body, similarity = numbers.mean(axis=0).tolist()
    return ViewSimilarity(overall, body, similarity, fid)
