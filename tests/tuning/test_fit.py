"""How many trials fit on a cluster at a time, and what is said where none does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError
from jgcl_ray.tuning.sweep import check_fit, resource_bundles, trials_that_fit

LAPTOP = [{"CPU": 2.0}]
BOX = [{"CPU": 16.0, "GPU": 4.0}]


@pytest.mark.parametrize(
    ("nodes", "overrides", "count"),
    [
        (LAPTOP, ["pseudo_labels.num_cpus=0.95"], 1),
        (LAPTOP, ["scaling.cpus_per_worker=0.5", "pseudo_labels.num_cpus=0.25"], 2),
        (LAPTOP, ["run.local=true"], 2),
        ([{"CPU": 16.0}], ["scaling.num_workers=3"], 3),  # 3 x (3 + 1 + 0.05) of 16
        (BOX, [], 4),
        (BOX, ["scaling.num_workers=2"], 2),
        (BOX, ["pseudo_labels.num_gpus=0.5", "scaling.gpus_per_worker=0.5"], 4),
        (BOX, ["scaling.device=cpu"], 7),
        ([*BOX, *BOX], ["scaling.num_workers=8"], 1),
        ([{"CPU": 8.0, "GPU": 3.0}] * 2, ["scaling.gpus_per_worker=2"], 2),  # a GPU of each node is left over
    ],
)
def test_as_many_as_the_cluster_holds(nodes: Sequence[dict[str, float]], overrides: list[str], count: int) -> None:
    assert check_fit(load_config(None, overrides), nodes) == count


@pytest.mark.parametrize(
    ("nodes", "overrides", "message"),
    [
        (
            LAPTOP,
            [],
            r"1 worker x 1 CPU \(scaling\) \+ 1 of the clustering actor \+ 0\.05 of the trial's driver = 2\.05, "
            "and the Ray cluster has 2: no trial can ever start",
        ),
        (
            LAPTOP,
            ["scaling.device=cuda", "pseudo_labels.num_cpus=0"],
            r"1 worker x 1 GPU.* = 1, and the Ray cluster has 0",
        ),
        (
            BOX,
            ["scaling.num_workers=5"],
            r"5 workers x 1 GPU \(scaling\) \+ 0 of the clustering actor = 5, .* has 4",
        ),
        (
            LAPTOP,
            ["run.local=true", "scaling.cpus_per_worker=3"],
            r"3 CPU \(run\.local\) = 3, and the Ray cluster has 2",
        ),
        (
            [{"CPU": 4.0}] * 3,
            ["scaling.cpus_per_worker=6"],
            "the largest takes 6 CPUs of one node: no trial can ever",
        ),
    ],
)
def test_what_can_never_fit_is_refused_with_the_arithmetic(
    nodes: Sequence[dict[str, float]], overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_fit(load_config(None, overrides), nodes)


def test_what_is_placed_fits() -> None:
    """Against a search through every placement, for trials of three bundles on two nodes."""
    parts = [{"CPU": 0.05}, {"CPU": 2.0}, {"CPU": 1.0}]
    for first, second in itertools.product(range(1, 6), repeat=2):
        nodes = [{"CPU": float(first)}, {"CPU": float(second)}]
        count = trials_that_fit(parts, nodes)
        assert placeable(parts * count, nodes)
        assert not placeable(parts * (count + 2), nodes)  # largest first is never far from the best


def placeable(parts: list[dict[str, float]], nodes: list[dict[str, float]]) -> bool:
    if not parts:
        return True
    for row, node in enumerate(nodes):
        if node["CPU"] + 1e-9 >= parts[-1]["CPU"]:
            rest = [{"CPU": node["CPU"] - parts[-1]["CPU"] * (row == place)} for place, node in enumerate(nodes)]
            if placeable(parts[:-1], rest):
                return True
    return False


def test_pieces_of_a_trial_are_what_training_asks_for() -> None:
    config = load_config(None, ["scaling.num_workers=2", "scaling.cpus_per_worker=3", "pseudo_labels.num_gpus=0.5"])
    assert resource_bundles(config, cuda=False) == [{"CPU": 0.05}, {"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 1.0}]
    assert resource_bundles(config, cuda=True)[1:] == [{"CPU": 3.0, "GPU": 1.0}] * 2 + [{"CPU": 1.0, "GPU": 0.5}]
