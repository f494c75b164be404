"""Search by track: what `footage` writes, cameras and times, and indexes that know nothing of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_run
from PIL import Image

from jgcl_ray.contact_sheet import Tile, contact_sheet
from jgcl_ray.encoder import Encoder
from jgcl_ray.retrieval import answers
from jgcl_ray.retrieval.index import GalleryIndex
from jgcl_ray.search import main

pytestmark = pytest.mark.usefixtures("one_thread")

TRACKS = {"door/1": (0.0, 1.0, 2.5), "door/2": (2.0, 3.0), "yard/1": (10.0, 11.0), "yard/7": (12.0,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tracks as `footage` writes them."""
    random, root, rows = np.random.default_rng(0), tmp_path_factory.mktemp("crops"), ["file,time"]
    for track, times in TRACKS.items():
        (root / track).mkdir(parents=True)
        for frame, time in enumerate(times):
            path = f"{track}/{frame:06d}.png"
            Image.fromarray(random.integers(0, 256, (64, 32, 3), dtype=np.uint8)).save(root / path)
            rows.append(f"{path},{time}")
    (root / "tracks.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def built(run: Path, crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("index") / "people.idx"
    call("--checkpoint", run, "--index", index, "--gallery", crops)
    return index


def call(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[list[str]]:
    capsys.readouterr()
    call(*arguments)
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_tracks_come_in_the_order_of_their_nearest_crops(
    run: Path, crops: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query, sheet, file = crops / "door/1/000001.png", tmp_path / "sheet.png", tmp_path / "answers.json"
    asked = ("--checkpoint", run, "--index", built, "--query", query, "--by", "track", "-k", 3)
    lines = lines_of(capsys, *asked, "--sheet", sheet, "--json", file)
    paths = sorted(str(path) for path in crops.rglob("*.png"))
    embeddings = Encoder.load(run).embed(paths)
    distances = np.linalg.norm(embeddings - embeddings[paths.index(str(query))], axis=1)
    best: dict[str, int] = {}
    for row in distances.argsort():
        best.setdefault("/".join(Path(paths[row]).parts[-3:-1]), int(row))
    expected = list(best.items())[:3]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    assert [line[2] for line in lines] == [track for track, _ in expected]
    assert [line[4] for line in lines] == [paths[row] for _, row in expected]
    assert [line[3] for line in lines] == [f"{min(TRACKS[t]):g} to {max(TRACKS[t]):g}" for t, _ in expected]
    [answer] = json.loads(file.read_text())
    assert answer["tracks"] == [track for track, _ in expected] and len(answer["spans"]) == 3
    with Image.open(sheet) as picture:
        assert picture.width > 4 * 128


def test_cameras_and_times_are_kept_to(
    run: Path, crops: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--checkpoint", run, "--index", built, "--query", crops / "door/1/000001.png", "-k", 10)
    tracks = {line[2] for line in lines_of(capsys, *asked, "--by", "track", "--in-camera", "yard")}
    assert tracks == {"yard/1", "yard/7"}
    tracks = {line[2] for line in lines_of(capsys, *asked, "--by", "track", "--since", 2.5, "--until", 11)}
    assert tracks == {"door/1", "door/2", "yard/1"}
    images = {line[2] for line in lines_of(capsys, *asked, "--since", 2, "--until", 3, "--in-camera", "door")}
    assert {str(Path(path).relative_to(crops)) for path in images} == {
        "door/1/000002.png",
        "door/2/000000.png",
        "door/2/000001.png",
    }


def test_the_sheet_names_camera_and_track(
    run: Path, crops: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def drawn(rows: Sequence[Sequence[Tile | None]], **_: int) -> Image.Image:
        captions.extend(tile.caption for row in rows for tile in row if tile is not None)
        return contact_sheet(rows)

    monkeypatch.setattr(answers, "contact_sheet", drawn)
    asked = ("--checkpoint", run, "--index", built, "--query", crops / "door/1/000001.png", "--sheet")
    call(*asked, tmp_path / "all.png", "-k", 3)
    assert captions[:2] == ["query\ndoor/1\n000001", "1   distance 0.000\ndoor/1\n000001"]
    call(*asked, tmp_path / "some.png", "--in-camera", "yard", "--until", 11.5)
    assert {caption.split("\n")[1] for caption in captions[-2:]} == {"yard/1"}
    call(*asked, tmp_path / "tracks.png", "--by", "track", "-k", 1)
    start, end = min(TRACKS["door/1"]), max(TRACKS["door/1"])
    assert captions[-1] == f"1   distance 0.000\ndoor/1\n{start:g} to {end:g} s"


def test_times_that_nothing_is_of_are_told_with_those_there_are(
    run: Path, crops: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call("--checkpoint", run, "--index", built, "--query", crops / "door/1/000001.png", "--since", 600)
    assert "its cameras are door, yard, its times 0 to 12" in capsys.readouterr().err


def test_sightings_are_kept_through_adding_and_removing(run: Path, crops: Path, tmp_path: Path) -> None:
    index = tmp_path / "grown.idx"
    call("--checkpoint", run, "--index", index, "--gallery", crops / "yard")
    call("--checkpoint", run, "--index", index, "--add", crops / "door" / "2", crops / "door" / "1" / "000000.png")
    call("--index", index, "--remove", crops / "yard" / "1")
    loaded = GalleryIndex.load(index)
    seen = {
        str(Path(path).relative_to(crops)): (one.camera, one.track, one.time)
        for path, one in zip(loaded.paths, loaded.sightings, strict=True)
    }
    assert seen == {
        "door/1/000000.png": ("door", "1", 0.0),
        "door/2/000000.png": ("door", "2", 2.0),
        "door/2/000001.png": ("door", "2", 3.0),
        "yard/7/000000.png": ("yard", "7", 12.0),
    }


def test_an_index_of_before_answers_by_image_and_refuses_tracks(
    run: Path, crops: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.idx"
    with np.load(built) as arrays, old.open("wb") as file:
        kept = {name: arrays[name] for name in ("card", "paths", "stamps", "index")}
        np.savez(file, **kept | {"stamps": kept["stamps"][:, 0]})
    call("--checkpoint", run, "--index", old, "--add", crops)
    assert ": 0 added," in capsys.readouterr().err, "their sizes are not known, their dates are the same"
    asked = ("--checkpoint", run, "--index", old, "--query", crops / "door/1/000001.png")
    assert len(lines_of(capsys, *asked)) == 8
    for more in (("--by", "track"), ("--in-camera", "door")):
        with pytest.raises(SystemExit) as exit_:
            call(*asked, *more)
        assert exit_.value.code == 2 and "knows no cameras and tracks" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("--checkpoint", run, "--index", built, "--query", crops / "door/1/000001.png", "--in-camera", "roof")
    assert "its cameras are door, yard" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("--index", built, "--remove", crops / "yard", "--by", "track")
    assert "are of the answers to a --query" in capsys.readouterr().err
