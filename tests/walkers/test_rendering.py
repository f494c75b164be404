"""A small set, rendered: files, truth, repeatability, resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jgcl_ray.batches import NOVEL_VIEWS
from jgcl_ray.data.walkers import WalkersSize, render, rendering
from jgcl_ray.data.walkers.sheet import contact_sheet
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.projection_folders import VIEWS, view_folder

SIZE = WalkersSize(train=2, test=2, images=4, true_views=3, height=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walkers") / "set"
    render(folder, SIZE, seed=5, workers=1)
    return folder


def pictures(root: Path) -> dict[str, np.ndarray]:
    """What the files show; that PNG's compressor writes the same bytes each time is not ours to promise."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".jpg", ".png")):
        with Image.open(path) as picture:
            found[str(path.relative_to(root))] = np.asarray(picture)
    return found


def assert_same(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> None:
    """The same pictures, but for one pixel of one of them (docs/data_sets.md)."""
    assert some.keys() == others.keys()
    unlike = {name: int((some[name] != others[name]).sum()) for name in some if (some[name] != others[name]).any()}
    for name, pixels in unlike.items():
        print(
            name, pixels, "pixels", some[name][some[name] != others[name]], others[name][some[name] != others[name]]
        )
    assert len(unlike) <= 1 and all(pixels == 1 and name.endswith(".png") for name, pixels in unlike.items()), unlike


def test_layout(root: Path) -> None:
    with np.load(root / "views.npz", allow_pickle=False) as views:
        names = views["names"].tolist()
        assert views["shape"].shape == (len(names), 6)
        assert views["photos"].shape == (3, len(NOVEL_VIEWS), 64, 32, 3)
        assert len(views["photo_rows"]) == 3
        assert views["rotation"].shape == (len(names), 3, 3)
    on_disk = {f"{p.parent.name}/{p.name}" for p in root.glob("*/*.jpg")}
    assert on_disk == set(names)
    for name in names:
        with Image.open(root / name) as photo:
            assert 64 <= photo.height <= 180 and 0.3 < photo.width / photo.height < 0.65
        split = "train" if name.startswith("bounding_box_train") else "test"
        for view in VIEWS:
            png = (view_folder(root / "meshes", split, view) / Path(name).name).with_suffix(".png")
            with Image.open(png) as grey:
                assert grey.mode == "L" and grey.size == (32, 64)


def test_projection_of_a_turn_is_the_turned_projection(root: Path) -> None:
    """Eight views are eight different pictures of about the same area."""
    for file in sorted((root / "meshes" / "train" / "render").glob("*.png")):
        masks = []
        for view in VIEWS:
            grey = np.asarray(Image.open(view_folder(root / "meshes", "train", view) / file.name))
            masks.append(grey != 128)
        areas = [mask.mean() for mask in masks]
        assert min(areas) > 0.05 and max(areas) < 0.6
        assert len({mask.tobytes() for mask in masks}) == len(VIEWS)


def test_true_views_show_the_same_scene_and_another_side(root: Path) -> None:
    with np.load(root / "views.npz", allow_pickle=False) as views:
        photos = views["photos"].astype(float)
    sides, middle = photos[:, :, 4:20, :2], photos[:, :, 20:44, 12:20]
    assert np.median(np.abs(sides[:, 3] - sides[:, 0])) <= 2  # the backdrop beside the head stays
    assert np.median(np.abs(middle[:, 3] - middle[:, 0])) > 2  # the walker turns


def test_same_arguments_same_pictures_also_with_two_processes(root: Path, tmp_path: Path) -> None:
    render(tmp_path / "again", SIZE, seed=5, workers=2)
    assert_same(pictures(tmp_path / "again"), pictures(root))


def test_ctrl_c_is_heard_by_the_parent_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Else each process would tell in a page where it was interrupted."""
    asks = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with rendering.deaf_children():
        subprocess.run([sys.executable, "-c", asks], check=True)
    subprocess.run([sys.executable, "-c", asks], check=True)
    assert capfd.readouterr().out.split() == ["True", "False"]
    done, before = False, signal.signal(signal.SIGINT, signal.default_int_handler)  # another test may have set one
    try:
        with pytest.raises(KeyboardInterrupt), rendering.deaf_children():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # no other thread's business
            done = True
    finally:
        signal.signal(signal.SIGINT, before)
    assert done, "heard when all is started"


def test_interrupted_rendering_is_resumed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jgcl_ray.data.walkers import rendering

    real, calls = rendering._render_photo, []

    def stop_after_five(*arguments) -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(arguments[1])
        real(*arguments)

    monkeypatch.setattr(rendering, "_render_photo", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path / "set", SIZE, seed=5, workers=1)
    assert not (tmp_path / "set").exists()
    done = []
    monkeypatch.setattr(rendering, "_render_photo", lambda *a: (done.append(a[1]), real(*a))[1])
    render(tmp_path / "set", SIZE, seed=5, workers=1)
    assert not set(calls) & set(done)
    assert_same(pictures(tmp_path / "set"), pictures(root))


def test_who_comes_second_waits_and_finds_the_set(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from jgcl_ray.data.walkers import rendering

    real, begun, rendered = rendering._render_set, threading.Event(), []

    def slowly(*arguments) -> None:
        begun.set()
        time.sleep(0.5)  # the other one comes
        rendered.append(arguments)
        real(*arguments)

    monkeypatch.setattr(rendering, "_render_set", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(render, tmp_path / "set", SIZE, 5, 1)
        assert begun.wait(30)
        second = pool.submit(render, tmp_path / "set", SIZE, 5, 1)
        first.result(), second.result()
    assert len(rendered) == 1 and "waiting for another process" in caplog.text
    assert_same(pictures(tmp_path / "set"), pictures(root))


def test_tables_are_made_before_the_processes_that_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all but one of them say on a machine's first run that they wait for another process."""
    from jgcl_ray.data.walkers import rendering

    done: list[str] = []

    def started(*_: object, **__: object) -> None:
        done.append("processes")
        raise InterruptedError

    monkeypatch.setattr(rendering, "make_anny_tables", lambda: done.append("tables"))
    monkeypatch.setattr(rendering, "ProcessPoolExecutor", started)
    with pytest.raises(InterruptedError):
        render(tmp_path / "set", SIZE, seed=5, workers=2)
    assert done == ["tables", "processes"]


def test_finished_set_is_kept_and_another_is_refused(root: Path) -> None:
    before = (root / "views.npz").stat().st_mtime_ns
    render(root, SIZE, seed=5, workers=1)
    assert (root / "views.npz").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="is not the set asked for"):
        render(root, SIZE, seed=6, workers=1)
    assert json.loads((root / "walkers.json").read_text())["seed"] == 5


def test_contact_sheet_shows_photos_and_projections(root: Path) -> None:
    sheet = contact_sheet(root, identities=2, images=4, turned=1)
    assert sheet.size == (8 * 68 + 4, 4 * 132 + 4)
    assert np.asarray(sheet).std() > 20


def test_photos_alone_are_the_same_photos(root: Path, tmp_path: Path) -> None:
    render(tmp_path / "photos", replace(SIZE, true_views=0, projections=False), seed=5, workers=1)
    assert not (tmp_path / "photos" / "meshes").exists()
    photos = {name: picture for name, picture in pictures(root).items() if "meshes" not in name}
    assert_same(pictures(tmp_path / "photos"), photos)


def test_test_photos_without_truth_are_the_same_photos(root: Path, tmp_path: Path) -> None:
    """Two queries alone have projections and true views; the photos themselves do not change."""
    render(tmp_path / "set", replace(SIZE, test_views=2), seed=5, workers=1)
    few = pictures(tmp_path / "set")
    photos = {name: picture for name, picture in pictures(root).items() if "meshes" not in name}
    assert_same({name: picture for name, picture in few.items() if "meshes" not in name}, photos)
    with np.load(tmp_path / "set" / "views.npz", allow_pickle=False) as views:
        seen = views["names"][views["photo_rows"]].tolist()
    in_test = [Path(name).stem for name in seen if name.startswith("query/")]
    assert len(in_test) == 2 and len(seen) == 2 + SIZE.true_views
    for view in VIEWS:
        assert {p.stem for p in view_folder(tmp_path / "set" / "meshes", "test", view).iterdir()} == set(in_test)
        assert len(list(view_folder(tmp_path / "set" / "meshes", "train", view).iterdir())) == 2 * SIZE.images
