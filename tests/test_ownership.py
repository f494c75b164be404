"""What jgcl_ray wrote may be replaced; any other file at an output's name is refused before the work begins."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pytest
import torch
from checkpoints import write_run
from PIL import Image
from safetensors.torch import save_file

from jgcl_ray import evaluate, export, generate, pretrain, search
from jgcl_ray.atomic import write_json
from jgcl_ray.config import load_config
from jgcl_ray.contact_sheet import check_sheet
from jgcl_ray.data.walkers import __main__ as walkers
from jgcl_ray.data.walkers import rendering
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.report import check_report
from jgcl_ray.footage import __main__ as footage
from jgcl_ray.footage.summary import check_tables, write_summary, write_tables
from jgcl_ray.image_files import write_picture
from jgcl_ray.meshes.body_parameters import read_body_parameters, write_body_parameters
from jgcl_ray.meshes.drawing import DrawJob, _claim
from jgcl_ray.meshes.estimator import WEIGHTS
from jgcl_ray.meshes.estimator import __main__ as estimator
from jgcl_ray.ownership import (
    is_answers,
    is_body_parameters,
    is_estimator,
    is_export,
    is_index,
    is_page,
    is_picture,
    is_saved_by_torch,
    is_scores,
    is_view_scores,
    refuse_foreign,
)
from jgcl_ray.retrieval.answers import Answer
from jgcl_ray.retrieval.index import GalleryIndex, IndexSpec
from jgcl_ray.training.checkpoint import Checkpoints
from jgcl_ray.training.prepare import Plan, check_folder
from jgcl_ray.tuning.record import open_folder
from jgcl_ray.tuning.space import SweepConfig, check_space

PRECIOUS = b"years of work"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".gif"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    ours, other, picture = tmp_path / f"ours{suffix}", tmp_path / f"other{suffix}", Image.new("RGB", (9, 9), "red")
    write_picture(picture, ours)
    picture.save(other)
    assert is_picture(ours) and not is_picture(other)
    check_sheet(ours, "--sheet")
    with pytest.raises(UserError, match=rf"--sheet {other}: exists and does not look like .*; delete it, or give"):
        check_sheet(other, "--sheet")
    other.write_bytes(b"")  # nothing to lose
    check_sheet(other, "--sheet")


def test_weights_of_encoders(tmp_path: Path) -> None:  # of exports: test_export.py
    run = write_run(tmp_path / "run", "data.height=64", "data.width=48")
    assert not is_export((run / "checkpoints" / "latest").resolve() / "encoder.safetensors")  # a run needs this one
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pt2")
    assert not is_export(tmp_path / "x.pt2") and is_saved_by_torch(tmp_path / "x.pt2")


def test_weights_of_the_estimator(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors", {"command": "python -m mine"})
    save_file(
        {"x": torch.zeros(3)}, tmp_path / "old.safetensors", {"command": "python -m jgcl_ray.meshes.estimator train"}
    )
    assert is_estimator(WEIGHTS) and is_estimator(tmp_path / "old.safetensors")
    assert not is_estimator(tmp_path / "other.safetensors")


def test_body_parameters(tmp_path: Path) -> None:
    given = {"pose": np.zeros((1, 24, 3)), "betas": np.zeros((1, 10)), "camera": np.array([[1.0, 0, 0]])}
    np.savez(tmp_path / "spins.npz", names=np.array(["a.jpg"]), **given)
    write_body_parameters(read_body_parameters(tmp_path / "spins.npz"), tmp_path / "ours.npz")
    assert is_body_parameters(tmp_path / "ours.npz") and not is_body_parameters(tmp_path / "spins.npz")
    read_body_parameters(tmp_path / "ours.npz")
    (tmp_path / "spins.npz").write_bytes(b"PK")
    assert not is_body_parameters(tmp_path / "spins.npz")


def test_indices(tmp_path: Path) -> None:
    file = tmp_path / "people.idx"
    GalleryIndex(IndexSpec("f", 64, 32, 8)).save(file)
    assert is_index(file)
    np.savez(tmp_path / "other.npz", paths=np.zeros(3))
    assert not is_index(tmp_path / "other.npz")


@pytest.mark.parametrize("other", ["[]", "{}", "3", "[3]", '[{"query": 1}]', '{"mAP": 1}', "text", "[" * 100_000])
def test_documents(tmp_path: Path, other: str) -> None:
    file = tmp_path / "file.json"
    write_json(file, [asdict(Answer("q.jpg", ("a.jpg",), (0.5,)))])
    assert is_answers(file) and not is_scores(file)
    write_json(file, {"mAP": 0.5, "cmc": [1.0], "queries": 1, "gallery": 2})
    assert is_scores(file) and not is_answers(file)
    file.write_text(other)
    assert not (is_answers(file) or is_scores(file) or is_view_scores(file) or is_page(file))


def test_tables_of_footage(tmp_path: Path) -> None:
    write_tables(tmp_path, [])
    write_summary(tmp_path, [])
    check_tables(tmp_path)
    for name in ("tracks.csv", "spans.csv", "summary.json"):
        (tmp_path / name).write_bytes(PRECIOUS)
        with pytest.raises(UserError, match=f"--out .*{name}: exists and does not look like"):
            check_tables(tmp_path)
        write_tables(tmp_path, [])
        write_summary(tmp_path, [])


@pytest.mark.parametrize("name", ["index.html", "scores.json", "accuracy.png", "rankings_worst.png", "clusters.png"])
def test_reports(tmp_path: Path, name: str) -> None:
    (tmp_path / "thesis.pdf").write_bytes(PRECIOUS)  # stays beside it
    check_report(tmp_path)
    (tmp_path / name).write_bytes(PRECIOUS)
    with pytest.raises(UserError, match=f"--report .*{name}: exists and does not look like"):
        check_report(tmp_path)


def test_folders_of_sweeps(tmp_path: Path) -> None:
    base = load_config("walkers", [f"run.root={tmp_path}"])
    space = check_space("mine", SweepConfig(trials=2, fields={"losses.image_cycle": {"uniform": [1.0, 2.0]}}), base)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "best.yaml").write_bytes(PRECIOUS)
    with pytest.raises(UserError, match=r"s exists and is no sweep's, it holds best\.yaml: give another run\.name"):
        open_folder(tmp_path / "s", base, space)
    (tmp_path / "s" / "best.yaml").unlink()
    open_folder(tmp_path / "s", base, space)
    (tmp_path / "s" / "best.yaml").touch()
    open_folder(tmp_path / "s", base, space)


@pytest.mark.parametrize("name", ["metrics.jsonl", "bodies.npz", "artifacts/a.txt", "model/weights.bin"])
def test_folders_of_runs(tmp_path: Path, name: str) -> None:
    plan = Plan(load_config("walkers", [f"run.root={tmp_path}", "run.name=thesis"]), cast(Any, None), None, b"")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "train.log").touch()  # in nobody's way
    check_folder(plan)
    (tmp_path / "thesis" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "thesis" / name).write_bytes(PRECIOUS)
    told = (
        rf"thesis exists and is no run's: it holds {name.split('/')[0]} and no config\.yaml; give another run\.name"
    )
    with pytest.raises(UserError, match=told):
        check_folder(plan)


def test_projections_of_others_are_not_taken_for_drawn(tmp_path: Path) -> None:
    (tmp_path / "bodies.npz").write_bytes(b"parameters")
    job = DrawJob(tmp_path / "bodies.npz", None, tmp_path / "out", "train", 64, 32, "embree")
    picture = tmp_path / "out" / "train" / "render_45" / "sub" / "a.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(PRECIOUS)
    with pytest.raises(UserError, match=rf"{picture}: a picture that this command did not draw; give another --out"):
        _claim(job)
    picture.unlink()
    _claim(job)
    picture.touch()  # drawn since
    _claim(job)
    (tmp_path / "out" / "train" / "drawn_from.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"drawn_from\.json"):
        _claim(job)


def test_checkpoints_of_others_stay_and_are_not_gone_on_from(tmp_path: Path) -> None:
    first = Checkpoints(write_run(tmp_path) / "checkpoints").newest()
    assert first is not None
    copies = {"zebra", "before", f"{first.name}-copy"}
    for name in copies:
        shutil.copytree(first, first.with_name(name))
    assert Checkpoints(first.parent).newest() == first
    for seed in (1, 2):
        write_run(tmp_path, seed=seed)
    there = {path.name for path in first.parent.iterdir() if not path.is_symlink()}
    assert there == {*copies, "step0000001", "step0000002"}  # of ours the newest two


def test_a_link_is_what_it_points_at(tmp_path: Path) -> None:
    (tmp_path / "precious.json").write_bytes(PRECIOUS)
    (tmp_path / "link.json").symlink_to(tmp_path / "precious.json")
    with pytest.raises(UserError, match=r"--json .*link\.json: exists"):
        refuse_foreign(tmp_path / "link.json", "--json", is_scores)


def _through_argv(command: Callable[[], None]) -> Callable[[list[str]], None]:
    def call(arguments: list[str]) -> None:
        sys.argv = ["command", *arguments]
        command()

    return call


COMMANDS: dict[str, tuple[Callable[[list[str]], None], str, str]] = {  # arguments, and the file that is in the way
    "walkers' sheet": (walkers.main, "--preset tiny --out w --sheet x.png", "x.png"),
    "export": (export.main, "--checkpoint run --format pt2 --out x.pt2", "x.pt2"),
    "export of weights": (export.main, "--checkpoint run --format safetensors --out x.safetensors", "x.safetensors"),
    "export to ONNX": (export.main, "--checkpoint run --format onnx --out x.onnx", "x.onnx"),
    "search": (search.main, "--checkpoint run --gallery . --index x.idx", "x.idx"),
    "search's sheet": (search.main, "--checkpoint run --index i --query q --sheet x.png", "x.png"),
    "search's answers": (search.main, "--checkpoint run --index i --query q --json x.json", "x.json"),
    "generate": (generate.main, "--checkpoint run --images . --out out", "out/train/render_45/a.png"),
    "generate's sheet": (generate.main, "--checkpoint run --images . --out out", "out/grid.png"),
    "generate's turntables": (generate.main, "--checkpoint run --images . --out out", "out/turntables/a.gif"),
    "generate's scores": (generate.main, "--checkpoint run --images . --out out --score", "out/scores.json"),
    "estimate": (estimator.main, "estimate --images . --out x.npz", "x.npz"),
    "estimate's sheet": (estimator.main, "estimate --images . --out x.npz --sheet x.png", "x.png"),
    "estimator": (pretrain.main, "estimator --out x.safetensors", "x.safetensors"),
    "estimator's checkpoint": (pretrain.main, "estimator --out x.safetensors", "x.safetensors.training"),
    "scores": (_through_argv(evaluate.main), "--checkpoint run --data walkers --json x.json", "x.json"),
    "report": (_through_argv(evaluate.main), "--checkpoint run --data walkers --report out", "out/index.html"),
    "footage": (footage.main, "--camera a --frames frames --tracks t.txt --out out", "out/tracks.csv"),
    "footage's sheet": (footage.main, "--camera a --frames frames --tracks t.txt --out out --sheet x.jpg", "x.jpg"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_what_is_not_ours(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def worked(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the work has begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rendering, "render", worked)
    monkeypatch.setattr(walkers, "render", worked)
    monkeypatch.setattr(Encoder, "load", worked)
    monkeypatch.setattr(sys, "argv", sys.argv)
    call, arguments, at = COMMANDS[name]
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "frames" / "1.png")
    (tmp_path / "t.txt").write_text("1,1,0,0,9,20,1,-1,-1,-1\n")
    (tmp_path / "q").touch()
    file = tmp_path / at
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(PRECIOUS)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        call(arguments.split())
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: --") and error.count("\n") == 1, error
    assert at in error and "does not look like a file of this kind that jgcl_ray wrote; delete it" in error, error
    assert file.read_bytes() == PRECIOUS and sorted(tmp_path.rglob("*")) == before
