"""One writer for a run's folder: refused, taken over, given back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_run import configured

from jgcl_ray import writer_lock
from jgcl_ray.errors import UserError
from jgcl_ray.training.run import train
from jgcl_ray.writer_lock import CLAIM, LOCK, STALE_AFTER, only_writer

HERE = socket.gethostname()


def leave(folder: Path, process: int, host: str = HERE, silent_for: float = 0.0) -> None:
    """A lock as another process has it."""
    (folder / LOCK).write_text(json.dumps({"process": process, "host": host, "since": "2026-01-01 10:00:00"}))
    then = time.time() - silent_for
    os.utime(folder / LOCK, (then, then))


@pytest.fixture
def ended() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_held_and_given_back(tmp_path: Path) -> None:
    with only_writer(tmp_path / "new" / "run"):
        held = json.loads((tmp_path / "new" / "run" / LOCK).read_text())
        assert (held["process"], held["host"]) == (os.getpid(), HERE)
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* writes there since .*run.name"):
            only_writer(tmp_path / "new" / "run").__enter__()
        assert json.loads((tmp_path / "new" / "run" / LOCK).read_text()) == held
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path):
        raise ZeroDivisionError
    with only_writer(tmp_path):
        pass


def test_left_behind_is_taken_over(tmp_path: Path, ended: int, caplog: pytest.LogCaptureFixture) -> None:
    for process, host, silent_for in (
        (ended, HERE, 0),
        (1, "elsewhere", STALE_AFTER + 60),
        (1, HERE, STALE_AFTER + 60),
    ):
        leave(tmp_path, process, host, silent_for)
        with only_writer(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
        assert f"process {process} on {host} left its lock behind" in caplog.text


def test_alive_elsewhere_is_left_alone(tmp_path: Path) -> None:
    for process, host in ((1, HERE), (1, "elsewhere")):
        leave(tmp_path, process, host, silent_for=30)
        with pytest.raises(UserError, match=f"process 1 on {host} writes there"):
            only_writer(tmp_path).__enter__()


def test_half_a_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"proc')
    os.utime(tmp_path / LOCK, (1, 1))
    with only_writer(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["link to nowhere", "pipe", "folder", "text"])
def test_what_is_no_lock_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / LOCK
    if kind == "link to nowhere":
        lock.symlink_to(tmp_path / "gone")
    elif kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.write_text("rubbish")
    with pytest.raises(UserError, match=r"lock\.json: no lock of jgcl_ray's; take it away"):
        only_writer(tmp_path).__enter__()
    assert os.path.lexists(lock)


def test_who_lives_is_seen_to_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_lock, "BEAT", 0.01)
    with only_writer(tmp_path):
        os.utime(tmp_path / LOCK, (1, 1))
        deadline = time.monotonic() + 30
        while (tmp_path / LOCK).stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_was_taken_over_meanwhile_is_not_given_back(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        leave(tmp_path, 1, "elsewhere")
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_of_many_who_find_a_stale_lock_one_gets_it(tmp_path: Path, ended: int) -> None:
    inside: list[int] = []

    def attempt(number: int) -> bool:
        try:
            with only_writer(tmp_path):
                inside.append(number)
                time.sleep(0.02)
                assert inside == [number], "alone"
                inside.clear()
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            leave(tmp_path, ended)
            assert any(pool.map(attempt, range(8)))
            assert list(tmp_path.iterdir()) == []


def test_who_judged_before_another_took_it_over_leaves_it(
    tmp_path: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a stale lock and the claim, another process takes the lock over."""
    made = writer_lock._made

    def later(file: Path, text: str) -> bool:
        done = made(file, text)
        if file.name == CLAIM:
            leave(tmp_path, 1)
        return done

    leave(tmp_path, ended)
    monkeypatch.setattr(writer_lock, "_made", later)
    with pytest.raises(UserError, match="process 1 on"):
        only_writer(tmp_path).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert json.loads((tmp_path / LOCK).read_text())["process"] == 1


def test_claim_of_a_killed_process_is_named(tmp_path: Path, ended: int) -> None:
    leave(tmp_path, ended)
    (tmp_path / CLAIM).write_text("")
    os.utime(tmp_path / CLAIM, (1, 1))
    with pytest.raises(UserError, match=f"{CLAIM}: .*delete this file"):
        only_writer(tmp_path).__enter__()


def test_second_run_in_a_folder_changes_nothing(walkers: Path, tmp_path: Path) -> None:
    folder = tmp_path / "walkers"
    folder.mkdir()
    leave(folder, 1)
    before = (folder / LOCK).read_text()
    with pytest.raises(UserError, match="writes there since"):
        train(configured(walkers, tmp_path, "run.local=true"), lambda line: None)
    assert [path.name for path in folder.iterdir()] == [LOCK] and (folder / LOCK).read_text() == before


@pytest.mark.parametrize("content", ['{"name": "thesis"}', "years of work", "[]", "3"])
def test_a_file_that_only_bears_its_name_stays(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    os.utime(tmp_path / LOCK, (0, 0))
    with pytest.raises(UserError, match=r"lock\.json: no lock of jgcl_ray's; take it away"), only_writer(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == content


@pytest.mark.parametrize("content", ["", '{"proc', '{"process": "x"}', '{"process": -1, "host": "h", "since": "s"}',
                                     '{"process": 1' + "0" * 30 + ', "host": "h", "since": "s"}'])  # fmt: skip
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    os.utime(tmp_path / LOCK, (0, 0))
    with only_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert not (tmp_path / LOCK).exists()
