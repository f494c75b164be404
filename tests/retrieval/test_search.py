"""The command: building, growing, shrinking and asking an index of a few pictures."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_run
from PIL import Image

from jgcl_ray.camera_means import CameraMeans
from jgcl_ray.encoder import Encoder
from jgcl_ray.retrieval import answers, request
from jgcl_ray.retrieval.index import GalleryIndex
from jgcl_ray.search import main
from jgcl_ray.writer_lock import only_writer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.jpg"):
        path = tmp_path / "gallery" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (64, 32, 3), dtype=np.uint8)).save(path)
    (tmp_path / "gallery" / "notes.txt").write_text("no image")
    return tmp_path / "gallery"


@pytest.fixture
def built(run: Path, gallery: Path) -> Path:
    index = gallery.parent / "people.idx"
    main(["--checkpoint", str(run), "--index", str(index), "--gallery", str(gallery)])
    return index


def call(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        call(*arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_answers_are_those_of_the_embeddings(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query, sheet, file = gallery / "b" / "3.png", tmp_path / "sheet.png", tmp_path / "answers.json"
    capsys.readouterr()
    call("--checkpoint", run, "--index", built, "--query", query, "-k", 3, "--sheet", sheet, "--json", file)
    paths = sorted(str(path) for path in gallery.rglob("*.*g"))
    embeddings = Encoder.load(run).embed(paths)
    distances = np.linalg.norm(embeddings - embeddings[paths.index(str(query))], axis=1)
    order = distances.argsort()[:3]
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(int(rank), path) for rank, _, path in lines] == [(i + 1, paths[row]) for i, row in enumerate(order)]
    np.testing.assert_allclose([float(distance) for _, distance, _ in lines], distances[order], atol=1e-3)
    [answer] = json.loads(file.read_text())
    assert answer["query"] == str(query) and answer["paths"] == [path for _, _, path in lines]
    with Image.open(sheet) as picture:
        assert picture.width > 4 * 128  # the query and three answers


def test_images_come_and_go(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Encoder.load(run)
    shutil.copy(gallery / "a" / "1.png", gallery / "b" / "5.png")
    altered = gallery / "a" / "2.png"
    shutil.copy(gallery / "b" / "3.png", altered)
    os.utime(altered, ns=(1, 1))
    capsys.readouterr()
    call("--checkpoint", run, "--index", built, "--add", gallery / "b", gallery / "a")
    assert "2 added, 0 removed, 5 images" in capsys.readouterr().err
    index = GalleryIndex.load(built)
    np.testing.assert_allclose(index.embeddings(), encoder.embed(index.paths), atol=1e-5)
    shutil.rmtree(gallery / "b")
    call("--index", built, "--remove", gallery / "b", gallery / "a" / "1.png")
    assert "0 added, 4 removed, 1 image\n" in capsys.readouterr().err
    assert GalleryIndex.load(built).paths == [str(altered)]


def test_a_photo_is_in_once_whatever_the_way_to_it(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    capsys.readouterr()
    call("--checkpoint", run, "--index", built, "--add", tmp_path / "sub" / ".." / "gallery" / "a")
    assert "0 added, 0 removed, 4 images" in capsys.readouterr().err
    call("--index", built, "--remove", tmp_path / "sub" / ".." / "gallery" / "b" / "3.png")
    assert "0 added, 1 removed, 3 images" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(gallery / "a")  # link/.. is gallery
    call("--checkpoint", run, "--index", built, "--add", tmp_path / "link" / ".." / "b")
    assert "1 added, 0 removed, 4 images" in capsys.readouterr().err
    assert sorted(GalleryIndex.load(built).paths) == sorted(str(path) for path in gallery.rglob("*.*g"))


def test_flip_and_camera_means_are_kept_in_the_index(
    run: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, query = tmp_path / "centred.idx", gallery / "b" / "3.png"
    call("--checkpoint", run, "--index", index, "--gallery", gallery, "--flip", "--camera-means")
    assert "cameras: a (2), b (2)" in capsys.readouterr().err
    paths = sorted(str(path) for path in gallery.rglob("*.*g"))
    plain = Encoder.load(run, flip=True).embed(paths)
    means = CameraMeans.of(plain, [Path(path).parent.name for path in paths])
    by_camera = {"a": means.means[0], "b": means.means[1], None: plain.mean(axis=0)}

    def centred(row: int, camera: str | None) -> np.ndarray:
        shifted = plain[row] - by_camera[camera]
        return shifted / np.linalg.norm(shifted)

    expected = np.stack([centred(row, Path(path).parent.name) for row, path in enumerate(paths)])
    loaded = GalleryIndex.load(index)
    np.testing.assert_allclose(loaded.embeddings()[np.argsort(loaded.paths)], expected, atol=1e-3)
    for camera, option in (("b", ("--camera", "b")), ("a", ("--camera", "a")), (None, ())):
        call("--checkpoint", run, "--index", index, "--query", query, "-k", 4, *option)
        distances = np.linalg.norm(expected - centred(paths.index(str(query)), camera), axis=1)
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        found = {path: float(distance) for _, distance, path in lines}
        np.testing.assert_allclose([found[path] for path in paths], distances, atol=2e-3)
    assert "camera c has no mean feature; those that have one: a, b" in refused(
        capsys, "--checkpoint", run, "--index", index, "--query", query, "--camera", "c"
    )


def test_an_index_of_three_sizes_knows_them(
    run: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, query = tmp_path / "sizes.idx", gallery / "b" / "3.png"
    call("--checkpoint", run, "--index", index, "--gallery", gallery, "--multi-scale")
    capsys.readouterr()
    call("--checkpoint", run, "--index", index, "--query", query, "-k", 4)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    paths = [path for _, _, path in lines]
    embeddings = Encoder.load(run, multi_scale=True).embed([*paths, query])
    expected = np.linalg.norm(embeddings[:4] - embeddings[4], axis=1)
    np.testing.assert_allclose([float(distance) for _, distance, _ in lines], expected, atol=2e-3)
    plain = Encoder.load(run).embed([*paths, query])
    assert np.abs(np.linalg.norm(plain[:4] - plain[4], axis=1) - expected).max() > 5e-3
    told = refused(capsys, "--checkpoint", run, "--index", index, "--query", query, "--multi-scale")
    assert "an index knows its own" in told


def test_added_images_are_centred_by_the_means_that_the_index_has(
    run: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    index, means = tmp_path / "centred.idx", tmp_path / "means"
    call("--checkpoint", run, "--index", index, "--gallery", gallery, "--camera-means")
    before = GalleryIndex.load(index).camera_means
    assert before is not None and "camera a has fewer than 10 images" in caplog.text
    (gallery / "b" / "track").mkdir()
    for place in (
        gallery / "b" / "track" / "5.png",
        means / "c" / "6.png",
        means / "c" / "7.png",
        tmp_path / "8.png",
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(gallery / "a" / f"{1 + (place.name == '7.png')}.png", place)
    call("--checkpoint", run, "--index", index, "--add", gallery / "b" / "track", means)
    assert "cameras: b (1), c (2)" in capsys.readouterr().err  # a known camera's folder counts, however deep
    call("--checkpoint", run, "--index", index, "--add", tmp_path / "8.png", "--camera", "a")
    after = GalleryIndex.load(index)
    assert after.camera_means is not None and after.camera_means.cameras == ("a", "b", "c") and len(after) == 8
    np.testing.assert_array_equal(after.camera_means.means[:2], before.means)
    rows = {Path(path).name: row for row, path in enumerate(after.paths)}
    encoder, found = Encoder.load(run), after.embeddings()
    for name, column in (("5.png", 1), ("7.png", 2), ("8.png", 0)):
        shifted = encoder.embed([after.paths[rows[name]]])[0] - after.camera_means.means[column]
        np.testing.assert_allclose(found[rows[name]], shifted / np.linalg.norm(shifted), atol=1e-3)


def test_answers_outlive_their_files(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = shutil.copy(gallery / "a" / "1.png", tmp_path / "query.png")
    shutil.rmtree(gallery)
    call("--checkpoint", run, "--index", built, "--query", query, query, "--sheet", tmp_path / "sheet.png")
    assert capsys.readouterr().out.count(str(gallery / "a" / "1.png")) == 2
    assert (tmp_path / "sheet.png").is_file()


def test_answers_are_told_where_the_sheet_cannot_be_written(
    run: Path, gallery: Path, built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sheet.png")

    monkeypatch.setattr(answers, "write_picture", full)
    query, sheet = gallery / "a" / "1.png", built.parent / "sheet.png"
    with pytest.raises(SystemExit) as ended:
        call("--checkpoint", run, "--index", built, "--query", query, "--sheet", sheet)
    told = capsys.readouterr()
    assert ended.value.code == 2 and told.err.splitlines()[-1].startswith("error: sheet.png: No space left")
    assert told.out.splitlines()[0].endswith(f"\t{query}")


def test_a_photo_replaced_by_another_of_the_same_date_is_noticed_by_its_size(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = shutil.copy(gallery / "a" / "1.png", tmp_path / "query.png")
    replaced = gallery / "a" / "1.png"
    date = replaced.stat().st_mtime_ns
    with Image.open(replaced) as image:
        image.resize((7, 9)).save(replaced)
    os.utime(replaced, ns=(date, date))
    call("--checkpoint", run, "--index", built, "--query", query)
    assert f"changed since being embedded, first {replaced}; " in capsys.readouterr().err
    call("--checkpoint", run, "--index", built, "--add", gallery)
    assert ": 1 added," in capsys.readouterr().err


def test_photos_that_went_or_changed_since_are_named(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = shutil.copy(gallery / "a" / "1.png", tmp_path / "query.png")
    call("--checkpoint", run, "--index", built, "--query", query)
    assert "note:" not in capsys.readouterr().err
    (gallery / "a" / "1.png").rename(gallery / "a" / "new name.png")
    shutil.copy(gallery / "b" / "3.png", gallery / "a" / "2.png")
    call("--checkpoint", run, "--index", built, "--query", query)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(notes) == 2
    assert f"no longer on disk, first {gallery}/a/1.png; take out what is gone by --remove" in notes[0]
    assert f"changed since being embedded, first {gallery}/a/2.png; put what has changed in again" in notes[1]

    call("--checkpoint", run, "--index", built, "--add", gallery / "b")
    assert "note:" not in capsys.readouterr().err
    call("--checkpoint", run, "--index", built, "--add", gallery)
    assert f"1 image is in the index, but no longer on disk, first {gallery}/a/1.png" in capsys.readouterr().err
    call("--checkpoint", run, "--index", built, "--remove", gallery / "a" / "1.png", "--query", query)
    assert "note:" not in capsys.readouterr().err


def test_a_change_by_another_command_is_not_overwritten(
    run: Path, gallery: Path, built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(gallery / "a" / "1.png", gallery / "b" / "5.png")
    add_images = request.add_images

    def remove_meanwhile(*given, **options) -> int:
        call("--index", built, "--remove", gallery / "a")
        return add_images(*given, **options)

    monkeypatch.setattr(request, "add_images", remove_meanwhile)
    message = refused(capsys, "--checkpoint", run, "--index", built, "--add", gallery / "b")
    assert "changed by another command meanwhile" in message
    assert len(GalleryIndex.load(built)) == 2


def test_two_commands_do_not_write_at_once(
    run: Path, gallery: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the last look at the file to its replacement."""
    before = built.read_bytes()
    with only_writer(built.parent, "", f".{built.name}.lock"):
        message = refused(capsys, "--index", built, "--remove", gallery / "a")
    assert "writes there since" in message and "give this command again" in message
    assert built.read_bytes() == before
    call("--index", built, "--remove", gallery / "a")
    assert built.read_bytes() != before and not list(built.parent.glob(".*.lock"))


def test_what_is_no_index_is_said_to_be_none(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the advice of numpy's to load it all the same."""
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    message = refused(capsys, "--checkpoint", "rendered", "--index", text, "--query", gallery / "a" / "1.png")
    assert "not a readable index; build it again" in message and "pickle" not in message
    message = refused(capsys, "--checkpoint", "rendered", "--index", tmp_path, "--query", gallery / "a" / "1.png")
    assert "a folder; give the name of an index's file" in message


def test_another_encoder_is_refused(
    gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "other", seed=1)
    before = built.read_bytes()
    for action in ("--query", "--add"):
        message = refused(capsys, "--checkpoint", other, "--index", built, action, gallery / "a" / "1.png")
        assert "built with another encoder" in message
    assert built.read_bytes() == before


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_an_image_that_is_no_file_is_named(
    kind: str, run: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, build = (
        gallery / "a" / "odd.jpg",
        ("--checkpoint", run, "--index", tmp_path / "odd.idx", "--gallery", gallery),
    )
    if kind == "link":
        odd.symlink_to(tmp_path / "unmounted" / "odd.jpg")
    else:
        os.mkfifo(odd)
    reason = (
        "a link to .*unmounted/odd.jpg, which is not there" if kind == "link" else "a pipe or a device, not a file"
    )
    assert re.search(rf"odd.jpg: cannot be read as an image \({reason}\)", refused(capsys, *build))
    call(*build, "--skip-unreadable")
    assert "4 added" in capsys.readouterr().err


def test_unreadable_images_stop_it_or_are_left_out(
    run: Path, gallery: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    index = gallery.parent / "people.idx"
    (gallery / "a" / "broken.jpg").write_bytes(b"no image")
    assert "broken.jpg: cannot be read" in refused(
        capsys, "--checkpoint", run, "--index", index, "--gallery", gallery
    )
    assert not index.exists()
    call("--checkpoint", run, "--index", index, "--gallery", gallery, "--skip-unreadable")
    assert len(GalleryIndex.load(index)) == 4 and "broken.jpg" in caplog.text


def test_mistakes_are_one_line(
    run: Path, gallery: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, empty = tmp_path / "thesis.txt", tmp_path / "empty"
    own.write_text("years of work")
    empty.mkdir()
    precious = tmp_path / "precious.npz"
    np.savez(precious, paths=np.zeros(3))
    content = precious.read_bytes()
    with_encoder = ("--checkpoint", run, "--index", built)
    cases = {
        "nothing to do": with_encoder,
        "--checkpoint is missing": ("--index", built, "--add", gallery),
        "no such index": ("--checkpoint", run, "--index", tmp_path / "none", "--add", gallery),
        "that jgcl_ray wrote; delete it": ("--checkpoint", run, "--index", own, "--gallery", gallery),
        f"--index {precious}: exists": ("--checkpoint", run, "--index", precious, "--gallery", gallery),
        "holds no image": ("--checkpoint", run, "--index", built, "--gallery", empty),
        "not in the index": ("--index", built, "--remove", tmp_path / "elsewhere"),
        "no such file": (*with_encoder, "--query", tmp_path / "absent.jpg"),
        f"--query {gallery}: a folder": (*with_encoder, "--query", gallery),
        "later than --until 3": (*with_encoder, "--query", gallery / "a/1.png", "--since", 5, "--until", 3),
        "not a whole number from 1 to 1,000,000,000; see python -m jgcl_ray.search --help": (*with_encoder, "-k", 0),
        "there is no folder": ("--checkpoint", run, "--index", tmp_path / "no/x.idx", "--gallery", gallery),
        "an index knows its own": (*with_encoder, "--add", gallery, "--height", 64),
        "--flip, --multi-scale and --camera-means are of a new index": (*with_encoder, "--add", gallery, "--flip"),
        "takes off no camera means": (*with_encoder, "--query", gallery / "a/1.png", "--camera", "a"),
        "in --gallery the folders are the cameras": (*with_encoder, "--gallery", gallery, "--camera", "a"),
        "there is one camera's folder alone": (*with_encoder, "--gallery", gallery.parent, "--camera-means"),
        "1.png lies in no camera's folder": (*with_encoder, "--gallery", gallery / "a", "--camera-means"),
        "ends in .png or .jpg": (*with_encoder, "--query", gallery / "a/1.png", "--sheet", tmp_path / "sheet.abc"),
    }
    for message, arguments in cases.items():
        error = refused(capsys, *arguments)
        assert message in error and "Traceback" not in error, error
    assert own.read_text() == "years of work" and precious.read_bytes() == content
    assert len(GalleryIndex.load(built)) == 4
    call("--index", built, "--remove", gallery)
    assert "the index is empty" in refused(capsys, *with_encoder, "--query", gallery / "a" / "1.png")
