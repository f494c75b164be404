"""Pre-training a generator of views: it learns, goes on where it stopped, and writes what generate reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import SIDES, Cutouts
from jgcl_ray.models.encoder_files import read_header
from jgcl_ray.models.textured_generator import WEIGHTS, load_views, refined
from jgcl_ray.pretrain import main
from jgcl_ray.pretraining import generator as module
from jgcl_ray.pretraining import loop
from jgcl_ray.pretraining.generator import GeneratorLearner, train, trained
from jgcl_ray.pretraining.recipe import GeneratorRecipe
from jgcl_ray.pretraining.view_pairs import PairDrawing, draw_views

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RECIPE = GeneratorRecipe(
    height=32, width=16, figures=4, steps=4, photos=2, views=2, seed=3, adversarial_from=0.5, penalty_every=2
)


@pytest.fixture
def rendered(street: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ensure_cutouts", lambda *given: street)


@pytest.mark.usefixtures("rendered")
def test_stopped_and_resumed_is_the_same_as_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    told = list(train(RECIPE, tmp_path / "whole", CPU))
    assert [progress.step for progress in told] == [1, 2, 3, 4]
    assert set(told[0].terms) == {"pixels", "features"}
    assert set(told[2].terms) == {"pixels", "features", "adversarial", "judge", "penalty"}
    for progress in train(RECIPE, tmp_path / "stopped", CPU):
        if progress.step == 3:
            break
    assert [progress.step for progress in train(RECIPE, tmp_path / "stopped", CPU)] == [4]
    assert not list(train(RECIPE, tmp_path / "stopped", CPU))  # nothing is left to do
    states = [torch.load(tmp_path / name, weights_only=False) for name in ("whole", "stopped")]
    for network in ("network", "average", "judge"):
        for name, tensor in states[0][network].items():
            assert torch.equal(tensor, states[1][network][name]), (network, name)
    assert trained(tmp_path / "stopped", RECIPE)[1] > 0


def test_it_learns(street: Cutouts) -> None:
    """A few views by heart."""
    learner = GeneratorLearner(replace(RECIPE, steps=80, adversarial_from=2.0), CPU)
    batch = draw_views(street, PairDrawing(SIDES, 2, 2, (32, 16)), seed=0, number=0)
    before, gain = learner.learn(batch)
    assert float(gain) == 0  # at first views are the drafts
    for _ in range(50):
        terms, gain = learner.learn(batch)
    assert float(gain) > 1 and all(terms[name] < before[name] for name in before)


def test_the_judge_tells_views_from_true_ones(street: Cutouts) -> None:
    """As GCL's discriminator is initialised, the scores of both would stay alike."""
    learner = GeneratorLearner(replace(RECIPE, steps=400, adversarial_from=0.0, learning_rate=1e-9), CPU)
    batch = draw_views(street, PairDrawing(SIDES, 2, 2, (32, 16)), seed=0, number=0)
    terms = [learner.learn(batch)[0] for _ in range(40)]
    assert terms[-1]["judge"] < 0.8 * terms[0]["judge"]


@pytest.mark.usefixtures("rendered")
def test_another_recipe_is_refused(tmp_path: Path) -> None:
    list(train(replace(RECIPE, steps=1), tmp_path / "state", CPU))
    with pytest.raises(UserError, match=r"state is of another training, .*: give --out another file, or delete it"):
        list(train(replace(RECIPE, seed=4), tmp_path / "state", CPU))


@pytest.mark.usefixtures("rendered")
def test_the_command_writes_a_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    sizes = ["--figures", "4", "--photos", "2", "--views", "1", "--height", "32", "--width", "16"]
    main(["generator", "--out", str(out), "--steps", "2", *sizes, "--adversarial-weight", "0.02", "--threads", "1"])
    assert "step 2 of 2" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    made = read_header(out)
    asked = made["command"]
    assert "pretrain generator --figures 4 --steps 2 --photos 2 --views 1 " in asked
    assert "--adversarial-weight 0.02" in asked and "--out mine.safetensors" in asked
    assert json.loads(made["recipe"])["seed"] == 0 and float(made["minutes"]) >= 0 and made["size"] == "32 x 16"
    assert load_views(out).paint.weight.dtype == torch.float32


@pytest.mark.usefixtures("rendered")
def test_it_starts_from_other_weights(tmp_path: Path) -> None:
    given, out = tmp_path / "given.safetensors", tmp_path / "mine.safetensors"
    sizes = ["--figures", "4", "--photos", "2", "--views", "1", "--height", "32", "--width", "16", "--threads", "1"]
    main(["generator", "--out", str(given), "--steps", "3", *sizes])
    rate = ["--init", str(given), "--learning-rate", "1e-9"]
    main(["generator", "--out", str(out), "--steps", "1", *sizes, *rate])
    before, after = load_views(given).state_dict(), load_views(out).state_dict()
    assert before["paint.weight"].abs().max() > 0
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-3, rtol=0)
    assert json.loads(read_header(out)["before"]) == read_header(given)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "weights.pt"], "the name must end in .safetensors"),
        (["--steps", "3", "--minutes", "2"], "--steps and --minutes: give one of them"),
        (["--views", "4"], "--views 4: a pose is seen from 4 sides"),
        (["--height", "90"], "images of 90 x 48 do not suit"),
        (["--init", "none.safetensors"], "none.safetensors: no such file"),
        (["--photos", "3", "--workers", "2"], "--photos 3 does not divide by --workers 2"),
        (["--workers", "2", "--minutes", "1"], "of one mind about --steps only"),
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
        main(["generator", "--out", "mine.safetensors", *arguments])
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_the_package_s_weights_bring_drafts_nearer_to_the_true_views(street: Cutouts) -> None:
    """On people of another seed than they learnt from."""
    header, generator = read_header(WEIGHTS), load_views()
    assert json.loads(header["recipe"])["seed"] != 3 and "pretrain generator" in header["command"]
    assert WEIGHTS.stat().st_size < 5e6
    gains, better = [], []
    for number in range(4):
        batch = draw_views(street, PairDrawing(SIDES, 6, 3, (96, 48)), seed=0, number=number)
        views = refined(generator, batch.draft, batch.places, batch.photos, batch.photo_places)
        drafts, views = ((picture - batch.truth).abs().mean((1, 2, 3)) for picture in (batch.draft.picture, views))
        gains.append(1 - views.sum() / drafts.sum())
        better.append((views < drafts).float().mean())
    assert torch.stack(gains).mean() > 0.02 and torch.stack(better).mean() > 0.7
