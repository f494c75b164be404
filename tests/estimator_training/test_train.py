"""Training: it learns, goes on where it stopped with the same numbers, and writes what the estimator reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training import train as module
from jgcl_ray.estimator_training.command import write_weights
from jgcl_ray.estimator_training.cutouts import Cutouts
from jgcl_ray.estimator_training.pictures import draw_pictures
from jgcl_ray.estimator_training.train import Learner, Recipe, train, trained
from jgcl_ray.meshes.estimator import WEIGHTS, load_estimator, weights_metadata
from jgcl_ray.pretrain import main

CPU = torch.device("cpu")
RECIPE = Recipe(figures=4, steps=4, batch=4, seed=3)


@pytest.fixture
def rendered(cutouts: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ensure_cutouts", lambda figures, seed, workers=None: cutouts)


@pytest.mark.usefixtures("one_thread", "rendered")
def test_stopped_and_resumed_is_the_same_as_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)
    steps = [progress.step for progress in train(RECIPE, tmp_path / "whole", CPU)]
    assert steps == [1, 2, 3, 4]
    for progress in train(RECIPE, tmp_path / "stopped", CPU):
        if progress.step == 2:
            break
    assert [progress.step for progress in train(RECIPE, tmp_path / "stopped", CPU)] == [3, 4]
    whole, _ = trained(tmp_path / "whole", RECIPE)
    stopped, seconds = trained(tmp_path / "stopped", RECIPE)
    assert seconds > 0
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, stopped.state_dict()[name]), name


@pytest.mark.usefixtures("one_thread", "rendered")
def test_two_drawers_draw_what_one_does(tmp_path: Path) -> None:
    for drawers in (1, 2):
        list(train(RECIPE, tmp_path / str(drawers), CPU, drawers))
    one, two = (trained(tmp_path / str(drawers), RECIPE)[0].state_dict() for drawers in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.usefixtures("one_thread")
def test_it_learns(cutouts: Cutouts) -> None:
    """A few pictures by heart."""
    learner = Learner(Recipe(steps=60, batch=8), CPU)
    batch = draw_pictures(cutouts, 8, seed=0, number=0, hardness=0)
    before = {name: float(term) for name, term in learner.learn(batch)[0].items()}
    for _ in range(39):
        terms, error = learner.learn(batch)
    for name in ("yaw", "joints", "silhouette", "pose", "pitch"):
        assert terms[name] < before[name], name
    assert error < 20


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("able", [False, True])
def test_bf16_where_the_processor_has_it(able: bool, cutouts: Cutouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "computes_bf16", lambda device: able)
    learner, seen = Learner(Recipe(steps=2, batch=2), CPU), set()
    first = next(part for part in learner.network.modules() if isinstance(part, torch.nn.Conv2d))
    first.register_forward_hook(lambda layer, given, found: seen.add(found.dtype))
    learner.learn(draw_pictures(cutouts, 2, seed=0, number=0, hardness=0))
    assert seen == {torch.bfloat16 if able else torch.float32}


@pytest.mark.usefixtures("one_thread", "rendered")
def test_another_recipe_is_refused(tmp_path: Path) -> None:
    list(train(replace(RECIPE, steps=1), tmp_path / "state", CPU))
    with pytest.raises(UserError, match=r"state is of another training, .*: give --out another file, or delete it"):
        list(train(replace(RECIPE, steps=1, seed=4), tmp_path / "state", CPU))


@pytest.mark.usefixtures("one_thread", "rendered")
def test_the_command_writes_weights_that_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    main(["estimator", "--out", str(out), "--figures", "4", "--steps", "2", "--batch", "4", "--threads", "1"])
    assert "step 2 of 2" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    made = weights_metadata(out)
    assert "--steps 2 --batch 4 --seed 0" in made["command"] and out.stat().st_size < 8 * 2**20
    network = load_estimator(out)
    write_weights(network, tmp_path / "again.safetensors", made)
    again = load_estimator(tmp_path / "again.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    for wrong in ("weights.pt", "no/folder.safetensors"):
        with pytest.raises(SystemExit) as end:
            main(["estimator", "--out", str(tmp_path / wrong)])
        assert end.value.code == 2


@pytest.mark.usefixtures("one_thread", "rendered")
def test_init_goes_on_from_weights_and_is_told_in_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["estimator", "--figures", "4", "--steps", "1", "--batch", "4", "--threads", "1", "--out"]
    main([*arguments, "first.safetensors"])
    main([*arguments, "second.safetensors", "--init", "first.safetensors"])
    first, second = load_estimator(Path("first.safetensors")), load_estimator(Path("second.safetensors"))
    other = load_estimator(WEIGHTS)
    change, distance = (
        torch.cat([(a - b).flatten() for a, b in zip(one.parameters(), first.parameters(), strict=True)]).norm()
        for one in (second, other)
    )
    assert 0 < change < 0.1 * distance
    made = weights_metadata(Path("second.safetensors"))
    assert "--init first.safetensors" in made["command"]
    assert json.loads(made["before"])["command"] == weights_metadata(Path("first.safetensors"))["command"]
    capsys.readouterr()
    Path("none.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as end:
        main([*arguments, "third.safetensors", "--init", "none.safetensors"])
    assert end.value.code == 2 and "none.safetensors" in capsys.readouterr().err
