"""Views along the surface against the true ones, bare and refined: PSNR, SSIM, by angle, beside a copy of the photo.

Walkers with true views are photographed anew from the plan of a preset and seed; their bodies are the true ones, or
those that the package's estimator finds on the photos. One JSON object a line: `psnr`, `psnr_body` (dB; pixels of the
true bare body), `ssim`, `sharpness` (mean absolute difference of horizontal neighbours inside the body, over that of
the true views), `by_angle` (45 stands for 45 and 315 degrees, and so on: psnr, psnr_body, ssim), `confidence` (mean
inside the body), `standard_error` (of psnr, over photos); with --encoder `view_rank1` (share of views whose nearest
photo of another camera in --root, the same set rendered, is the same person) and the same for photos and true views.
"surface" are the drafts, nothing learnt, "refined" what the package's generator (or --views-from) makes of them. Last
the time of a view on one core.

    python benchmarks/bm_views.py [--preset demo] [--seed 2] [--split train] [--photos 40] [--size 96x48]
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.batches import NOVEL_VIEWS, WarpedView
from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.data.walkers.plan import Plan
from jgcl_ray.data.walkers.rendering import PRESETS, take_photo
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.generation.similarity import psnr, ssim
from jgcl_ray.image_files import resize
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.body_parameters import write_body_parameters
from jgcl_ray.meshes.correspondence import see_surface, surface_view
from jgcl_ray.meshes.drawing import ParameterProjections
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.estimator import BodyEstimator
from jgcl_ray.meshes.projection_folders import VIEWS
from jgcl_ray.meshes.shading import see_reference
from jgcl_ray.models.textured_generator import WEIGHTS, TexturedGenerator, load_views, refined
from jgcl_ray.progress import tracked

SHOWN = 10  # people on the sheet


@dataclass(frozen=True, eq=False)
class People:
    """M photos; H x W as asked for."""

    rows: list[int]  # M, of the plan
    photos: np.ndarray  # uint8 (M, H, W, 3)
    truth: np.ndarray  # uint8 (M, 7, H, W, 3)
    coordinates: dict[str, np.ndarray]  # bodies -> float16 (M, 8, H, W, 3)


def photograph(plan: Plan, rows: list[int], height: int, width: int) -> People:
    """Photos, true views, and coordinates by true and by estimated bodies."""
    photos, truth, coordinates = [], [], []
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        for row in tracked(rows, "photos"):
            taken = take_photo(plan, row)
            (folder / f"{row}.jpg").write_bytes(taken.jpeg)
            photos.append(resize(Image.open(io.BytesIO(taken.jpeg)).convert("RGB"), height, width))
            views = [Image.fromarray(taken.photographer.true_view(view)) for view in NOVEL_VIEWS]
            truth.append([resize(view, height, width) for view in views])
            body, camera = EmbreeMesh(taken.figure.body), taken.shot.at_size(height, width)
            fragments = body.fragments([camera.turned(view, np.zeros(3)) for view in VIEWS], height, width)
            coordinates.append(see_reference(fragments, body.mesh, anny_body().reference))
        names, file = [f"{row}.jpg" for row in rows], folder / "bodies.npz"
        write_body_parameters(BodyEstimator().estimate(folder, names).to_parameters(), file)
        source = ParameterProjections(file, None, names, height, width, light=True)
        found = [[source.coordinates(row, view) for view in VIEWS] for row in range(len(rows))]
    return People(
        rows, np.array(photos), np.array(truth), {"true": np.array(coordinates), "estimated": np.array(found)}
    )


def draw(people: People, bodies: str, generator: TexturedGenerator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drafts and refined views uint8 (M, 7, H, W, 3), and the drafts' confidence (M, 7, H, W)."""
    drafts, views, confidence = [], [], []
    for photo, seen in zip(people.photos, people.coordinates[bodies], strict=True):
        picture, places = as_tensor(photo[None]), torch.from_numpy(seen)
        draft = drafts_of(picture, places)
        drafts.append(as_levels(draft.picture))
        views.append(as_levels(refined(generator, draft, places[1:], picture, places[:1])))
        confidence.append(draft.confidence.numpy())
    return np.array(drafts), np.array(views), np.array(confidence)


@torch.no_grad()
def drafts_of(picture: torch.Tensor, places: torch.Tensor) -> WarpedView:
    """Of one photo (1, 3, H, W): all views at once, by the places that it and they see, (8, H, W, 3)."""
    surface = see_surface(picture, places[:1])
    drawn = [surface.draw(novel[None]) for novel in places[1:]]
    return WarpedView(**{f.name: torch.cat([getattr(view, f.name) for view in drawn]) for f in fields(WarpedView)})


def as_levels(pictures: torch.Tensor) -> np.ndarray:
    """(n, 3, H, W) in [0, 1] -> uint8 (n, H, W, 3)."""
    return (255 * pictures).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, H, W, 3) -> (n, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pictures / np.float32(255)).permute(0, 3, 1, 2)


def likeness(views: np.ndarray, people: People) -> dict[str, Any]:
    """Of views (M, 7, H, W, 3) to the true ones."""
    body = ~np.isnan(people.coordinates["true"][:, 1:, ..., 0])
    numbers = np.array(
        [
            torch.stack([psnr(a, b), psnr(a, b, torch.from_numpy(inside)[:, None]), ssim(a, b)], dim=1).numpy()
            for a, b, inside in zip(map(as_tensor, views), map(as_tensor, people.truth), body, strict=True)
        ]
    )  # (M, 7, 3)
    overall = numbers.mean((0, 1))
    angles = {45: (0, 6), 90: (1, 5), 135: (2, 4), 180: (3,)}

    def steepness(pictures: np.ndarray) -> float:
        steps = np.abs(np.diff(pictures.astype(np.float32), axis=-2))
        return float(steps[body[..., 1:] & body[..., :-1]].mean())

    return {
        "psnr": round(float(overall[0]), 3),
        "psnr_body": round(float(overall[1]), 3),
        "ssim": round(float(overall[2]), 4),
        "sharpness": round(steepness(views) / steepness(people.truth), 3),
        "by_angle": {
            a: numbers[:, list(at)].mean((0, 1)).astype(float).round(3).tolist() for a, at in angles.items()
        },
        "standard_error": round(float(numbers[..., 0].mean(1).std() / len(numbers) ** 0.5), 3),
    }


def recogniser(given: argparse.Namespace, plan: Plan) -> Callable[[np.ndarray, list[int]], float]:
    """view_rank1 of views (M, V, H, W, 3) of the photos in rows."""
    encoder = Encoder.load(given.encoder, multi_scale=False)
    everyone = [row for row, photo in enumerate(plan.photos) if photo.identity and photo.mesh_split == given.split]
    gallery = encoder.embed([given.root / plan.photos[row].path for row in everyone])
    identity = np.array([plan.photos[row].identity for row in everyone])
    camera = np.array([plan.photos[row].camera for row in everyone])

    def rank1(views: np.ndarray, rows: list[int]) -> float:
        hits = []
        for of_photo, row in zip(views, rows, strict=True):
            likeness = encoder.embed([Image.fromarray(view) for view in of_photo]) @ gallery.T
            likeness[:, camera == plan.photos[row].camera] = -2
            hits.append((identity[likeness.argmax(1)] == plan.photos[row].identity).mean())
        return round(float(np.mean(hits)), 4)

    return rank1


def sheet(people: People, drafts: np.ndarray, views: np.ndarray, file: Path) -> None:
    """For each person a row of true views over rows of drafts and of refined ones."""
    rows = []
    for photo, *of_person in list(zip(people.photos, people.truth, drafts, views, strict=True))[:SHOWN]:
        rows += [[Tile(Image.fromarray(picture)) for picture in (photo, *row)] for row in of_person]
    contact_sheet(rows, ["photo", *(f"{view}°" for view in NOVEL_VIEWS)]).save(file)


def time_a_view(people: People, generator: TexturedGenerator) -> dict[str, Any]:
    """Of photo and coordinates to one draft, of each further one, and of refining one of seven, on one core."""
    whole, further, refining = [], [], []
    for photo, seen in zip(people.photos, people.coordinates["true"], strict=True):
        begun = time.process_time()
        surface_view(photo, seen[0], seen[1])
        whole.append(time.process_time() - begun)
        with torch.no_grad():
            surface = see_surface(as_tensor(photo[None]), torch.from_numpy(seen[:1]))
            begun = time.process_time()
            for novel in seen[1:]:
                surface.draw(torch.from_numpy(novel[None]))
            further.append((time.process_time() - begun) / (len(seen) - 1))
        picture, places = as_tensor(photo[None]), torch.from_numpy(seen)
        draft = drafts_of(picture, places)
        begun = time.process_time()
        refined(generator, draft, places[1:], picture, places[:1])
        refining.append((time.process_time() - begun) / (len(seen) - 1))
    return {
        "ms_one_view": round(1e3 * statistics.median(whole), 2),
        "ms_one_view_least": round(1e3 * min(whole), 2),
        "ms_further_view": round(1e3 * statistics.median(further), 2),
        "ms_refining_a_view": round(1e3 * statistics.median(refining), 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo")
    parser.add_argument("--seed", type=whole(0), default=2)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--photos", type=whole(1), default=40)
    parser.add_argument("--size", default="96x48", help="of the pictures")
    parser.add_argument("--time-size", default="256x128", help="of the timed view")
    parser.add_argument("--encoder", type=Path, help="a run folder or checkpoint: also view_rank1")
    parser.add_argument("--root", type=Path, help="the same set rendered, for --encoder")
    parser.add_argument("--sheet", type=Path, help="file to draw people to, before _true.png and _estimated.png")
    parser.add_argument("--views-from", type=Path, default=WEIGHTS, help="weights of the generator (the package's)")
    given = parser.parse_args()
    generator = load_views(given.views_from)
    if (given.encoder is None) != (given.root is None):
        parser.error("--encoder and --root go together")
    torch.set_num_threads(1)
    plan = PRESETS[given.preset].plan(given.seed)
    rows = [row for row, p in enumerate(plan.photos) if p.true_views and p.mesh_split == given.split]
    rows = np.random.default_rng(0).permutation(rows)[: given.photos].tolist()
    height, width = (int(length) for length in given.size.split("x"))
    people = photograph(plan, rows, height, width)
    rank1 = recogniser(given, plan) if given.encoder else None
    about = {
        "preset": given.preset,
        "seed": given.seed,
        "split": given.split,
        "photos": len(rows),
        "size": given.size,
    }

    def report(name: str, views: np.ndarray, **besides: Any) -> None:
        found = likeness(views, people) if name != "photos" else {}
        if rank1 is not None:
            found["view_rank1"] = rank1(views, rows)
        print(json.dumps({"name": name, **about, **besides, **found}), flush=True)

    report("copy of the photo", np.repeat(people.photos[:, None], len(NOVEL_VIEWS), axis=1))
    if rank1 is not None:
        report("true views", people.truth)
    for bodies in people.coordinates:
        drafts, views, confidence = draw(people, bodies, generator)
        inside = ~np.isnan(people.coordinates[bodies][:, 1:, ..., 0])
        report("surface", drafts, bodies=bodies, confidence=round(float(confidence[inside].mean()), 3))
        report("refined", views, bodies=bodies)
        if given.sheet:
            sheet(people, drafts, views, given.sheet.with_name(f"{given.sheet.stem}_{bodies}.png"))
    timed_height, timed_width = (int(length) for length in given.time_size.split("x"))
    timed = photograph(plan, rows[:12], timed_height, timed_width)
    print(json.dumps({"name": "time", "size": given.time_size, **time_a_view(timed, generator)}), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
