"""Numbers of what sleeps and what does not, and the advice that follows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_run import configured
from torch import nn
from worker_group import run_workers

from jgcl_ray.batches import PairedBatch, PseudoLabels
from jgcl_ray.config import load_config
from jgcl_ray.data.samplers import Shard
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.training.prepare import InProcess, build_session, plan_run
from jgcl_ray.training.vital_signs import (
    VitalSigns,
    advice,
    rank1,
    relative_change,
    sampled_rows,
    sharpness_ratio,
    view_signs,
    weights_of,
)

TINY = """data.height=80 data.width=40 encoder.backbone=resnet18 encoder.weights=random encoder.embedding=16
    generator.width=1 generator.style_width=8 discriminator.width=2 discriminator.scales=2""".split()


@pytest.fixture
def networks() -> Networks:
    torch.manual_seed(0)
    return build_networks(load_config(None, TINY))


def batch(count: int = 3) -> PairedBatch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(count, 3, 80, 40, generator=generator)
    mesh = torch.randn(2, count, 1, 80, 40, generator=generator)
    return PairedBatch(image, mesh[0], mesh[1], torch.full((count,), 90), torch.arange(count))


def test_a_fresh_discriminator_is_said_to_sleep(networks: Networks) -> None:
    signs = view_signs(networks, batch(), load_config(None, TINY))
    (photos, photo_sum), (views, view_sum) = signs.verdicts.tolist()
    margin = photo_sum / photos - view_sum / views
    assert abs(margin) < 0.05
    assert "discriminator judges nothing" in advice({"discriminator_margin": margin})["discriminator"]


class Brightness(nn.Module):
    """Scores of two scales, the second of them of fewer cells."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return image.mean(1, keepdim=True), F.avg_pool2d(image.mean(1, keepdim=True), 4) + 1


def test_margin_and_sharpness_are_those_of_a_literal_version(networks: Networks) -> None:
    config, given = load_config(None, TINY), batch()
    judged = Networks(networks.encoder, networks.structure_encoder, networks.generator, Brightness())  # type: ignore[arg-type]
    signs = view_signs(judged, given, config)
    E_id = networks.encoder.eval()
    with torch.no_grad():
        view = networks.generator(networks.structure_encoder(given.mesh_novel), E_id(given.image).code)
        embedding = F.normalize(E_id(view, "generated").embedding)
    assert torch.allclose(signs.embedding, embedding, atol=1e-5)
    (photos, photo_sum), (views, view_sum) = signs.verdicts.tolist()
    assert photo_sum / photos == pytest.approx(float(given.image.mean()) + 0.5, abs=1e-5)
    assert view_sum / views == pytest.approx(float(view.mean()) + 0.5, abs=1e-5)
    steps = [images.diff(dim=3).std(correction=0) for images in (view, given.image)]
    assert sharpness_ratio(signs.moments) == pytest.approx(float(steps[0] / steps[1]), rel=1e-4)


def test_a_discriminator_that_tells_is_awake() -> None:
    assert "discriminator" not in advice({"discriminator_margin": 0.4})


def test_encoder_in_training_mode_stays_so_and_keeps_its_statistics(networks: Networks) -> None:
    before = copy.deepcopy(networks.encoder.state_dict())
    networks.encoder.train()
    view_signs(networks, batch(), load_config(None, TINY))
    assert networks.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in networks.encoder.state_dict().items())


def test_rank1_of_views_and_photos() -> None:
    """Views of people 0 and 1; those of 1 look like 0. Own photos do not count, nor outliers, nor the lonely."""
    axes = torch.eye(4)
    features = F.normalize(torch.stack([axes[0], axes[0] + 0.1 * axes[3], axes[1], axes[1], axes[2], axes[3]]))
    labels = np.array([0, 0, 1, 1, 2, -1])
    rows = np.array([0, 2, 3, 4, 5])
    views = torch.stack([axes[0], axes[0], axes[1], axes[2], axes[3]])
    assert rank1(views, rows, features, labels) == {"view_rank1": 2 / 3, "photo_rank1": 1.0}
    assert rank1(views[3:], rows[3:], features, labels) == {}
    assert rank1(views, rows, features, np.full(6, -1)) == {}


def test_views_that_lose_the_person_are_told() -> None:
    lost = advice({"view_rank1": 0.2, "photo_rank1": 0.5})
    assert "views lose the person" in lost["views"] and "20% of them, for 50%" in lost["views"]
    assert advice({"view_rank1": 0.3, "photo_rank1": 0.5}) == {}
    assert advice({}) == {}


def test_movement_of_the_encoder() -> None:
    module = nn.Linear(3, 4)
    before = weights_of(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 1.002
    moved = relative_change(before, weights_of(module))
    assert moved == pytest.approx(0.002, rel=1e-3)
    assert "learns nothing" in advice({"encoder_moved": moved})["encoder"]
    assert advice({"encoder_moved": 0.01}) == {}
    assert advice({"encoder_moved": moved}, usual=0.1) == {}, "a tenth of the rate moves it a tenth as far"
    assert "less than 0.03%" in advice({"encoder_moved": moved / 10}, usual=0.1)["encoder"]


def test_sample_is_fixed_spread_and_small() -> None:
    rows = sampled_rows(16_000)
    assert len(rows) == 128 and rows[0] == 0 and rows[-1] == 15_999
    assert np.diff(rows).max() <= 127
    assert sampled_rows(5).tolist() == [0, 1, 2, 3, 4]


def measured(walkers: Path, root: Path, shard: Shard) -> dict[str, float]:
    torch.manual_seed(0)
    plan = plan_run(configured(walkers, root))
    session = build_session(plan, InProcess(plan.config.pseudo_labels), shard, torch.device("cpu"))
    images = len(session.data.images)
    session.labels = PseudoLabels(np.arange(images) // 3, 0.5, -(-images // 3), 0)
    signs = VitalSigns(session)
    signs.epoch_begins()
    with torch.no_grad():
        for parameter in session.networks.encoder.parameters():
            parameter *= 1.01
    return signs.measure("joint", 0, trains_encoder=True, uses_generator=True)


def test_two_workers_measure_what_one_does(walkers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = measured(walkers, tmp_path, Shard())
    assert one.keys() == {
        "encoder_moved",
        "view_sharpness",
        "discriminator_margin",
        "view_rank1",
        "photo_rank1",
    }
    assert "joint: the discriminator judges nothing" in caplog.text and "learns nothing" not in caplog.text
    run_workers(2, _one_of_two, tmp_path, walkers, one)


def _one_of_two(rank: int, join: Callable[[], None], walkers: Path, one: dict[str, float]) -> None:
    join()
    assert measured(walkers, Path("unused"), Shard(rank, 2)) == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_an_epoch_of_few_batches_may_move_less(
    walkers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_run(configured(walkers, tmp_path))
    session = build_session(plan, InProcess(plan.config.pseudo_labels), Shard(), torch.device("cpu"))
    for batches, told in ((1, False), (20, True)):
        signs = VitalSigns(session)
        signs.epoch_begins()
        with torch.no_grad():
            for parameter in session.networks.encoder.parameters():
                parameter *= 1.001
        signs.measure("joint", 0, trains_encoder=True, uses_generator=False, batches=batches)
        assert ("learns nothing" in caplog.text) is told
