"""Pictures show what they say: pixels of the grid, curves and gaps of the plots."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import LossesConfig, StageName, load_config
from jgcl_ray.data.samplers import Shard
from jgcl_ray.data.transforms import normalise_images, normalise_meshes
from jgcl_ray.losses.reconstruction import Fake
from jgcl_ray.mlflow_mirror import METRICS
from jgcl_ray.run_log import NullRunLog
from jgcl_ray.training import pictures
from jgcl_ray.training.pictures import GAP, label_quality_plot, loss_curves, sample_grid
from jgcl_ray.training.prepare import Plan
from jgcl_ray.training.session import Session
from jgcl_ray.training.worker import WorkerHooks

Lines = dict[str, np.ndarray]
FAKES: tuple[Fake, ...] = ("reconstruction", "novel", "cycle")


@pytest.mark.parametrize("drawn", [FAKES, ("novel",)])
def test_grid_holds_every_image_at_its_place(drawn: tuple[Fake, ...]) -> None:
    """Plain tiles of 18 grey levels or colours, found again by their place; what is not drawn has no column."""
    height, width, count = 96, 48, 3
    colours = np.random.default_rng(0).integers(30, 226, (count, 6, 3), dtype=np.uint8)
    colours[:, [1, 3]] = colours[:, [1, 3], :1]  # projections are grey
    plain = np.broadcast_to(colours[:, :, None, None], (count, 6, height, width, 3)).copy()

    def images(column: int) -> torch.Tensor:
        return normalise_images(list(plain[:, column]))

    def meshes(column: int) -> torch.Tensor:
        return normalise_meshes(list(plain[:, column, :, :, 0]))

    views = torch.tensor([45, 180, 315])
    batch = PairedBatch(images(0), meshes(1), meshes(3), views, torch.arange(count))
    generated: dict[Fake, torch.Tensor] = {"reconstruction": images(2), "novel": images(4), "cycle": images(5)}
    sheet = np.asarray(sample_grid(batch, {fake: generated[fake] for fake in drawn}))
    columns = [0, 1, 2, 3, 4, 5] if drawn == FAKES else [0, 1, 3, 4]
    colours = colours[:, columns]

    across, down = 2 * width + GAP, 2 * height + GAP  # tiles of 96 pixels are doubled
    assert sheet.shape[1] == len(columns) * across + GAP
    top = sheet.shape[0] - count * down - GAP
    for i in range(count):
        for j, column in enumerate(columns):
            tile = sheet[top + GAP + i * down :, GAP + j * across :][: 2 * height, : 2 * width]
            lower = tile[height:]  # the degrees are written in an upper corner
            assert (lower == colours[i, j]).all(), (i, j, lower[0, 0], colours[i, j])
            assert (tile != colours[i, j]).any() == (column == 3)  # the novel projection
    header = sheet[:top]
    assert all((header[:, GAP + j * across :][:, : 2 * width] < 100).any() for j in range(len(columns))), (
        "a column has no name"
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lines]:
    """By the title of a panel the curves that are drawn in it, as (points, 2) by name."""
    panels: dict[str, Lines] = {}
    plot = Axes.plot

    def note(axes: Axes, x: np.ndarray, y: np.ndarray, **how: Any) -> Any:
        panels.setdefault(axes.get_title(), {})[how["label"].partition(":")[0]] = np.stack([x, y], axis=1)
        return plot(axes, x, y, **how)

    monkeypatch.setattr(Axes, "plot", note)
    return panels


def record(stage: str, epoch: int, step: int, **numbers: float | None) -> dict[str, Any]:
    return {
        "stage": stage,
        "epoch": epoch,
        "step": step,
        **{name.replace("_1", "-1"): x for name, x in numbers.items()},
    }


GAP_ROW = [np.nan, np.nan]


def test_labels_over_epochs_counted_on_over_stages(drawn: dict[str, Lines]) -> None:
    records = [
        record("warmup", 0, 0, num_clusters=40, num_outliers=9, eps=0.5),
        record("warmup", 0, 10, cluster_contrast=3.0),
        record("warmup", 1, 10, num_clusters=50, num_outliers=8, eps=None),
        record("generator", 0, 30, image_cycle=1.0),
        record("joint", 0, 30, num_clusters=60, num_outliers=7, eps=0.6, nmi=0.9),
    ]
    picture = label_quality_plot(records)
    assert isinstance(picture, Image.Image) and picture.mode == "RGB"
    titles = list(pictures.LABEL_PANELS)[:3]
    assert list(drawn) == titles
    counts, radius, agreement = (drawn[title] for title in titles)
    np.testing.assert_array_equal(counts["num_clusters"], [[1, 40], [2, 50], GAP_ROW, [4, 60], GAP_ROW])
    np.testing.assert_array_equal(radius["eps"], [[1, 0.5], [2, np.nan], GAP_ROW, [4, 0.6], GAP_ROW])
    np.testing.assert_array_equal(agreement["nmi"], [[4, 0.9], GAP_ROW])


def test_losses_over_steps_and_accuracy_over_epochs(drawn: dict[str, Lines]) -> None:
    records = [record("joint", step // 5, step, contrast_image=step, discriminator_total=2.0) for step in range(10)]
    records.append(record("joint", 1, 9, mAP=0.25, rank_1=0.5, seconds_train=3.0))
    loss_curves(records)
    assert drawn.keys() == {"contrastive losses", "losses of the discriminator", "accuracy"}
    np.testing.assert_array_equal(
        drawn["contrastive losses"]["contrast_image"], [*([s, s] for s in range(10)), GAP_ROW]
    )
    np.testing.assert_array_equal(drawn["accuracy"]["mAP"], [[2, 0.25], GAP_ROW])
    np.testing.assert_array_equal(drawn["accuracy"]["rank-1"], [[2, 0.5], GAP_ROW])


def test_the_encoder_as_it_came_is_scored_at_epoch_0(drawn: dict[str, Lines]) -> None:
    records = [
        record("warmup", 0, 0, mAP=0.1),
        record("warmup", 0, 5, mAP=0.2),
        record("joint", 0, 5, num_clusters=3),
        record("joint", 0, 9, mAP=0.3),
    ]
    loss_curves(records)
    np.testing.assert_array_equal(drawn["accuracy"]["mAP"], [[0, 0.1], [1, 0.2], GAP_ROW, [2, 0.3], GAP_ROW])


def test_one_epoch_has_one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    draw = FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: (figures.append(canvas.figure), draw(canvas))[1])
    label_quality_plot([record("joint", 0, 0, num_clusters=40, eps=0.5)])
    for axes in figures[0].axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_every_loss_term_has_a_curve(drawn: dict[str, Lines]) -> None:
    terms = {*LossesConfig.model_fields} - {"formulation", "gradient_penalty"}
    terms |= {"cluster_contrast", "camera_proxies", "generator_total", "discriminator_total"}
    loss_curves([record("joint", 0, step, **dict.fromkeys(terms, 1.0)) for step in (0, 10)])
    assert {name for panel in drawn.values() for name in panel} == terms


def test_long_curves_are_averaged(drawn: dict[str, Lines], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_POINTS", 4)
    loss_curves([record("joint", 0, step, contrast_image=2.0 * step) for step in range(8)])
    wanted = [[0.5, 1], [2.5, 5], [4.5, 9], [6.5, 13], GAP_ROW]
    np.testing.assert_array_equal(drawn["contrastive losses"]["contrast_image"], wanted)


@pytest.mark.parametrize(
    ("settings", "stage", "pictures"),
    [
        (["warmup.mode=unsupervised"], "warmup", ["losses", "labels"]),
        (["warmup.mode=source"], "warmup", ["losses"]),  # identities are given, nothing is clustered
        (["warmup.mode=source", "joint.recipe=cluster_contrast"], "joint", ["losses", "labels"]),
    ],
)
def test_labels_are_pictured_where_images_are_clustered(
    settings: list[str], stage: StageName, pictures: list[str], tmp_path: Path
) -> None:
    class Log(NullRunLog):
        names: list[str]

        def picture(self, name: str, image: Image.Image, step: int) -> None:
            self.names.append(name)

    log = Log()
    log.names = []
    config = load_config(None, [*settings, f"run.root={tmp_path}", "run.name=run"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / METRICS).write_text(json.dumps(record(stage, 1, 4, cluster_contrast=2.0)) + "\n")
    plan, session = (
        cast(Plan, SimpleNamespace(config=config, folder=tmp_path / "run")),
        SimpleNamespace(shard=Shard()),
    )
    hooks = WorkerHooks(plan, cast(Session, session), log, lambda numbers: None, lambda: False)
    hooks.epoch_done(stage, 1, 4, {})
    assert log.names == pictures


@pytest.mark.parametrize("plot", [label_quality_plot, loss_curves])
def test_nothing_to_draw_yet(plot: Any) -> None:
    assert plot([]).size == plot([record("joint", 0, 0, seconds_train=1.0)]).size
