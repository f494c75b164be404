"""Which candidate is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import configured

from jgcl_ray.training.best import Best, chooser, starts_trained


def test_the_highest_is_kept_and_the_first_of_equals() -> None:
    best = Best("mAP")
    offers = [("start", 0.5), ("one", 0.4), ("two", 0.6), ("three", 0.6)]
    assert [best.offer({"mAP": value}, name) for name, value in offers] == [True, False, True, False]
    assert (best.name, best.score) == ("two", 0.6)
    assert not best.offer({"rank-1": 0.9}, "unscored")


def test_without_a_score_to_trust_the_last_is_kept() -> None:
    best = Best(None)
    assert best.offer({"mAP": 0.9}, "one") and best.offer({}, "two")
    assert best.name == "two"


def test_who_chooses(tmp_path: Path) -> None:
    config = configured(tmp_path, tmp_path)
    assert chooser(config, has_validation_list=False) is None
    assert chooser(config, has_validation_list=True) == "validation_mAP"
    assert chooser(configured(tmp_path, tmp_path, "eval.select_on=test"), has_validation_list=True) == "mAP"


@pytest.mark.parametrize(
    ("overrides", "stage", "expected"),
    [
        (["run.init_from=/some/where", "run.stages=[joint]"], 0, True),
        (["run.init_from=/some/where", "run.stages=[generation,joint]"], 1, True),
        (["encoder.weights=imagenet"], 0, True),
        ([], 0, False),  # random: not worth a checkpoint
        (["run.init_from=/some/where"], 2, False),  # the warm-up's last epoch was a candidate
        (["run.init_from=/some/where", "warmup.mode=none"], 2, True),
    ],
)
def test_the_encoder_before_the_first_stage_that_trains_it(
    tmp_path: Path, overrides: list[str], stage: int, expected: bool
) -> None:
    assert starts_trained(configured(tmp_path, tmp_path, *overrides), stage) is expected
