"""What cannot work is refused before anything starts, in a line that names the field."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import configured

from jgcl_ray.batches import PseudoLabels
from jgcl_ray.config import PseudoLabelsConfig, load_config
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.errors import UserError
from jgcl_ray.models.networks import build_networks
from jgcl_ray.pseudo_labels.clustering import advice, pseudo_labels
from jgcl_ray.training import prepare
from jgcl_ray.training.checkpoint import Checkpoints, Position, Saved, checkpoint_name, newest_in
from jgcl_ray.training.prepare import plan_run
from jgcl_ray.training.starts import load_start
from jgcl_ray.training.step import NonFiniteLossError
from jgcl_ray.training.summary import describe, memory
from jgcl_ray.wording import counted

WARM_UP = "run.stages=[warmup]"
REFUSED = {
    "one image with batch norm": (["data.batch_size=1"], r"data\.batch_size = 1: batch norm needs 2 images"),
    "one image in the warm-up": (
        ["data.identities_per_batch=1", "data.images_per_identity=1"],
        r"identities_per_batch x .* = 1: batch norm",
    ),
    "one image each": (
        ["data.batch_size=2", "scaling.num_workers=2"],
        r"data\.batch_size = 2 leaves 1 image to each of 2 workers",
    ),
    "one image each of the most workers": (
        ["data.batch_size=4", "scaling.num_workers=4", "scaling.min_workers=4", "data.identities_per_batch=4"],
        r"data\.batch_size = 4 leaves 1 image to each of 4 workers",
    ),
    "scales": (
        ["discriminator.scales=9"],
        r"discriminator\.scales=9: images of .*=80 .*=40 .* \d scales at most",
    ),
    "a batch beyond the data": (["data.batch_size=100000"], r"batch_size=100000 is more than the 16 images"),
    "people beyond the data": ([WARM_UP, "data.identities_per_batch=100000"], r"identities_per_batch=100000 is more"),
    "photos beyond the data": ([WARM_UP, "data.images_per_identity=100000"], r"images_per_identity=100000 is more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(walkers: Path, tmp_path: Path, case: str) -> None:
    settings, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        plan_run(configured(walkers, tmp_path, *settings))


@pytest.mark.parametrize(
    "settings",
    [
        ["data.batch_size=2", "scaling.num_workers=2", "scaling.sync_batch_norm=true"],
        ["data.batch_size=1", "run.stages=[warmup,generation]"],  # where the encoder is frozen
        ["data.batch_size=16", "discriminator.scales=2"],
        ["encoder.backbone=efficientnet_lite0"],  # whose buffers are made of constants
    ],
)
def test_what_fits_is_not(walkers: Path, tmp_path: Path, settings: list[str]) -> None:
    plan_run(configured(walkers, tmp_path, *settings))


def folder_of(walkers: Path, folder: Path, images: int) -> Path:
    folder.mkdir(parents=True)
    for photo in sorted((walkers / "bounding_box_train").glob("*.jpg"))[:images]:
        shutil.copy(photo, folder)
    return folder.parent


@pytest.mark.parametrize(
    ("images", "settings", "said"),
    [
        (1, [], r"1 image to train on, .*; give more images"),
        (3, ["pseudo_labels.min_samples=4"], r"3 images to train on, and a cluster takes \S+ = 4; give more"),
        (4, ["pseudo_labels.single_camera=drop"], r"=drop: all 4 images of \S+ are of one camera"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*all training images are from one camera")
def test_too_little_to_learn_from(walkers: Path, tmp_path: Path, images: int, settings, said: str) -> None:
    root = folder_of(walkers, tmp_path / "crops" / "door", images)
    with pytest.raises(UserError, match=said):
        plan_run(configured(root, tmp_path, "data.name=folder", "meshes.source=upright", *settings))


def test_cameras_that_are_not_known_are_missed_at_once(
    walkers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder_of(walkers, tmp_path / "crops", 6) / "crops"
    settings = ("data.name=folder", "meshes.source=upright", "pseudo_labels.single_camera=drop")
    with pytest.raises(UserError, match="single_camera=drop needs the camera of each image"):
        plan_run(configured(root, tmp_path, *settings))
    proxies = ("joint.recipe=cluster_contrast", "cluster_contrast.proxy_weight=0.5")
    plan_run(configured(root, tmp_path, *settings[:2], *proxies))
    assert "images of unknown cameras, so nothing is learnt across cameras" in caplog.text
    caplog.clear()
    with pytest.warns(UserWarning, match="from one camera .crops., so nothing is learnt across") as told:
        plan = plan_run(configured(root.parent, tmp_path, *settings[:2], *proxies))
    assert len(told) == 1 and not caplog.text  # once
    assert "camera proxies" not in " ".join(describe(plan, "one process").values())


def test_a_size_that_suits_no_generator_is_refused_where_one_draws(walkers: Path, tmp_path: Path) -> None:
    size = ("data.height=81", "data.width=43")
    plan = plan_run(
        configured(walkers, tmp_path, *size, "run.stages=[warmup,joint]", "joint.recipe=cluster_contrast")
    )
    assert memory(plan)
    with pytest.raises(UserError, match="81 x 43 do not suit the generator"):
        memory(plan_run(configured(walkers, tmp_path, *size)))


def test_a_start_that_is_no_checkpoint(walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"run.init_from={tmp_path}: no checkpoint here; give a run folder"):
        plan_run(configured(walkers, tmp_path, f"run.init_from={tmp_path}"))
    with pytest.raises(UserError, match=r"run\.init_from=.*nowhere: not there; give"):
        plan_run(configured(walkers, tmp_path, f"run.init_from={tmp_path}/nowhere"))


def test_a_run_folder_stands_for_its_best_checkpoint_as_a_start(walkers: Path, tmp_path: Path) -> None:
    before = configured(walkers, tmp_path, "run.name=before")
    networks = build_networks(before)
    first = networks.encoder.state_dict()["backbone.conv1.weight"].clone()
    checkpoints = Checkpoints(tmp_path / "before" / "checkpoints", keep=2)
    for step in (1, 2):
        position = Position(0, step, 0, step)
        name = checkpoint_name("warmup", position)
        checkpoints.save(name, networks, Saved(position, before.model_dump(mode="json"), {}, {}))
        if step == 1:
            checkpoints.mark_best(checkpoints.folder / name)
        torch.nn.init.zeros_(networks.encoder.backbone.conv1.weight)
    given = configured(walkers, tmp_path, f"run.init_from={tmp_path / 'before'}")
    started = build_networks(given)
    load_start(given.run.init_from, started, given.encoder)
    assert torch.equal(started.encoder.state_dict()["backbone.conv1.weight"], first)
    assert newest_in(tmp_path / "before").name == name  # to go on from; and so for run.resume


def test_advice_is_of_what_is_the_matter() -> None:
    config = PseudoLabelsConfig(k1=4, k2=2, eps=0.5, min_samples=2, single_camera="drop")
    draw = np.random.default_rng(0)
    people = draw.normal(size=(2, 8)).repeat(8, axis=0) + 0.01 * draw.normal(size=(16, 8))
    features = (people / np.linalg.norm(people, axis=1, keepdims=True)).astype(np.float32)
    found = pseudo_labels(features, config, np.repeat([1, 2], 8), threads=1)
    assert found.num_clusters == 0 and found.dropped >= 2
    assert f"{counted(found.dropped, 'cluster')}, each of one camera and dropped" in (advice(found, config) or "")
    few = PseudoLabels(np.full(3, -1), 0.5, 0, 3)
    assert "3 images, and a cluster takes pseudo_labels.min_samples = 4" in (advice(few, PseudoLabelsConfig()) or "")


@pytest.mark.parametrize(
    "setting",
    [
        *(f"{name}={seed}" for name in ("run.seed", "walkers.seed", "warmup.source_seed") for seed in (-1, 10**20)),
        *(f"optim.adam_betas={betas}" for betas in ("[0,1]", "[1,0.9]", "[-0.1,0.9]")),
        "data.height=0",
    ],
)
def test_numbers_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match=setting.partition("=")[0].replace(".", r"\.")):
        load_config(None, [setting])


def test_identities_of_twenty_digits_are_named(walkers: Path, tmp_path: Path) -> None:
    root = shutil.copytree(walkers, tmp_path / "set", ignore=shutil.ignore_patterns("meshes"))
    photo = min((root / "query").glob("*.jpg"))
    photo.rename(photo.with_name("12345678901234567890_c1s1_000001_00.jpg"))
    with pytest.raises(UserError, match=r"12345678901234567890_c1\S+: identity \d{20} has more than 18"):
        open_dataset(load_config(None, [f"data.root={root}"]).data)


def test_a_loss_that_is_no_number_ends_in_one_line_with_a_remedy() -> None:
    error = NonFiniteLossError("image_cycle", 7, [3, 4]).naming(["a.jpg", "b.jpg"])
    assert isinstance(error, UserError) and "\n" not in str(error)
    for part in ("image_cycle", "step 7", "a.jpg, b.jpg", "optim.encoder_lr", "precision.dtype=float32"):
        assert part in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.rows) == (NonFiniteLossError, str(error), (3, 4))


def test_a_generator_without_a_loss_is_refused(walkers: Path, tmp_path: Path) -> None:
    kinds = {"image": ("reconstruction", "cycle"), "feature": ("reconstruction", "novel", "cycle")}
    kinds["adversarial"] = ("reconstruction", "novel", "cycle")
    zero = [f"losses.{kind}_{fake}=0" for kind, fakes in kinds.items() for fake in fakes]
    with pytest.raises(UserError, match="the generator has nothing to learn from"):
        plan_run(configured(walkers, tmp_path, *zero))
    plan_run(configured(walkers, tmp_path, *zero[:-1]))


@pytest.mark.parametrize("field", ["init_from", "resume"])
def test_a_start_is_looked_at_before_data_are_rendered(
    field: str, walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_open", lambda config: pytest.fail("the data set was opened"))
    with pytest.raises(UserError, match=str(tmp_path)):
        plan_run(configured(walkers, tmp_path, f"run.{field}={tmp_path}"))
