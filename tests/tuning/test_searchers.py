"""Who chooses values: optuna goes on with what it was told, PBT stays within the range."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from jgcl_ray.config import load_config
from jgcl_ray.tuning.record import claim, read_trials
from jgcl_ray.tuning.space import Dimension, SweepConfig, check_space
from jgcl_ray.tuning.sweep import _clipped, _optuna, _terminated_as_interrupted
from jgcl_ray.tuning.trial import TrialSetting

FIELDS = {
    "losses.image_cycle": {"uniform": [1.0, 2.0]},
    "optim.encoder_lr": {"loguniform": [1e-4, 1e-2]},
    "pseudo_labels.k1": {"int": [10, 12]},
    "encoder.backbone": {"choice": ["resnet18", "resnet34"]},
}


def test_optuna_begins_with_interrupted_trials_and_knows_the_others(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    base = load_config("walkers")
    space = check_space("mine", SweepConfig(trials=4, searcher="optuna", fields=FIELDS), base)
    params = {
        "losses.image_cycle": 1.5,
        "optim.encoder_lr": 1e-3,
        "pseudo_labels.k1": 11,
        "encoder.backbone": "resnet34",
    }
    for number in range(2):
        replace(claim(tmp_path, number, params), best=0.1 if number else None).write(tmp_path)
    assert [record.best for record in read_trials(tmp_path)] == [None, 0.1]
    setting = TrialSetting(base, tmp_path, "mAP", numbers=(0, 2, 3), parent=None)
    searcher = _optuna(space, setting, [params])
    first, second, third = (searcher.suggest(name) for name in "abc")
    assert first == {"params": params, "number": 0}
    assert (second["number"], third["number"]) == (2, 3) and second["params"] != third["params"]
    assert second["params"].keys() == FIELDS.keys() and 1 <= second["params"]["losses.image_cycle"] <= 2
    assert len(searcher._ot_study.trials) == 4  # three of this start, one told


def test_pbt_stays_within_the_range() -> None:
    dimension = Dimension("losses.image_cycle", "uniform", (1.0, 2.0))
    for value, expected in ((2.4, 2.0), (0.8, 1.0), (1.23456, 1.235)):
        config = {"params": {"losses.image_cycle": value}, "more": 1}
        assert _clipped([dimension], config) == {"params": {"losses.image_cycle": expected}, "more": 1}


def test_sigterm_ends_a_sweep_as_ctrl_c_does_and_is_remembered() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with _terminated_as_interrupted() as heard:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
