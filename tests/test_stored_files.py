"""Damaged files of ours: one line that names the file and what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_run

from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.generation.view_generator import ViewGenerator
from jgcl_ray.retrieval.index import GalleryIndex
from jgcl_ray.stored_files import read_arrays, read_json
from jgcl_ray.training.checkpoint import Checkpoints, read_manifest

DAMAGES = {
    "a list": "[]",
    "nothing": "null",
    "a number": "3",
    "cut off": '{"position": {"stage": 0, "ep',
    "deep": "[" * 100_000,
    "no config": {"config": None},
    "no position": {"position": None},
    "a position of text": {"position": {"stage": "x"}},
    "a position below 0": {"position": {"stage": -1}},
    "digests in a list": {"sha256": []},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_by_all_who_read_it(tmp_path: Path, damage: str) -> None:
    run = write_run(tmp_path / "run")
    file = (run / "checkpoints" / "latest").resolve() / "checkpoint.json"
    how = DAMAGES[damage]
    if isinstance(how, dict):
        whole = json.loads(file.read_text())
        for name, value in how.items():
            whole[name] = value
            if value is None:
                del whole[name]
        how = json.dumps(whole)
    file.write_text(how)
    for read in (Encoder.load, ViewGenerator.load, lambda run: read_manifest(file.parent)):
        with pytest.raises(UserError, match=rf"{file}: damaged .*; restore it, or take another checkpoint"):
            read(run)
    with pytest.raises(UserError, match=r"1 checkpoint, none can be read: .*; restore one, or remove"):
        Checkpoints(run / "checkpoints").newest()


def test_a_checkpoint_of_a_newer_version_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    file = (run / "checkpoints" / "latest").resolve() / "checkpoint.json"
    whole = json.loads(file.read_text())
    whole["config"]["encoder"]["tomorrow"] = 1
    file.write_text(json.dumps(whole))
    for read in (Encoder.load, ViewGenerator.load):
        with pytest.raises(UserError, match=rf"{file}: encoder\.tomorrow=1: no such field.*another version"):
            read(run)


def test_arrays_that_were_damaged_anywhere_are_named(tmp_path: Path) -> None:
    file, draw = tmp_path / "some.npz", np.random.default_rng(0)
    for save in (np.savez, np.savez_compressed):
        save(file, names=np.array(["a", "b"]), pose=np.ones((2, 3)))
        whole = file.read_bytes()
        expected = {"names": "U N", "pose": "f N 3"}
        assert read_arrays(file, expected, "")["pose"].shape == (2, 3)
        for _ in range(200):
            place, bit = draw.integers(len(whole)), 1 << int(draw.integers(8))
            altered = bytearray(whole)
            altered[place] ^= bit
            file.write_bytes(altered[: place if draw.random() < 0.3 else None])
            try:
                read_arrays(file, expected, "do it again")
            except UserError as error:
                assert str(file) in str(error) and str(error).endswith("do it again")


@pytest.mark.parametrize("arrays", [{"names": np.array(["a"])}, {"names": np.array([1]), "pose": np.ones((1, 3))},
                                    {"names": np.array(["a"]), "pose": np.ones((2, 3))}])  # fmt: skip
def test_arrays_of_another_shape_are_named(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "some.npz", allow_pickle=False, **arrays)
    with pytest.raises(UserError, match=r"some\.npz: damaged .*; do it again"):
        read_arrays(tmp_path / "some.npz", {"names": "U N", "pose": "f N 3"}, "do it again")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (
        lambda: read_json(pipe, dict, "x"),
        lambda: read_arrays(pipe, {}, "x"),
        lambda: GalleryIndex.load(pipe),
    ):
        with pytest.raises(UserError, match="a pipe or a device, not a file"):
            read()


def test_nobody_is_told_to_load_pickles(tmp_path: Path) -> None:
    for content in (b"PK", b"", b"rubbish " * 100):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.npz: damaged \(no archive of arrays\); make it again"):
            read_arrays(tmp_path / "x.npz", {"x": "f N"}, "make it again")
