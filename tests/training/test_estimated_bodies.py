"""A run whose bodies are estimated: once, before the workers start, and kept in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_pictures_alike
from tiny_run import configured

from jgcl_ray.data.samplers import Shard
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.drawing import ParameterProjections
from jgcl_ray.training.prepare import (
    BODIES,
    UNSURE,
    InProcess,
    Plan,
    build_session,
    estimate_bodies,
    estimated,
    open_folder,
    plan_run,
)
from jgcl_ray.training.stages import Generation
from jgcl_ray.training.summary import describe

ESTIMATED = ("meshes.source=estimated", "run.name=estimated")


def opened(walkers: Path, root: Path, *overrides: str) -> Plan:
    plan = plan_run(configured(walkers, root, *ESTIMATED, *overrides))
    open_folder(plan)
    estimate_bodies(plan)
    return plan


def test_bodies_and_unsure_images_are_in_the_run_folder(walkers: Path, tmp_path: Path) -> None:
    plan = plan_run(configured(walkers, tmp_path, *ESTIMATED))
    assert describe(plan, "")["bodies"] == "estimated when the run begins"
    plan = opened(walkers, tmp_path)
    bodies = estimated(plan)
    assert bodies is not None and bodies.names == plan.dataset.train.paths
    middle = float(np.median(bodies.deviation))
    before = (plan.folder / BODIES).stat().st_mtime_ns
    plan = opened(walkers, tmp_path / "other", f"meshes.unsure_above={middle}")
    listed = [line.split("\t") for line in (plan.folder / UNSURE).read_text().splitlines()]
    unsure = np.flatnonzero(bodies.deviation > middle)
    assert [name for name, _ in listed] == [bodies.names[row] for row in unsure]
    assert describe(plan, "")["bodies"] == f"estimated, {len(unsure)} of 16 unsure ({plan.folder / UNSURE})"
    opened(walkers, tmp_path)
    assert (tmp_path / "estimated" / BODIES).stat().st_mtime_ns == before  # not again


def test_the_workers_draw_the_estimated_bodies(walkers: Path, tmp_path: Path) -> None:
    plan = opened(walkers, tmp_path)
    session = build_session(plan, InProcess(plan.config.pseudo_labels), Shard(), torch.device("cpu"))
    drawn = session.data.projections
    assert drawn is not None
    expected = ParameterProjections(plan.folder / BODIES, None, plan.dataset.train.paths, 80, 40, light=True)
    for row, view in ((0, 0), (7, 135)):
        assert_pictures_alike(drawn.load(row, view), expected.load(row, view))


@pytest.mark.usefixtures("one_thread")
def test_unsure_images_are_left_out_of_stage_2(walkers: Path, tmp_path: Path) -> None:
    bodies = estimated(opened(walkers, tmp_path))
    assert bodies is not None
    limit = float(np.sort(bodies.deviation)[8])
    for skip, rows in ((False, set(range(16))), (True, set(np.flatnonzero(bodies.deviation <= limit).tolist()))):
        plan = opened(walkers, tmp_path / str(skip), f"meshes.unsure_above={limit}", f"meshes.skip_unsure={skip}")
        session = build_session(plan, InProcess(plan.config.pseudo_labels), Shard(), torch.device("cpu"))
        stage = Generation(session)
        seen = {int(row) for epoch in range(4) for batch in stage.batches(epoch, 0) for row in batch.index}
        assert seen == rows
        assert ("left out" in describe(plan, "")["bodies"]) == skip
    with pytest.raises(UserError, match=r"16 images, none of them sure: raise meshes\.unsure_above"):
        opened(walkers, tmp_path / "none", "meshes.unsure_above=0.01", "meshes.skip_unsure=true")


def test_weights_are_looked_at_before_anything_starts(walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; give weights of"):
        plan_run(configured(walkers, tmp_path, *ESTIMATED, f"meshes.weights={tmp_path / 'none.safetensors'}"))
