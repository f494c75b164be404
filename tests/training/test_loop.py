"""The three stages on a handful of walkers, without Ray: stopping, going on and sharing the work change nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from tiny_run import configured, records
from torch import nn
from worker_group import run_workers

from jgcl_ray.config import Config, EncoderConfig
from jgcl_ray.config_sections import STAGES
from jgcl_ray.data.samplers import Shard
from jgcl_ray.errors import UserError
from jgcl_ray.models.encoder import EncoderOutput, IdentityEncoder
from jgcl_ray.models.encoder_files import read_tensors
from jgcl_ray.models.shipped import shipped
from jgcl_ray.training import pictures, worker
from jgcl_ray.training.checkpoint import Position
from jgcl_ray.training.loop import Outcome, is_recorded
from jgcl_ray.training.prepare import InProcess, open_folder, plan_run
from jgcl_ray.training.scoring import Scorer
from jgcl_ray.training.seen_photos import SeenPhotos
from jgcl_ray.training.worker import STOP, clear, work

VITAL = {"encoder_moved", "view_sharpness", "discriminator_margin", "view_rank1", "photo_rank1"}

pytestmark = pytest.mark.usefixtures("one_thread")


def start(config: Config) -> Outcome:
    plan = plan_run(config)
    open_folder(plan)
    clear(plan.folder)
    return work(plan, InProcess(config.pseudo_labels), Shard(), torch.device("cpu"))


def stop_after(last: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the run in `folder` to stop after a step."""
    done = worker.WorkerHooks.batch_done

    def stop(self: worker.WorkerHooks, stage, epoch, batch, batches, step, numbers) -> None:
        done(self, stage, epoch, batch, batches, step, numbers)
        if step == last:
            (folder / STOP).touch()

    monkeypatch.setattr(worker.WorkerHooks, "batch_done", stop)


@pytest.fixture(scope="module")
def undisturbed(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    outcome = start(configured(walkers, root))
    assert outcome.scores is not None and 0 < outcome.scores.mAP <= 1
    return root / "walkers"


@pytest.fixture(scope="module", autouse=True)
def curves_are_drawn_once(undisturbed: Path) -> Iterator[None]:
    """By the undisturbed run. They take a third of a run as small as these."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "_drawn", lambda panels, stages: Image.new("RGB", (8, 8)))
        yield


def test_run_folder_holds_what_others_rely_on(undisturbed: Path) -> None:
    assert (undisturbed / "config.yaml").is_file()
    assert (undisturbed / "checkpoints" / "latest" / "encoder.safetensors").is_file()
    assert (undisturbed / "checkpoints" / "best" / "encoder.safetensors").is_file()
    links = [(undisturbed / "checkpoints" / link).resolve() for link in ("best", "latest")]
    assert links[0] == links[1]  # without a score to trust, the last
    lines = records(undisturbed)
    assert [line["stage"] for line in lines] == sorted(
        (line["stage"] for line in lines), key=["warmup", "generation", "joint"].index
    )
    assert {"cluster_contrast", "generator_total", "discriminator_total", "contrast_image"} <= set().union(*lines)
    steps = [line["step"] for line in lines if "generator_total" in line or "cluster_contrast" in line]
    assert steps == list(range(1, len(steps) + 1))
    assert any("mAP" in line and "label_agreement_mAP" in line for line in lines)
    signs = VITAL
    seen = {stage: signs & set().union(*(line for line in lines if line["stage"] == stage)) for stage in STAGES}
    assert seen == {"warmup": {"encoder_moved"}, "generation": signs - {"encoder_moved"}, "joint": signs}


@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3, 4, 5, 6]), (4, [3, 4]), (5, [3, 5]), (99, [3, 6])])
def test_every_epoch_has_a_record_of_its_losses(every: int, steps: list[int]) -> None:
    """Two epochs of three steps."""
    done = [Position(step=step, batch=(step - 1) % 3 + 1) for step in range(1, 7)]
    found = [one.step for one in done if is_recorded(one, 3, every)]
    assert found == steps


def test_the_encoder_before_the_stage_competes_for_the_best(
    walkers: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored before the first batch, on the first epoch's labelling, and the best where training only harms."""
    falling = iter([0.9, 0.4])
    score = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, step: score(self, step) | {"mAP": next(falling)})
    weights = undisturbed / "checkpoints" / "latest"
    recipe = ("run.stages=[joint]", "joint.recipe=cluster_contrast", "cluster_contrast.batches_per_epoch=1")
    by_test = ("eval.select_on=test", "eval.every=2")
    start(configured(walkers, tmp_path, *recipe, f"run.init_from={weights}", "joint.epochs=2", *by_test))
    checkpoints = tmp_path / "walkers" / "checkpoints"
    assert (checkpoints / "best").resolve().name == "step0000000-stage1-joint-epoch000"
    same = "encoder.safetensors"
    assert (checkpoints / "best" / same).read_bytes() == (weights / same).read_bytes()
    scored = [(line["epoch"], line["step"], line["mAP"]) for line in records(tmp_path / "walkers") if "mAP" in line]
    assert scored == [(0, 0, 0.9), (1, 2, 0.4)]
    assert len(list((tmp_path / "walkers" / "pictures").glob("surface_views*"))) == 1


CONTRAST = """
    joint.recipe=cluster_contrast data.other_cameras_first=true
    cluster_contrast.proxy_weight=0.5 pseudo_labels.mirrored=true pseudo_labels.camera_means=true
    cluster_contrast.batches_per_epoch=2
""".split()


@pytest.mark.parametrize("views", [False, True])
def test_cluster_contrast_in_place_of_the_joint_stage(
    views: bool, walkers: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder alone, without projections, or with views of people; stopped between batches, it goes on alike."""
    bodies = ("cluster_contrast.views_every=2",) if views else ("meshes.source=folders", "meshes.root=/nowhere")
    weights = undisturbed / "checkpoints" / "latest"
    settings = (*CONTRAST, *bodies, "run.stages=[joint]", f"run.init_from={weights}")
    assert start(configured(walkers, tmp_path / "whole", *settings)).scores is not None
    folder = tmp_path / "whole" / "walkers"
    joint = [line for line in records(folder) if "cluster_contrast" in line]
    assert [line["stage"] for line in joint] == ["joint"] * 2
    assert all(line["camera_proxies"] > 0 for line in joint)
    for term in ("view_cluster_contrast", "view_camera_proxies"):
        assert all(line[term] > 0 if views else term not in line for line in joint)
    assert len(list((folder / "pictures").glob("*views*"))) == views
    measured = {"view_sharpness", "view_rank1", "photo_rank1"}
    closed = [line for line in records(folder) if "encoder_moved" in line]
    assert closed and all((measured <= line.keys()) == views for line in closed)
    assert not any("discriminator_margin" in line for line in closed)

    stop_after(1, tmp_path / "halves" / "walkers", monkeypatch)
    assert start(configured(walkers, tmp_path / "halves", *settings)).interrupted
    monkeypatch.undo()
    assert not start(configured(walkers, tmp_path / "halves", *settings)).interrupted
    assert records(tmp_path / "halves" / "walkers") == records(folder)


def test_tracklets_are_labelled_together_and_found_again(walkers: Path, tmp_path: Path) -> None:
    root = shutil.copytree(walkers, tmp_path / "tracked")
    names = sorted(path.name for path in (root / "bounding_box_train").glob("*.jpg"))
    visits = sorted({name[:7] for name in names})  # identity and camera
    rows = [f"bounding_box_train/{name},{visits.index(name[:7])},{place}" for place, name in enumerate(names)]
    (root / "tracks.csv").write_text("\n".join(["name,tracklet,time", *rows]) + "\n")
    settings = ["run.stages=[warmup]", "warmup.epochs=2", "pseudo_labels.k1=3"]
    start(configured(root, tmp_path, *settings))
    lines = records(tmp_path / "walkers")
    assert [line["tracklets"] for line in lines if "tracklets" in line] == [len(visits)] * 2
    scored = {line["step"]: line["validation_tracklets_mAP"] for line in lines if "validation_tracklets_mAP" in line}
    assert len(scored) == 2 and all(0 < value <= 1 for value in scored.values())


@pytest.mark.parametrize("stop_at", [pytest.param(step, marks=pytest.mark.slow) for step in (1, 4)] + [8])
def test_stopped_and_resumed_equals_undisturbed(
    walkers: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Stopped in the warm-up, the generator's stage and the joint stage, between two batches."""
    config = configured(walkers, tmp_path)
    stop_after(stop_at, tmp_path / "walkers", monkeypatch)
    assert start(config).interrupted
    monkeypatch.undo()
    assert not start(config).interrupted
    assert records(tmp_path / "walkers") == records(undisturbed)


def test_photos_of_the_generator_s_stage_are_encoded_once(
    walkers: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = undisturbed / "checkpoints" / "latest"
    settings = ("run.stages=[generation]", "generation.epochs=2", f"run.init_from={weights}")
    of, known = SeenPhotos.of, []

    def recorded(self: SeenPhotos, index: torch.Tensor) -> EncoderOutput | None:
        found = of(self, index)
        known.append(found is not None)
        return found

    monkeypatch.setattr(SeenPhotos, "of", recorded)
    start(configured(walkers, tmp_path / "kept", *settings))
    assert known == [False] * (len(known) // 2) + [True] * (len(known) // 2)
    monkeypatch.setattr(SeenPhotos, "of", lambda self, index: None)
    start(configured(walkers, tmp_path / "anew", *settings))
    assert records(tmp_path / "kept" / "walkers") == records(tmp_path / "anew" / "walkers")


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
    with pytest.raises(UserError, match="the encoder would start random; give a checkpoint"):
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


def test_no_warm_up_needs_an_encoder_too(walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"warmup\.mode=none: the encoder would start random"):
        plan_run(configured(walkers, tmp_path, "warmup.mode=none"))


@pytest.mark.slow
def test_without_a_warm_up_the_first_step_is_the_generators(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    weights = undisturbed / "checkpoints" / "latest"
    start(configured(walkers, tmp_path, "warmup.mode=none", f"run.init_from={weights}"))
    assert next(line["stage"] for line in records(tmp_path / "walkers")) == "generation"


def test_a_source_is_blamed_by_its_own_names(walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"say in warmup\.source_root"):
        plan_run(configured(walkers, tmp_path, "warmup.mode=source", "warmup.source=market1501"))
    with pytest.raises(UserError, match=r"warmup\.source_root|nowhere"):
        nowhere = f"warmup.source_root={tmp_path / 'nowhere'}"
        plan_run(configured(walkers, tmp_path, "warmup.mode=source", "warmup.source=market1501", nowhere))


@pytest.mark.slow
def test_an_encoder_alone_starts_a_run(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    weights = undisturbed / "checkpoints" / "latest" / "encoder.safetensors"
    start(configured(walkers, tmp_path, "run.stages=[generation]", f"run.init_from={weights}"))
    assert {line["stage"] for line in records(tmp_path / "walkers")} == {"generation"}


@pytest.mark.slow
def test_a_file_of_torchreid_starts_generator_and_joint_stage(walkers: Path, tmp_path: Path) -> None:
    state = IdentityEncoder(EncoderConfig(backbone="osnet_x0_25", weights="random")).backbone.state_dict()
    weights = tmp_path / "osnet_x0_25_msmt17.pt"
    torch.save({name: value for name, value in state.items() if "generated_" not in name}, weights)
    fields = ["encoder.backbone=osnet_x0_25", "warmup.mode=none", f"run.init_from={weights}"]
    outcome = start(configured(walkers, tmp_path, *fields))
    assert outcome.scores is not None
    assert {line["stage"] for line in records(tmp_path / "walkers")} == {"generation", "joint"}


def test_a_run_starts_from_the_packages_encoder(walkers: Path, tmp_path: Path) -> None:
    recipe = ["run.init_from=rendered", "run.stages=[joint]", "joint.recipe=cluster_contrast"]
    with pytest.raises(
        UserError, match=r"run.init_from=rendered holds another encoder .*; to start from it "
    ) as told:
        start(configured(walkers, tmp_path, *recipe))
    settings = str(told.value).rpartition(" set ")[2].split()
    still = ["cluster_contrast.batches_per_epoch=1", "cluster_contrast.lr=1e-9", *settings]
    assert start(configured(walkers, tmp_path, *recipe, *still)).scores is not None
    found = load_file(tmp_path / "walkers" / "checkpoints" / "latest" / "encoder.safetensors")
    for name, tensor in read_tensors(shipped("rendered")).items():
        if tensor.ndim > 1:
            torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize("field", ["run.init_from", "encoder.weights_file"])
def test_weights_are_read_before_the_run(walkers: Path, tmp_path: Path, field: str) -> None:
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"cut\.pth: not a readable file"):
        plan_run(configured(walkers, tmp_path, "encoder.weights=imagenet", f"{field}={tmp_path / 'cut.pth'}"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("encoder.weights=random",), "not read with encoder.weights=random"),
        (("encoder.weights=imagenet", "run.init_from=rendered"), "run.init_from=rendered: two starts"),
    ],
)
def test_a_weights_file_that_would_not_be_read_is_named(
    walkers: Path, tmp_path: Path, settings: tuple[str, ...], named: str
) -> None:
    with pytest.raises(UserError, match=rf"encoder\.weights_file.*{named}"):
        plan_run(configured(walkers, tmp_path, *settings, f"encoder.weights_file={tmp_path / 'any.pth'}"))


def test_stages_go_by_either_name(walkers: Path, tmp_path: Path) -> None:
    assert configured(walkers, tmp_path, "run.stages=[warmup, generator, joint]").run.stages[1] == "generation"


def test_batch_norm_groups_that_do_not_fit_are_refused(walkers: Path, tmp_path: Path) -> None:
    group = "encoder.batch_norm_group=3"
    with pytest.raises(UserError, match=r"batch_norm_group=3 does not divide a worker's share of \d+ images"):
        plan_run(configured(walkers, tmp_path, group))
    with pytest.raises(UserError, match="contradict"):
        plan_run(configured(walkers, tmp_path, group, "scaling.sync_batch_norm=true"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [(), (*CONTRAST, "run.stages=[warmup,joint]", "cluster_contrast.views_every=2")],
    ids=["gcl", "contrast"],
)
def test_two_workers_do_what_one_does(
    recipe: tuple[str, ...], walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its half of every batch: labels, losses and scores are the same, in all stages."""
    monkeypatch.setattr(IdentityEncoder, "train", _never)
    start(configured(walkers, tmp_path / "one", "data.identities_per_batch=4", *recipe))
    run_workers(2, _one_of_two, tmp_path, walkers, tmp_path / "two", recipe)
    one, two = (records(tmp_path / root / "walkers") for root in ("one", "two"))
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for ours, theirs in zip(two, one, strict=True):
        for name, value in theirs.items():
            # Rounding grows with the joint stage's steps: losses move by a percent or two, views by more, a rank by
            # one of 16 images. Half a batch, other negatives or labels would move them by tens of percent.
            near = {"rel": 1e-2, "abs": 1e-3}
            if theirs["stage"] == "joint":
                near = {"rel": 0.2, "abs": 0.1} if name in VITAL else {"rel": 5e-2, "abs": 1e-2}
            same = value if isinstance(value, str) else pytest.approx(value, **near, nan_ok=True)
            assert ours[name] == same, (name, theirs["stage"])


def _one_of_two(rank: int, join: Callable[[], None], walkers: Path, root: Path, recipe: tuple[str, ...]) -> None:
    IdentityEncoder.train = _never  # type: ignore[method-assign]
    join()
    config = configured(walkers, root, "data.identities_per_batch=4", *recipe)
    plan = plan_run(config)
    if rank == 0:
        open_folder(plan)
    dist.barrier()
    work(plan, InProcess(config.pseudo_labels), Shard(rank, 2), torch.device("cpu"))


def _never(encoder: IdentityEncoder, mode: bool = True) -> IdentityEncoder:
    """Batch norm by running statistics: small batches enlarge rounding so much that nothing could be compared.

    That synchronised statistics are those of the whole batch is tested with the encoder.
    """
    return nn.Module.train(encoder, False)
