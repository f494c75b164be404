"""Places for results are tried before the work: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from jgcl_ray import evaluate, export, generate, pretrain, search, train, tune
from jgcl_ray.atomic import replacing, room_for, write_bytes
from jgcl_ray.cache import cache_folder
from jgcl_ray.config import load_config
from jgcl_ray.data import staging
from jgcl_ray.data.walkers import __main__ as walkers
from jgcl_ray.data.walkers import rendering
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.footage import __main__ as footage
from jgcl_ray.meshes.drawing import write_atomically
from jgcl_ray.meshes.estimator import __main__ as estimator
from jgcl_ray.ownership import is_scores
from jgcl_ray.places import absolute, check_apart, check_file, check_folder
from jgcl_ray.training.prepare import check_places

LONG = "n" * 300


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("there", "a folder"), ("file/x.json", "Not a directory"), ("none/x.json", "there is no folder"),
        (LONG, "File name too long"), ("n" * 256, "File name too long"), ("/dev/null", "a device"),
        ("/proc/x.json", "cannot be written to"),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"--out .*{words}"):
        check_file(tmp_path / name, "--out", is_scores)
    check_file(tmp_path / "file", "--out", is_scores)
    check_file(tmp_path / "new.json", "--out", is_scores)
    check_file(tmp_path / ("n" * 255), "--out", is_scores)
    check_file(tmp_path / "none" / "below" / "x.json", "--out", is_scores, parents=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "not a folder"), ("file/below", "Not a directory"), ("adrift", "not a folder"),
        (LONG, "File name too long"), (f"none/{LONG}/x", "File name too long"), ("/proc/x/y", "cannot be written to"),
        ("/".join(["deep"] * 1000), "File name too long"),
    ],
)  # fmt: skip
def test_folders(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "adrift").symlink_to(tmp_path / "not mounted")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"--out .*{words}"):
        check_folder(tmp_path / name, "--out")
    check_folder(tmp_path / "there", "--out")
    check_folder(tmp_path / "none" / "below", "--out")
    assert sorted(tmp_path.rglob("*")) == before


def test_two_results_at_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "x.json")
    check_apart({"--json": Path("x.json"), "--sheet": Path("x.png"), "--index": None, "--report": None})
    for same in ("x.json", "./x.json", "below/../x.json", "link", str(tmp_path / "x.json")):
        with pytest.raises(UserError, match=r"--json x\.json and --index .* are one place"):
            check_apart({"--json": Path("x.json"), "--sheet": None, "--index": Path(same)})


def test_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute(Path("~/crops")) == Path("/home/me/crops")
    with pytest.raises(UserError, match="~nobody_here/crops: nobody here has the folder ~nobody_here"):
        absolute(Path("~nobody_here/crops"))


def test_a_full_disk_is_found_ahead_and_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "crops/x.jpg")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        check_folder(tmp_path, "--out")
    with pytest.raises(UserError, match=r"x\.npz: its disk is full"), replacing(tmp_path / "x.npz") as partial:
        partial.touch()
    with pytest.raises(UserError, match="x: its disk is full"), room_for(Path("x")):
        raise ValueError("I/O error: No space left on device (os error 28)")  # safetensors
    with pytest.raises(UserError, match="x: its disk is full"), room_for(Path("x")):
        try:
            full()
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # torch.save, of a file
    with pytest.raises(RuntimeError, match="another"), room_for(Path("x")):
        raise RuntimeError("another")
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        full()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: crops/x.jpg: No space left on device; ")
    with pytest.raises(OSError, match="Invalid argument"), exit_on_user_error():  # a fault of the program
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_a_device_stays_one() -> None:
    with pytest.raises(UserError, match="/dev/null: a device"), replacing(Path("/dev/null")):
        pass
    assert Path("/dev/null").is_char_device()


def _through_argv(command: Callable[[], None]) -> Callable[[list[str]], None]:
    def call(arguments: list[str]) -> None:
        sys.argv = ["command", *arguments]
        command()

    return call


COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "train": (_through_argv(train.main), "run.local=true run.root={}"),
    "dry run": (_through_argv(train.main), "--dry-run run.local=true run.root={}"),
    "run.name": (_through_argv(train.main), f"run.local=true run.root=runs run.name={LONG}"),
    "a disk for the data": (_through_argv(train.main), "run.local=true run.root=runs data.stage_to={}"),
    "dry run with one": (_through_argv(train.main), f"--dry-run run.local=true run.root=runs data.stage_to={LONG}"),
    "a disk for checkpoints": (
        _through_argv(train.main),
        "run.local=true run.root=runs checkpoints.mirror=file:///dev/null",
    ),
    "a disk for MLflow": (_through_argv(train.main), "run.local=true run.root=runs tracking.uri=sqlite:///{}/x.db"),
    "tune's disk for data": (_through_argv(tune.main), "run.root=runs data.stage_to={}/below"),
    "tune": (_through_argv(tune.main), "run.root={}"),
    "walkers": (walkers.main, "--out {}"),
    "walkers' sheet": (walkers.main, "--preset tiny --out w --sheet {}/x.png"),
    "export": (export.main, "--checkpoint run --format pt2 --out {}/x.pt2"),
    "search": (search.main, "--checkpoint run --gallery . --index {}/x.idx"),
    "search's sheet": (search.main, "--checkpoint run --index x.idx --query file --sheet {}/x.png"),
    "search's answers": (search.main, "--checkpoint run --index x.idx --query file --json {}/x.json"),
    "generate": (generate.main, "--checkpoint run --images . --out {}"),
    "estimate": (estimator.main, "estimate --images . --out {}/x.npz"),
    "estimate's sheet": (estimator.main, "estimate --images . --out x.npz --sheet {}/x.png"),
    "estimator": (pretrain.main, "estimator --out {}/x.safetensors"),
    "scores": (_through_argv(evaluate.main), "--checkpoint run --data walkers --json {}/x.json"),
    "report": (_through_argv(evaluate.main), "--checkpoint run --data walkers --report {}"),
    "no checkpoint": (_through_argv(evaluate.main), "--checkpoint nowhere --data walkers"),
    "one place for index and answers": (
        search.main,
        "--checkpoint run --gallery . --index x --query file --json ./x",
    ),
    "one place for question and answers": (
        search.main,
        "--checkpoint run --index x.idx --query x.png --sheet ./x.png",
    ),
    "one place for scores": (_through_argv(evaluate.main), "--checkpoint run --data walkers --json x --against x"),
    "scores in the report's page": (
        _through_argv(evaluate.main),
        "--checkpoint run --data walkers --json x/index.html --report x",
    ),
    "a report among photos": (
        _through_argv(evaluate.main),
        "--checkpoint run --data labelled --root . data.pattern=x --report report",
    ),
    "a run among photos": (_through_argv(train.main), "--config folder run.local=true data.root=."),
    "a copy within its origin": (
        _through_argv(train.main),
        "--config walkers run.local=true run.root=/tmp data.root=. data.stage_to=x",
    ),
    "nobody's photos": (search.main, "--checkpoint run --index x.idx --gallery ~nobody_here/crops"),
    "nobody's set": (_through_argv(evaluate.main), "--checkpoint run --data walkers --root ~nobody_here/w"),
    "nobody's config": (_through_argv(train.main), "--config ~nobody_here/x.yaml"),
    "nobody's crops": (footage.main, "--camera a --frames . --detect --out ~nobody_here/x"),
    "nobody's people": (generate.main, "--checkpoint run --images . --out ~nobody_here/x"),
    "nobody's bodies": (estimator.main, "estimate --images ~nobody_here --out x.npz"),
    "nobody's weights": (pretrain.main, "encoder --out ~nobody_here/x.safetensors"),
    "nobody's walkers": (walkers.main, "--out ~nobody_here/x"),
    "footage": (footage.main, "--camera a --frames . --detect --out {}/x"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_try_them_before_they_begin(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def worked(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the work has begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rendering, "render", worked)
    monkeypatch.setattr(walkers, "render", worked)
    if name != "no checkpoint":
        monkeypatch.setattr(Encoder, "load", worked)
    monkeypatch.setattr(sys, "argv", sys.argv)
    (tmp_path / "file").touch()
    call, arguments = COMMANDS[name]
    with pytest.raises(SystemExit) as ended:
        call(arguments.format("file").split())
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    said = ("not a folder", "Not a directory", "too long", "nowhere", "nobody here", "are one place", "lies in")
    assert any(words in error for words in said), error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_database_of_mlflow_lies_below_a_name_that_is_no_text() -> None:
    for overrides in (["tracking.enabled=false"], ["tracking.uri=http://mlflow.example"]):
        check_places(load_config(None, ["run.root=by\udcffte", *overrides]), workers_here=True)
    with pytest.raises(
        UserError, match=r"run\.root=.*by.te: bytes that are no text in UTF-8.*tracking\.enabled=false"
    ):
        check_places(load_config(None, ["run.root=by\udcffte"]), workers_here=True)


def test_a_cache_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as ended:
        walkers.main(["--preset", "tiny"])
    assert ended.value.code == 2 and "JGCL_RAY_CACHE" in capsys.readouterr().err


def test_a_cache_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for given, expected in (
        ("~/kept", "/home/me/kept"),
        ("kept", f"{tmp_path}/kept"),
        ("", "/home/me/.cache/jgcl_ray"),
    ):
        monkeypatch.setenv("JGCL_RAY_CACHE", given)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert cache_folder() == Path(expected)
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert cache_folder() == Path("/big/jgcl_ray")
    monkeypatch.setenv("JGCL_RAY_CACHE", "~nobody_here/x")
    with pytest.raises(UserError, match="nobody here"):
        cache_folder()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JGCL_RAY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UserError, match="JGCL_RAY_CACHE"):
        cache_folder()


def test_a_file_above_the_limit_of_sizes_is_named(tmp_path: Path) -> None:
    tensors = {"x": torch.zeros(10_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"x\.bin: larger than a file may be there; .*ulimit -f"):
            write_bytes(tmp_path / "x.bin", bytes(2000))
        with (
            pytest.raises(UserError, match=r"x\.safetensors: larger than a file may be there"),
            replacing(tmp_path / "x.safetensors") as partial,
        ):
            save_file(tensors, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["projections", "a copy of the photos", "walkers"])
def test_a_disk_that_fills_up_is_named(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What writes knows a number alone, not which file or disk."""

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr(staging, "_copy", full)
    monkeypatch.setattr(rendering, "_render_photo", full)
    calls: dict[str, Callable[[], object]] = {
        "projections": lambda: write_atomically(
            np.zeros((4, 2), np.uint8), tmp_path / "out" / "a.png", tmp_path / "o"
        ),
        "a copy of the photos": lambda: staging.stage_folder(tmp_path / "photos", tmp_path / "out"),
        "walkers": lambda: rendering.render(tmp_path / "out", rendering.WalkersSize(2, 2, 4, 0, 32), 1, workers=1),
    }
    with pytest.raises(UserError, match=f"{tmp_path}/out.*: its disk is full"):
        calls[where]()
