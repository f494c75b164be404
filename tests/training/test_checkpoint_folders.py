"""A run's checkpoints as folders and links, after copies by programs that keep no links and over many steps."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from checkpoints import SMALL, write_run

from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError
from jgcl_ray.models.networks import build_networks
from jgcl_ray.training.checkpoint import (
    MANIFEST,
    Checkpoints,
    Position,
    Saved,
    checkpoint_name,
    checkpoints_in,
    read_manifest,
)


@pytest.mark.parametrize("link", ["latest", "best"])
def test_a_copy_that_followed_links_is_named(tmp_path: Path, link: str) -> None:
    write_run(tmp_path / "run")
    copy = Checkpoints(shutil.copytree(tmp_path / "run", tmp_path / "copy", symlinks=True) / "checkpoints")
    copy.check_links()
    (copy.folder / link).unlink()
    copy.check_links()
    (copy.folder / link).write_text("step0000000")  # as some archives keep links
    with pytest.raises(UserError, match=f"{link}: not a link"):
        copy.check_links()
    (copy.folder / link).unlink()
    (copy.folder / link).mkdir()
    with pytest.raises(UserError, match=f"{link}: not a link"):
        copy.check_links()


def test_a_best_that_leads_nowhere_is_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path / "run")
    latest = checkpoints_in(run)[-1]
    assert not caplog.text
    best = run / "checkpoints" / "best"
    best.unlink(missing_ok=True)
    best.symlink_to("step0000009-gone")
    assert checkpoints_in(run) == [latest]
    assert f"{best} leads to no checkpoint (step0000009-gone); taking {latest.name}" in caplog.text


def test_a_disk_that_takes_no_links_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> NoReturn:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.try_links()
    assert not list(checkpoints.folder.iterdir())
    monkeypatch.setattr(Path, "symlink_to", refused)
    with pytest.raises(UserError, match="no links can be made there"):
        checkpoints.try_links()


def test_half_a_checkpoint_does_not_keep_a_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config, checkpoints = load_config(None, SMALL), Checkpoints(tmp_path)
    networks, saved = build_networks(config), Saved(Position(step=1), config.model_dump(mode="json"), {})
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="step0000001: its disk is full"):
        checkpoints.save("step0000001", networks, saved)
    assert not list(tmp_path.iterdir())


def test_the_newest_is_that_of_the_most_steps_however_many_digits(tmp_path: Path) -> None:
    config = load_config(None, SMALL)
    networks = build_networks(config)
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (9_999_998, 9_999_999, 10_000_000, 10_000_001):
        position = Position(stage=2, epoch=step - 9_999_000, step=step)
        saved = Saved(position, config.model_dump(mode="json"), {})
        checkpoints.save(checkpoint_name("joint", position), networks, saved)
    kept = [read_manifest(path).position.step for path in tmp_path.glob("step*")]
    assert sorted(kept) == [10_000_000, 10_000_001]
    newest = checkpoints.newest()
    assert newest is not None and read_manifest(newest).position.step == 10_000_001


def test_a_position_that_the_run_has_not_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    file = run / "checkpoints" / "step0000000" / MANIFEST
    manifest = json.loads(file.read_text())
    manifest["position"]["stage"] = 3
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"checkpoint\.json: damaged .*position.stage is 3 of 3.*another checkpoint"):
        read_manifest(file.parent)
