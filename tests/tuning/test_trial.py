"""Following a run by its folder, without Ray: every evaluation once, in order; errors told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import configured, records

from jgcl_ray.errors import UserError
from jgcl_ray.training import stages
from jgcl_ray.training.run import train
from jgcl_ray.training.step import NonFiniteLossError
from jgcl_ray.tuning.trial import Evaluation, RunFollower, epochs_before, last_line, reason_of

LOCAL = ("run.local=true", "scaling.threads_per_worker=1", "generation.epochs=0", "warmup.epochs=2", "joint.epochs=1")


def test_a_run_is_followed_to_its_end_and_from_its_beginning_when_it_goes_on(walkers: Path, tmp_path: Path) -> None:
    config = configured(walkers, tmp_path, *LOCAL)
    following = RunFollower(config, "mAP")
    found = list(following.evaluations())
    scored = [line for line in records(tmp_path / "walkers") if "mAP" in line]
    assert [(each.value, each.step) for each in found] == [(line["mAP"], line["step"]) for line in scored]
    assert [each.epochs for each in found] == [1, 2, 3]  # over warm-up and joint stage
    scores = following.outcome().scores
    assert scores is not None and scores == train(config, lambda line: None).scores
    assert list(RunFollower(config, "mAP").evaluations()) == found


def test_what_a_run_raises_is_raised_and_told_in_a_line(
    walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stage: stages.ClusterContrast, *given: object) -> None:
        raise NonFiniteLossError("cluster_contrast", 7, [3])

    monkeypatch.setattr(stages.ClusterContrast, "step", fail)
    config = configured(walkers, tmp_path, *LOCAL)
    with pytest.raises(NonFiniteLossError) as caught:
        list(RunFollower(config, "mAP").evaluations())
    assert "cluster_contrast is not finite at step 7" in reason_of(caught.value, tmp_path / "walkers")


def test_a_run_that_was_asked_to_stop_has_no_outcome(walkers: Path, tmp_path: Path) -> None:
    following = RunFollower(configured(walkers, tmp_path, *LOCAL, "warmup.batches_per_epoch=200"), "mAP")
    following.stop()
    assert list(following.evaluations()) == []
    with pytest.raises(RuntimeError, match="was asked to stop"):
        following.outcome()


def test_reasons_are_the_last_line(tmp_path: Path) -> None:
    assert reason_of(ValueError("first\n\n  second \n"), tmp_path) == "ValueError: second"
    (tmp_path / "refused.txt").write_text("data.root=/x: not there")
    assert reason_of(UserError("x"), tmp_path) == "data.root=/x: not there"
    assert last_line("") == "no message"


def test_epochs_count_over_all_stages(walkers: Path, tmp_path: Path) -> None:
    config = configured(walkers, tmp_path, "warmup.epochs=3", "generation.epochs=5", "joint.epochs=7")
    assert [epochs_before(config, stage) for stage in (*config.run.stages, None)] == [0, 3, 8, 15]
    assert Evaluation(0.5, 4, 9).value == 0.5
