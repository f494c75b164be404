"""Search spaces: what is wrong with one is named before anything starts, what is drawn lies in its ranges."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from jgcl_ray.config import DataConfig, configs_folder, load_config
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.errors import UserError
from jgcl_ray.tuning.space import Space, check_space, configured, load_space, metric_of

SHIPPED = sorted(path.stem for path in (configs_folder() / "search").glob("*.yaml"))


def space_of(tmp_path: Path, fields: dict[str, Any], **settings: Any) -> Space:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"fields": fields, **settings}, sort_keys=False))
    return check_space(*load_space(path), load_config("walkers"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_spaces_fit_their_configuration(name: str) -> None:
    _, sweep = load_space(name)
    space = check_space(name, sweep, load_config(sweep.config))
    assert len({tuple(params.values()) for params in space.draw()}) == space.trials


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("losses.contrast_veiws", {"uniform": [0.0, 1.0]}, r"no such field.*did you mean losses\.contrast_views\?"),
        ("losses", {"uniform": [0.0, 1.0]}, "losses: no such field"),
        (
            "losses.image_cycle",
            {"uniform": [2.0, 1.0]},
            r"losses\.image_cycle.*an empty range, 2\.0 is not below 1\.0",
        ),
        ("losses.image_cycle", {"uniform": [1.0, 1.0]}, "an empty range"),
        ("losses.image_cycle", {"loguniform": [0, 1.0]}, "a logarithm needs more than 0"),
        ("losses.image_cycle", {"uniform": [-1.0, 1.0]}, r"losses\.image_cycle=-1\.0: .*greater than or equal to 0"),
        ("losses.image_cycle", {"uniform": ["1e-4", 1.0]}, "two numbers"),
        ("losses.image_cycle", {"uniform": [1.0]}, "two numbers"),
        ("losses.image_cycle", {"choice": []}, "no values"),
        ("losses.image_cycle", {"choice": 3}, "no values; give them in brackets"),
        ("losses.image_cycle", {"choice": [1.0, 1.0]}, "a value is there twice"),
        ("losses.image_cycle", {"normal": [0.0, 1.0]}, "give one of uniform, loguniform, int, choice, grid"),
        ("losses.image_cycle", {}, "give one of"),
        ("pseudo_labels.k1", {"int": [10.5, 20]}, "two whole numbers"),
        ("pseudo_labels.k1", {"int": [1, 10**20]}, "numbers beyond"),
        ("data.split", {"grid": list(range(10_001))}, "10,001 combinations on the grid"),
        ("pseudo_labels.k1", {"uniform": [10.5, 20]}, r"pseudo_labels\.k1=10\.5: .*integer"),
        ("encoder.backbone", {"choice": ["resnet18", "vgg"]}, r"encoder\.backbone='vgg'"),
        ("scaling.num_workers", {"choice": [1, 2]}, "a sweep sets it for all its trials alike"),
        ("run.name", {"choice": ["a", "b"]}, "a sweep sets it for all its trials alike"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, field: str, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of(tmp_path, {field: given}, trials=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trails": 3}, "trails: no such setting; known: config, trials"),
        ({"scheduler": {"name": "asha", "grace": 3}}, r"scheduler\.grace: no such setting; known: .*grace_epochs"),
        ({"trials": 0}, "trials=0"),
        ({"trials": True}, "trials=True"),
        ({"trials": 5_000_000}, "trials=5000000: input should be less than or equal to 10000"),
        ({"scheduler": {"name": "hyperband"}}, r"scheduler\.name='hyperband'"),
        ({}, "how many trials"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of(tmp_path, {"losses.image_cycle": {"uniform": [1.0, 2.0]}}, **settings)


def test_fields_that_do_not_go_together_are_found_among_the_drawn(tmp_path: Path) -> None:
    fields = {"pseudo_labels.k1": {"grid": [4, 20]}, "pseudo_labels.k2": {"grid": [2, 6]}}
    with pytest.raises(UserError, match=r"trial 1, pseudo_labels\.k1=4, pseudo_labels\.k2=6: pseudo_labels: k2 = 6"):
        space_of(tmp_path, fields)


def test_a_space_that_is_not_there_or_not_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no search space 'slow'.*loss_weights.*quick"):
        load_space("slow")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="no search space; it needs `fields:`"):
        load_space(tmp_path / "list.yaml")


def test_pbt_changes_loss_weights_only(tmp_path: Path) -> None:
    pbt = {"scheduler": {"name": "pbt"}, "trials": 4}
    space_of(tmp_path, {"losses.image_cycle": {"uniform": [1.0, 5.0]}}, **pbt)
    for field, given in (
        ("pseudo_labels.k1", {"int": [10, 20]}),
        ("optim.encoder_lr", {"loguniform": [1e-4, 1e-3]}),
        ("losses.image_cycle", {"choice": [1.0, 5.0]}),
    ):
        with pytest.raises(UserError, match=r"pbt changes losses\.\* only"):
            space_of(tmp_path, {field: given}, **pbt)


def test_draws_lie_in_their_ranges_and_repeat(tmp_path: Path) -> None:
    fields = {
        "losses.image_cycle": {"uniform": [1.0, 2.0]},
        "optim.encoder_lr": {"loguniform": [1e-5, 1e-2]},
        "pseudo_labels.k1": {"int": [10, 12]},
        "encoder.backbone": {"choice": ["resnet18", "resnet34"]},
    }
    space = space_of(tmp_path, fields, trials=400)
    drawn = space.draw()
    assert drawn == space.draw()
    assert drawn != space_of(tmp_path, fields, trials=400, seed=2).draw()
    assert all(1 <= params["losses.image_cycle"] <= 2 for params in drawn)
    assert all(1e-5 <= params["optim.encoder_lr"] <= 1e-2 for params in drawn)
    middle = sum(params["optim.encoder_lr"] < math.sqrt(1e-5 * 1e-2) for params in drawn)
    assert 160 < middle < 240  # half of them below the geometric mean: 5 standard deviations
    assert Counter(params["pseudo_labels.k1"] for params in drawn).keys() == {10, 11, 12}
    assert Counter(params["encoder.backbone"] for params in drawn).keys() == {"resnet18", "resnet34"}
    for params in drawn[:3]:
        assert configured(load_config("walkers"), params).optim.encoder_lr == params["optim.encoder_lr"]


def test_a_grid_is_gone_through_in_turn(tmp_path: Path) -> None:
    grid = {"losses.image_cycle": {"grid": [1.0, 2.0]}, "pseudo_labels.k1": {"grid": [10, 20, 30]}}
    every = {(cycle, k1) for cycle in (1.0, 2.0) for k1 in (10, 20, 30)}
    drawn = space_of(tmp_path, grid).draw()
    assert len(drawn) == 6 and {tuple(params.values()) for params in drawn} == every
    drawn = space_of(tmp_path, grid | {"losses.contrast_views": {"uniform": [0.0, 1.0]}}, trials=12).draw()
    assert Counter(tuple(params.values())[:2] for params in drawn) == dict.fromkeys(every, 2)
    assert len({params["losses.contrast_views"] for params in drawn}) == 12
    with pytest.raises(UserError, match="2 x 3 values on the grid are 6 combinations, and trials is 4"):
        space_of(tmp_path, grid, trials=4)


def test_the_metric_is_what_chooses_the_best_checkpoint(tmp_path: Path) -> None:
    space = space_of(tmp_path, {"losses.image_cycle": {"grid": [1.0]}})
    lists = {"list_train": "train/0000/0000_000_01_.jpg 0", "list_val": "train/0001/0001_000_02_.jpg 1"}
    lists |= {"list_query": "test/0000/0000_000_03_.jpg 0", "list_gallery": "test/0000/0000_000_04_.jpg 0"}
    for name, line in lists.items():
        folder, _, rest = line.partition("/")
        _touch(tmp_path / "lists" / folder / rest.split()[0])
        (tmp_path / "lists" / f"{name}.txt").write_text(f"{rest}\n")
    for image in ("bounding_box_train/0000_c01_1.jpg", "query/0000_c02_1.jpg", "bounding_box_test/0000_c03_1.jpg"):
        _touch(tmp_path / "repacked" / image)
    with_list, without = (load_config("msmt17", [f"data.root={tmp_path / name}"]) for name in ("lists", "repacked"))
    assert metric_of(space.sweep, with_list) == "validation_mAP"
    for config in (without, load_config("walkers")):
        with pytest.raises(UserError, match=r"no validation list.*say what is made large by metric"):
            metric_of(space.sweep, config)
    assert metric_of(space.sweep, load_config("walkers", ["eval.select_on=test"])) == "mAP"
    named = space_of(tmp_path, {"losses.image_cycle": {"grid": [1.0]}}, metric="rank-1")
    assert metric_of(named.sweep, load_config("walkers")) == "rank-1"


def _touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_walkers_have_no_validation_list(walkers: Path) -> None:
    """The sweep goes by that, and does not render them to find out."""
    assert open_dataset(DataConfig(name="walkers", root=walkers)).validation is None


def test_field_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("trials: 2\nfields:\n  joint.epochs: {choice: [1]}\n  joint.epochs: {choice: [2]}\n")
    with pytest.raises(UserError, match=r"twice.yaml: line 4: joint.epochs stands a second time, first in line 3"):
        load_space(file)
