"""The discriminator of every shipped preset soon tells sharp images from blurred ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import yaml

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config, configs_folder, load_config
from jgcl_ray.losses.joint import FAKES, JointOutputs, StepPlan
from jgcl_ray.losses.reconstruction import Fake
from jgcl_ray.models.encoder import EncoderOutput
from jgcl_ray.models.networks import build_networks
from jgcl_ray.training.optim import build_optimisers
from jgcl_ray.training.precision import prepare
from jgcl_ray.training.step import update_discriminator

pytestmark = pytest.mark.usefixtures("one_thread")

WITH_ONE = sorted(
    path.stem
    for path in configs_folder().glob("*.yaml")
    if path.stem != "base" and "discriminator" in yaml.safe_load(path.read_text())
)
# It learns from two small images a step; nothing else is built of more than a few channels.
SMALL = """
    data.height=80 data.width=40
    joint.recipe=gcl run.stages=[warmup,generation,joint] encoder.backbone=resnet18 encoder.weights=random
    run.init_from=null generator.width=1 generator.style_width=8 generator.standardise_codes=false
    precision.dtype=float32
""".split()
ASLEEP = """
    discriminator.initialisation=normal discriminator.penalty_every=1 losses.gradient_penalty=0.01
    optim.discriminator_lr=0.0001
""".split()


def alike() -> list[list[str]]:
    """The presets whose discriminators are made and taught alike."""
    found: dict[str, list[str]] = {}
    for name in WITH_ONE:
        config = load_config(name, SMALL)
        parts = (
            config.discriminator,
            config.losses,
            config.optim.discriminator_lr,
            config.optim.adam_betas,
            config.optim.weight_decay,
        )
        found.setdefault(repr(parts), []).append(name)
    return list(found.values())


def photos(count: int, config: Config, draws: torch.Generator) -> torch.Tensor:
    """Patches of colour with edges between them and noise on them, (B, 3, H, W)."""
    height, width = config.data.height, config.data.width
    patches = torch.randn(count, 3, height // 8, width // 8, generator=draws)
    large = F.interpolate(patches, (height, width), mode="nearest")
    return large + 0.3 * torch.randn(large.shape, generator=draws)


def blurred(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)


def totals(config: Config, steps: int) -> list[float]:
    """`discriminator_total` of steps on other images each, over what it is where all scores are one half."""
    torch.manual_seed(0)
    networks = prepare(build_networks(config), config.precision)
    optimisers = build_optimisers(networks, config.optim)
    plan, draws = StepPlan.of(config.losses, contrasts=True), torch.Generator().manual_seed(1)
    chance, found = 0.5 * config.discriminator.scales * len(FAKES), []
    none = EncoderOutput(torch.empty(0), torch.empty(0))
    for step in range(steps):
        real = photos(2, config, draws)
        fakes: dict[Fake, torch.Tensor] = {fake: blurred(photos(2, config, draws)) for fake in FAKES}
        rows = torch.arange(2)
        batch = PairedBatch(real, real[:, :1], real[:, :1], rows, rows)
        terms = update_discriminator(networks, optimisers, JointOutputs(none, fakes, {}), batch, config, plan, step)
        found.append(float(terms["discriminator_total"]) / chance)
    return found


@pytest.mark.parametrize("names", alike(), ids=" ".join)
def test_it_leaves_chance_within_a_hundred_steps(names: list[str]) -> None:
    found = totals(load_config(names[0], SMALL), 100)
    assert sum(found[-16:]) / 16 < 0.7


@pytest.mark.parametrize("name", ["gcl", "walkers_tiny"])
def test_as_published_a_narrow_one_sleeps(name: str) -> None:
    """Its layers pass too little on: all images have one score."""
    found = totals(load_config(name, [*SMALL, *ASLEEP]), 100)
    assert sum(found[-16:]) / 16 > 0.85
