"""A handful of photos in Market-1501's layout, and small encoders for them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from jgcl_ray.config import Config, PseudoLabelsConfig, load_config
from jgcl_ray.data.datasets import ReidDataset, open_dataset
from jgcl_ray.encoder import Encoder
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training.checkpoint import Checkpoints, Position, Saved

HEIGHT, WIDTH = 80, 40
PEOPLE, CAMERAS = range(11, 18), (1, 2, 3)
LABELLING = PseudoLabelsConfig(k1=6, k2=2, eps=0.6, min_samples=2)


def write_photos(root: Path, people: range = PEOPLE, cameras: tuple[int, ...] = CAMERAS) -> Path:
    """Seven people with a coat and trousers of their own, in the light of three cameras; two distractors.

    Query: each once by each camera. Gallery: each twice by each. Trained on: two others.
    """
    random = np.random.default_rng(5)
    light = {camera: random.integers(-25, 25, 3) for camera in CAMERAS}
    clothes = {person: random.integers(30, 225, (2, 3)) for person in [0, 1, 2, *PEOPLE, 99]}
    wanted = [("bounding_box_train", person, (1, 2), 2) for person in (1, 2)]
    wanted += [("query", person, cameras, 1) for person in people]
    wanted += [("bounding_box_test", person, cameras, 2) for person in [*people, 0]]
    for folder, person, seen_by, times in wanted:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for camera in seen_by:
            for take in range(times):
                pixels = random.normal(128, 30, (HEIGHT, WIDTH, 3))
                coat, trousers = clothes[person] + light[camera]
                left = int(random.integers(6, 14))
                pixels[12:44, left : left + 20] = coat + random.normal(0, 8, (32, 20, 3))
                pixels[44:76, left : left + 20] = trousers + random.normal(0, 8, (32, 20, 3))
                name = f"{person:04d}_c{camera}s1_{take:06d}_{folder == 'query':02d}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / folder / name)
    return root


def opened(root: Path) -> ReidDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not Market-1501 as published
        return open_dataset(configuration(root).data)


def configuration(root: Path) -> Config:
    return load_config(
        None,
        f"""data.name=market1501 data.root={root} data.height={HEIGHT} data.width={WIDTH} encoder.backbone=resnet18
        encoder.weights=random encoder.embedding=16 generator.width=1 generator.style_width=8 discriminator.width=2
        discriminator.scales=1 pseudo_labels.k1=6 pseudo_labels.k2=2 pseudo_labels.eps=0.6
        pseudo_labels.min_samples=2""".split(),
    )


def untrained() -> Encoder:
    architecture = configuration(Path()).encoder
    return Encoder(IdentityEncoder(architecture), architecture, HEIGHT, WIDTH, device="cpu", source="untrained")


def write_run(folder: Path, photos: Path) -> Networks:
    """A run folder with one checkpoint."""
    config = configuration(photos)
    networks = build_networks(config)
    saved = Saved(Position(step=7), config.model_dump(mode="json"), {})
    Checkpoints(folder / "checkpoints").save("step0000007", networks, saved)
    return networks
