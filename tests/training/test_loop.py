"""The three stages on a handful of walkers, in one process: stopping and going on changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from jgcl_ray.config import Config, load_config
from jgcl_ray.data.samplers import Shard
from jgcl_ray.data.walkers import WalkersSize, render
from jgcl_ray.errors import UserError
from jgcl_ray.training import worker
from jgcl_ray.training.loop import Outcome
from jgcl_ray.training.prepare import InProcess, open_folder, plan_run
from jgcl_ray.training.worker import STOP, clear, work

TINY = """
    data.height=80 data.width=40 data.cache=true data.loader_workers=0 data.identities_per_batch=3
    data.images_per_identity=2 data.batch_size=4 encoder.backbone=resnet18 encoder.weights=random
    encoder.embedding=32 generator.width=1 generator.style_width=8 discriminator.width=2 discriminator.scales=1
    warmup.epochs=1 warmup.batches_per_epoch=2 generation.epochs=1 joint.epochs=1 joint.decay_at=1 eval.every=1
    pseudo_labels.k1=4 pseudo_labels.k2=2 pseudo_labels.eps=0.7 pseudo_labels.min_samples=2 run.log_every=1
    tracking.enabled=false checkpoints.keep=1
""".split()


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "walkers"
    render(folder, WalkersSize(train=4, test=2, images=4, true_views=0, height=80), seed=2, workers=1)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configured(walkers: Path, root: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, f"data.root={walkers}", f"run.root={root}", *overrides])


def start(config: Config) -> Outcome:
    plan = plan_run(config)
    open_folder(plan)
    clear(plan.folder)
    return work(plan, InProcess(config.pseudo_labels), Shard(), torch.device("cpu"))


def records(folder: Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second")
    return [{name: value for name, value in line.items() if not name.startswith(timed)} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    outcome = start(configured(walkers, root))
    assert outcome.scores is not None and 0 < outcome.scores.mAP <= 1
    return root / "walkers"


def test_run_folder_holds_what_others_rely_on(undisturbed: Path) -> None:
    assert (undisturbed / "config.yaml").is_file()
    assert (undisturbed / "checkpoints" / "latest" / "encoder.safetensors").is_file()
    assert (undisturbed / "checkpoints" / "best" / "encoder.safetensors").is_file()
    lines = records(undisturbed)
    assert [line["stage"] for line in lines] == sorted(
        (line["stage"] for line in lines), key=["warmup", "generation", "joint"].index
    )
    assert {"cluster_contrast", "generator_total", "discriminator_total", "contrast_image"} <= set().union(*lines)
    steps = [line["step"] for line in lines if "generator_total" in line or "cluster_contrast" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert any("mAP" in line and "validation_mAP" in line for line in lines)


@pytest.mark.parametrize("stop_at", [pytest.param(step, marks=pytest.mark.slow) for step in (1, 4)] + [8])
def test_stopped_and_resumed_equals_undisturbed(
    walkers: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Stopped in the warm-up, the generator's stage and the joint stage, between two batches."""
    config = configured(walkers, tmp_path)
    done = worker.WorkerHooks.batch_done

    def stop(self: worker.WorkerHooks, stage, epoch, batch, batches, step, numbers) -> None:
        done(self, stage, epoch, batch, batches, step, numbers)
        if step == stop_at:
            (tmp_path / "walkers" / STOP).touch()

    monkeypatch.setattr(worker.WorkerHooks, "batch_done", stop)
    assert start(config).interrupted
    monkeypatch.undo()
    assert not start(config).interrupted
    assert records(tmp_path / "walkers") == records(undisturbed)


@pytest.mark.slow
def test_killed_between_checkpoints_repeats_and_counts_nothing_twice(
    walkers: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(walkers, tmp_path, "checkpoints.every_steps=3", "checkpoints.keep=2")
    done = worker.WorkerHooks.batch_done

    def die(self: worker.WorkerHooks, stage, epoch, batch, batches, step, numbers) -> None:
        done(self, stage, epoch, batch, batches, step, numbers)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(worker.WorkerHooks, "batch_done", die)
    with pytest.raises(KeyboardInterrupt):
        start(config)
    monkeypatch.undo()
    start(config)
    assert records(tmp_path / "walkers") == records(undisturbed)


@pytest.mark.slow
def test_truncated_newest_checkpoint_is_named_and_the_one_before_used(
    walkers: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = configured(walkers, tmp_path, "checkpoints.keep=2")
    done = worker.WorkerHooks.epoch_done

    def stop(self: worker.WorkerHooks, stage, epoch, step, numbers) -> None:
        done(self, stage, epoch, step, numbers)
        if stage == "generation":
            (tmp_path / "walkers" / STOP).touch()

    monkeypatch.setattr(worker.WorkerHooks, "epoch_done", stop)
    start(config)
    monkeypatch.undo()
    newest = (tmp_path / "walkers" / "checkpoints" / "latest").resolve()
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    start(config)
    assert newest.name in caplog.text and "state.pt is missing or damaged" in caplog.text
    assert records(tmp_path / "walkers") == records(undisturbed)


def test_folder_of_another_configuration_is_refused(walkers: Path, undisturbed: Path) -> None:
    config = configured(walkers, undisturbed.parent, "losses.image_cycle=4")
    with pytest.raises(UserError, match=r"another configuration \(losses.image_cycle: 5.0 there, 4.0 here\)"):
        start(config)


def test_generation_needs_an_encoder_that_learnt_something(walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="random encoder: give a checkpoint"):
        plan_run(configured(walkers, tmp_path, "run.stages=[generation]"))


def test_own_labels_are_no_source(walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"warmup\.source: .* without labels"):
        plan_run(configured(walkers, tmp_path, "warmup.mode=source", f"warmup.source_root={walkers}"))


@pytest.mark.slow
def test_one_stage_alone_starts_from_a_checkpoint(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    weights = undisturbed / "checkpoints" / "latest"
    config = configured(walkers, tmp_path, "run.stages=[generation]", f"run.init_from={weights}")
    start(config)
    assert {line["stage"] for line in records(tmp_path / "walkers")} == {"generation"}
