"""Folders of a run on other storage: complete or not there, and brought back byte for byte."""

from __future__ import annotations

import errno
import json
import logging
import uuid
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow.fs import FileSelector

from jgcl_ray.config import load_config
from jgcl_ray.errors import UserError
from jgcl_ray.storage import RemoteFolder


@pytest.fixture(params=["pyarrow", "fsspec"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    uri = f"file://{tmp_path}/there" if request.param == "pyarrow" else f"memory://{uuid.uuid4().hex}"
    return RemoteFolder(uri, "run", "checkpoint.json")


def checkpoint(folder: Path, name: str, weights: bytes = b"weights") -> Path:
    made = folder / name
    made.mkdir(parents=True, exist_ok=True)
    (made / "encoder.safetensors").write_bytes(weights)
    (made / "checkpoint.json").write_text(json.dumps({"name": name}))
    return made


def test_what_was_sent_comes_back(remote: RemoteFolder, tmp_path: Path) -> None:
    assert remote.complete() == []
    remote.send(checkpoint(tmp_path, "step1"), keep=set())
    remote.send(checkpoint(tmp_path, "step2", b"x" * 100_000), keep={"step1"})
    assert remote.complete() == ["step1", "step2"]
    assert json.loads(remote.read_last("step2")) == {"name": "step2"}
    back = remote.bring("step2", tmp_path / "elsewhere")
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "step2").iterdir()
    }


def test_what_is_not_kept_goes(remote: RemoteFolder, tmp_path: Path) -> None:
    for name, keep in (("step1", set()), ("step2", {"step1"}), ("step3", {"step1"})):
        remote.send(checkpoint(tmp_path, name), keep)
    assert remote.complete() == ["step1", "step3"]


def test_half_a_folder_does_not_count(tmp_path: Path) -> None:
    remote = RemoteFolder(f"file://{tmp_path}/there", "run", "checkpoint.json")
    remote.send(checkpoint(tmp_path, "step1"), keep=set())
    broken = checkpoint(tmp_path, "step2")
    (broken / "networks").mkdir()  # cannot be opened as a file: the copy stops here, before the last file
    remote.send(broken, keep={"step1"})
    assert (tmp_path / "there" / "run" / "step2" / "encoder.safetensors").is_file()
    assert remote.complete() == ["step1"]


def test_storage_that_is_away_is_told_and_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "there").write_text("a file where the folder would be")
    remote = RemoteFolder(f"file://{tmp_path}/there", "run", "checkpoint.json")
    with caplog.at_level(logging.WARNING):
        remote.send(checkpoint(tmp_path, "step1"), keep=set())
    assert "the copy of step1 failed" in caplog.text and "the run goes on" in caplog.text


def test_a_place_is_tried_and_left_as_it_was(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.check_writable()
    assert not list(tmp_path.iterdir()) and remote.complete() == []
    files, root = remote._open()
    assert not [info for info in files.get_file_info(FileSelector(root, allow_not_found=True)) if info.is_file]


@pytest.mark.parametrize(
    ("place", "words"),
    [("there", "Not a directory"), ("there/below", "Not a directory"), ("n" * 300, "File name too long")],
)
def test_a_local_place_that_takes_nothing_is_named(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "there").write_text("a file where the folder would be")
    with pytest.raises(UserError, match=rf"checkpoints\.mirror: .*{place}/run: cannot be written to \({words}"):
        RemoteFolder(f"file://{tmp_path}/{place}", "run", "checkpoint.json").check_writable()


def test_storage_that_takes_no_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "read only")

    monkeypatch.setattr(MemoryFileSystem, "_open", forbid)
    with pytest.raises(UserError, match=r"checkpoints\.mirror: memory://shelf/run cannot be written to .*read only"):
        RemoteFolder("memory://shelf", "run", "checkpoint.json").check_writable()


def test_an_unknown_kind_of_storage_is_told() -> None:
    with pytest.raises(UserError, match=r"checkpoints.mirror=tape://shelf/run: no such storage"):
        RemoteFolder("tape://shelf", "run", "checkpoint.json").complete()


@pytest.mark.parametrize("uri", ["there", "s3://key:secret@bucket/folder"])
def test_addresses_without_a_scheme_or_with_a_secret_are_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"checkpoints\.mirror"):
        load_config(None, [f"checkpoints.mirror={uri}"])


def test_options_of_an_address_stay_at_its_end() -> None:
    remote = RemoteFolder("s3://bucket/runs/?endpoint_override=127.0.0.1:9000&scheme=http", "run", "checkpoint.json")
    assert remote.uri == "s3://bucket/runs/run?endpoint_override=127.0.0.1:9000&scheme=http"


def test_what_is_not_ours_stays(remote: RemoteFolder, tmp_path: Path) -> None:
    kept = ("step1-copy", "thesis", "latest")
    for name in ("step1", *kept):
        remote._copy(checkpoint(tmp_path, name), *_at(remote, name))
    files, root = remote._open()
    with files.open_output_stream(f"{root}/notes.txt") as notes:
        notes.write(b"years of work")
    remote.send(checkpoint(tmp_path, "step2"), keep=set())
    assert remote.complete() == ["step2"]
    assert all(files.get_file_info(f"{root}/{name}/checkpoint.json").is_file for name in kept)
    assert files.get_file_info(f"{root}/notes.txt").is_file and not files.get_file_info(f"{root}/step1").is_file


def _at(remote: RemoteFolder, name: str) -> tuple[Any, str]:
    files, root = remote._open()
    return files, f"{root}/{name}"
