"""A data set's copy on a disk of the machine: made once, whole, and made anew when the data set changes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from jgcl_ray.data import staging
from jgcl_ray.data.datasets import ReidDataset, Split
from jgcl_ray.data.staging import LISTING, moved, stage_folder
from jgcl_ray.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "far" / "photos"
    for name in ("a/1.jpg", "a/2.jpg", "b/c/3.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LISTING)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_copy_is_the_source_with_checksums(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    copy = stage_folder(source, tmp_path / "disk", lambda done, files: told.append((done, files)))
    assert content(copy) == content(source)
    assert told == [(1, 3), (2, 3), (3, 3)]
    listed = json.loads((copy / LISTING).read_text())
    assert listed["a/1.jpg"][2] == hashlib.sha256((source / "a/1.jpg").read_bytes()).hexdigest()


def test_it_is_made_once_until_the_source_changes(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    tell = lambda done, files: told.append((done, files))  # noqa: E731
    copy = stage_folder(source, tmp_path / "disk", tell)
    assert stage_folder(source, tmp_path / "disk", tell) == copy and len(told) == 3
    (source / "a/1.jpg").write_bytes(b"another photo")
    (source / "a/2.jpg").unlink()
    assert stage_folder(source, tmp_path / "disk", tell) == copy and len(told) == 5
    assert content(copy) == content(source)


def test_folders_of_one_name_do_not_meet(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "farther" / "photos"
    other.mkdir(parents=True)
    (other / "1.jpg").write_bytes(b"1")
    assert stage_folder(source, tmp_path / "disk") != stage_folder(other, tmp_path / "disk")


def test_a_folder_of_a_long_name_is_copied(source: Path, tmp_path: Path) -> None:
    long = source.rename(tmp_path / ("é" * 120))  # 240 bytes
    assert content(stage_folder(long, tmp_path / "disk")) == content(long)


def test_an_interrupted_copy_does_not_count(source: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, files: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        stage_folder(source, tmp_path / "disk", kill)
    assert [path.name for path in (tmp_path / "disk").iterdir() if not path.name.startswith(".")] == []
    assert content(stage_folder(source, tmp_path / "disk")) == content(source)


def copy_and_count(source: Path, disk: Path, copies: multiprocessing.Queue) -> None:
    told: list[int] = []
    stage_folder(source, disk, lambda done, files: told.append(done))
    copies.put(len(told))


def test_of_several_workers_one_copies(source: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    copies = context.Queue()
    workers = [context.Process(target=copy_and_count, args=(source, tmp_path / "disk", copies)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(copies.get(timeout=60) for _ in workers) == [0, 0, 0, 3]
    for worker in workers:
        worker.join()


def test_a_disk_that_changes_bytes_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging.hashlib, "file_digest", lambda file, name: hashlib.sha256(b"other bytes"))
    with pytest.raises(OSError, match=r"1\.jpg: differs from .*; the disk is failing"):
        stage_folder(source, tmp_path / "disk")


def test_too_small_a_disk_is_told_before_the_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda disk: staging.shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"data\.stage_to=.* GB are needed, 0\.0 GB are free"):
        stage_folder(source, tmp_path / "disk")


def test_no_folder_to_write_to_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("a file")
    with pytest.raises(UserError, match=r"data\.stage_to=.*: cannot be written to"):
        stage_folder(source, tmp_path / "disk")


def test_a_data_set_moves_with_its_rows(tmp_path: Path) -> None:
    split = Split(tmp_path / "far" / "train", ("1.jpg", "2.jpg"), None, np.zeros(2, np.int64))
    near = moved(ReidDataset("folder", tmp_path / "far", split), tmp_path / "near")
    assert near.train.path(1) == tmp_path / "near" / "train" / "2.jpg"
    assert near.train.fingerprint == split.fingerprint and near.root == tmp_path / "near"
