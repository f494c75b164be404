"""Pre-training an encoder: it learns, goes on where it stopped, and writes what Encoder.load reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from jgcl_ray import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import CUTOUTS, Cutouts
from jgcl_ray.models.encoder_files import read_header
from jgcl_ray.models.origin import packed, unpacked
from jgcl_ray.pretrain import main
from jgcl_ray.pretraining import encoder as module
from jgcl_ray.pretraining import loop
from jgcl_ray.pretraining.command import write_encoder
from jgcl_ray.pretraining.encoder import Learner, train, trained
from jgcl_ray.pretraining.pictures import Drawing, draw_identities
from jgcl_ray.pretraining.recipe import EncoderRecipe
from jgcl_ray.writer_lock import only_writer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RECIPE = EncoderRecipe(backbone="osnet_x0_25", height=48, width=24, figures=4, steps=4, people=4, images=2, seed=3)


@pytest.fixture
def rendered(street: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ensure_cutouts", lambda *given: street)


@pytest.mark.usefixtures("rendered")
def test_stopped_and_resumed_is_the_same_as_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    assert [progress.step for progress in train(RECIPE, tmp_path / "whole", CPU)] == [1, 2, 3, 4]
    for progress in train(RECIPE, tmp_path / "stopped", CPU):
        if progress.step == 2:
            break
    assert [progress.step for progress in train(RECIPE, tmp_path / "stopped", CPU)] == [3, 4]
    assert not list(train(RECIPE, tmp_path / "stopped", CPU))  # nothing is left to do
    whole, _ = trained(tmp_path / "whole", RECIPE)
    stopped, seconds = trained(tmp_path / "stopped", RECIPE)
    assert seconds > 0
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, stopped.state_dict()[name]), name


def test_a_length_in_minutes_counts_the_time_that_was_spent() -> None:
    recipe = replace(RECIPE, steps=None, minutes=2.0)
    assert [recipe.share(step=9, seconds=seconds) for seconds in (0, 60, 120, 500)] == [0, 0.5, 1, 1]
    assert RECIPE.share(step=1, seconds=1e6) == 0.25


def test_it_learns(street: Cutouts) -> None:
    """A few pictures by heart."""
    learner = Learner(replace(RECIPE, steps=60), CPU)
    batch = draw_identities(street, Drawing(CUTOUTS, 4, 2, (48, 24)), seed=0, number=0, hardness=0)
    before = {name: float(term) for name, term in learner.learn(batch)[0].items()}
    for _ in range(24):
        terms, right = learner.learn(batch)
    assert right == 1 and all(terms[name] < before[name] for name in before)


@pytest.mark.usefixtures("rendered")
def test_another_recipe_is_refused(tmp_path: Path) -> None:
    list(train(replace(RECIPE, steps=1), tmp_path / "state", CPU))
    with pytest.raises(UserError, match=r"state is of another training, .*: give --out another file, or delete it"):
        list(train(replace(RECIPE, seed=4), tmp_path / "state", CPU))


@pytest.mark.parametrize("damage", ["cut", "text", "less"])
def test_a_damaged_state_is_named(damage: str, tmp_path: Path) -> None:
    path, learner = tmp_path / "state", Learner(RECIPE, CPU)
    learner.save(path)
    if damage == "less":
        torch.save({"recipe": vars(RECIPE)}, path)
    else:
        path.write_bytes(path.read_bytes()[:999] if damage == "cut" else b"no state")
    with pytest.raises(UserError, match=r"state: damaged \(.*\); delete it, the training begins anew"):
        learner.load(path)


@pytest.mark.usefixtures("rendered")
def test_the_command_writes_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    sizes = ["--figures", "4", "--people", "4", "--images", "2", "--height", "48", "--width", "24"]
    main(["encoder", "--out", str(out), "--steps", "2", *sizes, "--backbone", "osnet_x0_25", "--threads", "1"])
    assert "step 2 of 2" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    made = read_header(out)
    assert "--figures 4 --steps 2 --people 4" in made["command"] and "--out mine.safetensors" in made["command"]
    assert json.loads(made["recipe"])["seed"] == 0 and float(made["minutes"]) >= 0
    encoder = Encoder.load(out, "cpu")
    assert (encoder.height, encoder.width) == (48, 24)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 30, 3), dtype=np.uint8))
    assert encoder.embed([picture]).shape == (1, 512)


@pytest.mark.usefixtures("rendered")
def test_it_goes_on_from_an_encoder(street: Cutouts, tmp_path: Path) -> None:
    file = tmp_path / "before.safetensors"
    before = Learner(RECIPE, CPU)
    write_encoder(before.network.encoder, RECIPE, file, {})
    recipe = replace(RECIPE, init=str(file), seed=4)
    learner = Learner(recipe, CPU)
    first, held = learner.network.encoder.state_dict(), unpacked(packed(before.network.encoder))
    assert all(torch.equal(first[name], held[name]) for name in held)
    assert recipe.hardness(0) == 1.0 and RECIPE.hardness(0) == 0.0

    learner.point_classifier(street)
    directions = functional.normalize(learner.network.classifier.detach(), dim=1)
    seen = draw_identities(street, Drawing(CUTOUTS, 4, 2, (48, 24)), recipe.seed, 0, 0.0, np.arange(4))
    mean, std = learner._normal
    with torch.no_grad():
        found = functional.normalize(learner.network.encoder.eval()((seen.pictures - mean) / std).embedding, dim=1)
    assert directions.isfinite().all() and float((directions[:4] * found.view(2, 4, -1).mean(0)).sum(1).min()) > 0.9
    assert [progress.step for progress in train(recipe, tmp_path / "state", CPU)][-1] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "weights.pt"], "the name must end in .safetensors"),
        (["--out", "no/folder.safetensors"], "there is no folder"),
        (["--backbone", "vgg"], "--backbone vgg: unknown; known: resnet18"),
        (["--steps", "3", "--minutes", "2"], "--steps and --minutes: give one of them"),
        (["--init", "rendered", "--backbone", "osnet_x0_25"], "to start from it set encoder.backbone=resnet18_ibn_a"),
        (["--init", "none.safetensors"], "none.safetensors: no such file"),
        (["--images", "9"], "there are 8 cut-outs of each person"),
        (["--people", "7"], "give a multiple of 2"),
        (["--people", "62", "--figures", "40"], "from 60"),
        (["--workers", "2", "--minutes", "1"], "of one mind about --steps only"),
        (["--minutes", "0"], "'0' is not a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["encoder", "--out", "mine.safetensors", *arguments])
    assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["encoder", "generator", "estimator"])
def test_two_at_once_do_not_share_a_file(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    with only_writer(tmp_path, lock=".mine.safetensors.lock"), pytest.raises(SystemExit) as ended:
        main([kind, "--out", str(out), "--steps", "1"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "writes there since" in said and "give another --out" in said and not list(tmp_path.iterdir())
