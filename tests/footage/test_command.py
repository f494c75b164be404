"""`python -m jgcl_ray.footage` from footage and tracks to folders of crops."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scene
from PIL import Image
from scene import COUNT

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.folder import read_folder
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.errors import UserError
from jgcl_ray.footage import camera, command, job
from jgcl_ray.footage.__main__ import main
from jgcl_ray.footage.command import Request, extract_crops
from jgcl_ray.footage.sampling import Sampling
from jgcl_ray.footage.sources import Source, sequences
from jgcl_ray.footage.summary import write_tables


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def assert_right_people(out: Path, name: str) -> None:
    """Every crop shows whom its folder names, where the tracks have it in that frame."""
    for file in (out / name).rglob("*.jpg"):
        track, frame = int(file.parent.name), int(file.stem)
        assert scene.has_colour(file, track), file
        box = {t: box for t, *box in scene.boxes(frame)}[track]
        assert Image.open(file).size == tuple(box[2:])


def test_crops_tables_summary_and_sheet(tmp_path: Path, door: Source, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "crops"
    arguments = [
        "--tracks",
        door.tracks,
        "--camera",
        "door",
        "--frames",
        door.frames,
        "--fps",
        "10",
        "--start",
        "100",
    ]
    main([*map(str, arguments), "--out", str(out), "--per-track", "4"])
    told = capsys.readouterr()
    assert "door: 2 tracks, 8 crops" in told.out and "the first frame is 1" in told.err
    lengths = told.out.partition("tracks by length:\n")[2].splitlines()
    assert [line.partition(" s ")[0].strip() for line in lengths if " s " in line] == ["2 to 4"]
    assert {path.name for path in (out / "door").iterdir()} == {"0001", "0002"}
    assert_right_people(out, "door")
    rows = table(out / "tracks.csv")
    columns = "file,camera,track,frame,time,left,top,width,height,confidence,quality,overlap"
    assert (out / "tracks.csv").read_text().splitlines()[0] == columns
    assert [row["file"] for row in rows] == [
        f"door/{Path(name).parent.name}/{Path(name).name}" for name in files(out / "door")
    ]
    for row in rows:
        frame = int(row["frame"])
        box = {t: box for t, *box in scene.boxes(frame)}[int(row["track"])]
        assert [float(row[name]) for name in ("left", "top", "width", "height")] == box
        assert float(row["time"]) == pytest.approx(100 + (frame - 1) / 10, abs=1e-3)
        assert float(row["confidence"]) == 0.9 and 0 < float(row["quality"]) <= 1 and float(row["overlap"]) == 0
    spans = table(out / "spans.csv")
    expected = {"camera": "door", "track": "0001", "first": "1", "last": "40", "start": "100.0", "end": "103.9"}
    assert spans[0] == expected | {"boxes": "40", "crops": "4"}
    counted = json.loads((out / "summary.json").read_text())
    assert (counted["cameras"], counted["tracks"], counted["crops"]) == (1, 2, 8)
    assert counted["seconds_per_track"]["2 to 4 s"] == 2 and counted["crops_per_track"] == {"4": 2}
    assert Image.open(out / ".footage" / "sheet.png").width > 400
    frames = sorted(int(row["frame"]) for row in rows if row["track"] == "0001")
    assert frames[0] <= 10 and frames[-1] >= 31  # spread over the track


def test_a_video_gives_what_its_frames_give(tmp_path: Path, door: Source) -> None:
    pytest.importorskip("cv2", reason="videos need opencv-python-headless (extra footage)")
    video = scene.write_video(tmp_path / "door.avi", COUNT)
    filmed = Source("filmed", video=video, tracks=door.tracks)
    extract_crops(Request((filmed, door), tmp_path / "crops", sampling=Sampling(views=False), workers=0))
    assert_right_people(tmp_path / "crops", "filmed")
    rows = [row for row in table(tmp_path / "crops" / "tracks.csv") if row["camera"] == "filmed"]
    assert len(rows) >= 12
    for row in rows:
        assert float(row["time"]) == pytest.approx((int(row["frame"]) - 1) / scene.RATE, abs=2e-3)


def test_same_command_again_does_nothing(tmp_path: Path, door: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "crops"
    extract_crops(Request((door,), out))
    before = files(out)
    states = {path: path.stat().st_mtime_ns for path in (out / "door").rglob("*.jpg")}
    monkeypatch.setattr(job, "tracklets", lambda *_: pytest.fail("a finished camera is done again"))
    extract_crops(Request((door,), out))
    assert files(out) == before and {path: path.stat().st_mtime_ns for path in states} == states


def test_other_settings_do_it_again(tmp_path: Path, door: Source) -> None:
    out = tmp_path / "crops"
    extract_crops(Request((door,), out))
    extract_crops(Request((door,), out, sampling=Sampling(per_track=2)))
    assert len(files(out / "door")) == 4 == len(table(out / "tracks.csv"))


def test_other_footage_is_refused_and_replaced_only_when_asked(
    tmp_path: Path, door: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a finished camera and of one under way; nothing is lost."""
    out, other = tmp_path / "crops", scene.write_frames(tmp_path / "other", COUNT)
    extract_crops(Request((door,), out))
    before, record = files(out), out / ".footage" / "door.json"
    capsys.readouterr()
    arguments = ["--camera", "door", "--frames", str(other), "--tracks", str(door.tracks), "--fps", "10"]
    journal, digest = record.with_suffix(".jsonl"), json.loads(record.read_text())["digest"]
    for half in (False, True):
        if half:
            record.unlink()
            journal.write_text(json.dumps({"digest": digest, "footage": str(door.frames)}) + "\n")
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--out", str(out)])
        told = capsys.readouterr().err
        assert ended.value.code == 2 and told.count("\n") == 1 and files(out) == before
        assert f"camera door: its crops in {out}/door are of {door.frames}, not of {other}: give another" in told
        assert "--replace" in told
    main([*arguments, "--out", str(out), "--replace"])
    assert "cut anew" in capsys.readouterr().err
    assert json.loads(record.read_text())["footage"] == str(other) and files(out).keys() == before.keys()


def test_a_camera_whose_crops_are_gone_is_cut_again(tmp_path: Path, door: Source) -> None:
    extract_crops(Request((door,), tmp_path / "crops"))
    before = files(tmp_path / "crops")
    shutil.rmtree(tmp_path / "crops" / "door")
    extract_crops(Request((door,), tmp_path / "crops"))
    assert before and files(tmp_path / "crops") == before


def test_people_below_the_least_height_are_left_out_and_counted(
    tmp_path: Path, door: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door.tracks is not None
    small = "".join(f"{frame},9,{2 * frame},4,6,12,1,-1,-1,-1\n" for frame in range(1, COUNT + 1))
    door.tracks.write_text(door.tracks.read_text().rstrip("\n") + "\n" + small)
    extract_crops(Request((door,), tmp_path / "crops"))
    told = capsys.readouterr().err
    assert f"{COUNT} boxes lower than 24 pixels (--min-height) left out" in told
    assert "1 track left out, with no other boxes than these" in told
    assert {path.name for path in (tmp_path / "crops" / "door").iterdir()} == {"0001", "0002"}
    assert {row["track"] for row in table(tmp_path / "crops" / "spans.csv")} == {"0001", "0002"}
    with pytest.raises(UserError, match=r"no box is left \(.*lower than 1000 pixels"):
        extract_crops(Request((door,), tmp_path / "crops", sampling=Sampling(min_height=1000)))
    assert {path.name for path in (tmp_path / "crops" / "door").iterdir()} == {"0001", "0002"}  # none lost


def test_a_failed_command_costs_no_crops_and_makes_no_empty_tables(tmp_path: Path, door: Source) -> None:
    assert door.tracks is not None
    good = door.tracks.read_text()
    door.tracks.write_text(scene.mot_lines(400))
    with pytest.raises(UserError, match="beyond the end"):
        extract_crops(Request((door,), tmp_path / "crops"))
    assert not (tmp_path / "crops" / "tracks.csv").exists() and not (tmp_path / "crops" / "door").exists()
    door.tracks.write_text(good)
    extract_crops(Request((door,), tmp_path / "crops"))
    before = files(tmp_path / "crops")
    door.tracks.write_text(scene.mot_lines(400))
    with pytest.raises(UserError, match="beyond the end"):
        extract_crops(Request((door,), tmp_path / "crops"))
    assert before and files(tmp_path / "crops") == before


@pytest.mark.parametrize("below", [".", "door", "door/0001"])
def test_half_of_the_crops_are_not_taken_for_the_whole(
    tmp_path: Path, door: Source, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    written, out = job._write, tmp_path / "crops"
    ended: list[int] = []

    def stop(*given: Any) -> Any:
        if ended:
            raise KeyboardInterrupt
        ended.append(given[2].track)
        return written(*given)

    with monkeypatch.context() as patch:
        patch.setattr(job, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            extract_crops(Request((door,), out))
    told = r"crops/door: half of the crops only.* give that command again.*delete .*door\.jsonl"
    with pytest.raises(UserError, match=told):
        image_tree(out / below)
    with pytest.raises(UserError, match=told):
        read_folder(DataConfig(name="folder", root=out))
    (tmp_path / "crops" / "hall").mkdir()
    shutil.copy(next((out / "door" / f"{ended[0]:04d}").iterdir()), out / "hall" / "a.jpg")
    assert image_tree(out / "hall") == ("a.jpg",)
    extract_crops(Request((door,), out))
    assert image_tree(out / below)


def test_a_stopped_command_goes_on(tmp_path: Path, door: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole", tmp_path / "crops"
    assert door.tracks is not None
    lines = [
        line
        for line in door.tracks.read_text().splitlines()
        if line[-20:] and not (line.split(",")[1] == "1" and int(line.split(",")[0]) > 20)
    ]
    door.tracks.write_text("\n".join(lines))  # track 1 ends before track 2
    extract_crops(Request((door,), whole))
    written = job._write

    def stop(*given: Any) -> Any:
        if given[2].track == 2:
            (given[0].folder / ".0002.partial").mkdir()
            raise KeyboardInterrupt
        return written(*given)

    monkeypatch.setattr(job, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        extract_crops(Request((door,), out))
    assert (out / "door" / "0001").is_dir() and not (out / "door" / "0002").exists()
    again: list[int] = []

    def count(*given: Any) -> Any:
        again.append(given[2].track)
        return written(*given)

    monkeypatch.setattr(job, "_write", count)
    extract_crops(Request((door,), out))
    assert again == [2]
    assert {k: v for k, v in files(out).items() if k[0] != "."} == {
        k: v for k, v in files(whole).items() if k[0] != "."
    }
    assert (out / "tracks.csv").read_bytes() == (whole / "tracks.csv").read_bytes()
    assert (out / "spans.csv").read_bytes() == (whole / "spans.csv").read_bytes()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, door: Source) -> None:
    mine = tmp_path / "crops" / "door" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(UserError, match="not made by this command"):
        extract_crops(Request((door,), tmp_path / "crops"))
    assert mine.exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left; free some and give the command again"),
        (errno.EFBIG, "a file would be larger than allowed"),
    ],
)
def test_a_full_disk(tmp_path: Path, door: Source, monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    """One line; with room again the command goes on and the result is whole."""
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.parent.name == ".0002.partial":
            raise OSError(number, os.strerror(number), str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match=said):
            extract_crops(Request((door,), tmp_path / "crops"))
    extract_crops(Request((door,), tmp_path / "crops"))
    assert {path.name for path in (tmp_path / "crops" / "door").iterdir()} == {"0001", "0002"}
    assert_right_people(tmp_path / "crops", "door")


def test_two_commands_do_not_cut_one_camera(
    tmp_path: Path, door: Source, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--frames", str(door.frames), "--tracks", str(door.tracks), "--out", str(tmp_path / "crops")]
    told: list[str] = []

    def second_command(*given: Any) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["--camera", "door", *arguments])
        told.append(capsys.readouterr().err)
        assert ended.value.code == 2
        monkeypatch.setattr(command, "work", job.work)
        main(["--camera", "hall", *arguments])
        return job.work(*given)

    monkeypatch.setattr(command, "work", second_command)
    main(["--camera", "door", *arguments])
    assert "writes there since" in told[0] and "another --out" in told[0] and told[0].count("\n") == 1
    assert {row["camera"] for row in table(tmp_path / "crops" / "tracks.csv")} == {"door", "hall"}
    assert not list((tmp_path / "crops").glob("**/*.lock"))


def test_tables_hold_a_camera_that_another_command_finishes_meanwhile(
    tmp_path: Path, door: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the records and the last table one command writes."""
    arguments = ["--frames", str(door.frames), "--tracks", str(door.tracks), "--out", str(tmp_path / "crops")]
    other: list[subprocess.Popen[bytes]] = []

    def other_meanwhile(*given: Any) -> None:
        hall = [sys.executable, "-m", "jgcl_ray.footage", "--camera", "hall", *arguments]
        other.append(subprocess.Popen(hall, stderr=subprocess.PIPE))
        assert other[0].stderr is not None
        assert any(b"waiting for another process" in line for line in other[0].stderr)
        monkeypatch.setattr(command, "write_tables", write_tables)
        write_tables(*given)

    monkeypatch.setattr(command, "write_tables", other_meanwhile)
    main(["--camera", "door", *arguments])
    assert other[0].wait() == 0
    assert {row["camera"] for row in table(tmp_path / "crops" / "tracks.csv")} == {"door", "hall"}
    assert set(json.loads((tmp_path / "crops" / "summary.json").read_text())["by_camera"]) == {"door", "hall"}


def test_one_bad_camera_does_not_cost_the_others(
    tmp_path: Path, door: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text(scene.mot_lines(400))
    sources = tmp_path / "cameras.yaml"
    sources.write_text("cameras:\n- {camera: door, frames: door, tracks: door.txt, fps: 10}\n"
                       "- {camera: hall, frames: door, tracks: bad.txt}\n")  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(["--sources", str(sources), "--out", str(tmp_path / "crops"), "--workers", "0"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "error:" in told.splitlines()[-1] and "beyond the end" in told.splitlines()[-1]
    assert len(table(tmp_path / "crops" / "tracks.csv")) > 0
    assert {row["camera"] for row in table(tmp_path / "crops" / "tracks.csv")} == {"door"}


@pytest.mark.parametrize("end", [".json", ".jsonl"])
def test_a_damaged_record_is_told_and_what_it_tells_helps(tmp_path: Path, door: Source, end: str) -> None:
    out = tmp_path / "crops"
    extract_crops(Request((door,), out))
    whole, record = files(out), out / ".footage" / "door.json"
    if end == ".jsonl":
        record.unlink()
    record.with_suffix(end).write_text("[]\n")
    with pytest.raises(
        UserError, match=rf"door\{end}.*: damaged .*; delete it and the folder {out}/door, the camera"
    ):
        extract_crops(Request((door,), out))
    assert files(out) == whole
    record.with_suffix(end).unlink()
    shutil.rmtree(out / "door")
    extract_crops(Request((door,), out))
    assert files(out) == whole


def test_over_ray(tmp_path: Path, door: Source) -> None:
    """Two cameras side by side: the same files as one after the other."""
    arguments = ["--per-track", "3", "--no-views", "--fps", "10"]
    for name in ("a", "b"):
        arguments += ["--camera", name, "--frames", str(door.frames), "--tracks", str(door.tracks)]
    arguments = [*arguments[:3], *arguments[5:]]
    main([*arguments, "--out", str(tmp_path / "here"), "--workers", "0"])
    command = [sys.executable, "-m", "jgcl_ray.footage", *arguments, "--out", str(tmp_path / "ray"), "--workers", "2"]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (
        files(tmp_path / "ray") == files(tmp_path / "here") and "all 2 cameras: 4 tracks, 12 crops" in result.stdout
    )
    assert (tmp_path / "ray" / "tracks.csv").read_bytes() == (tmp_path / "here" / "tracks.csv").read_bytes()


@pytest.mark.parametrize("given", ["sequence", "frames", "img1"])
def test_motchallenge_folders(tmp_path: Path, given: str) -> None:
    root = tmp_path / "MOT17-99-FRCNN"
    scene.write_frames(root / "img1", COUNT)
    (root / "gt").mkdir()
    (root / "det").mkdir()
    (root / "gt" / "gt.txt").write_text(scene.mot_lines(COUNT, form="{f},{t},{l},{p},{w},{h},1,1,1"))
    info = f"[Sequence]\nname=MOT17-99\nimDir=img1\nframeRate=20\nseqLength={COUNT}\nimExt=.jpg\n"
    (root / "seqinfo.ini").write_text(info)
    given_as = {
        "sequence": ["--sequence", str(tmp_path)],
        "frames": ["--camera", "MOT17-99", "--frames", str(root)],
        "img1": ["--camera", "MOT17-99", "--frames", str(root / "img1")],
    }
    main([*given_as[given], "--out", str(tmp_path / "crops"), "--no-views"])
    rows = table(tmp_path / "crops" / "tracks.csv")
    assert {row["track"] for row in rows} == {"0001", "0002"} and {row["camera"] for row in rows} == {"MOT17-99"}
    assert all(float(row["time"]) == pytest.approx((int(row["frame"]) - 1) / 20, abs=1e-3) for row in rows)


def test_of_three_copies_of_a_sequence_one_is_taken(tmp_path: Path) -> None:
    for name in ("MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-02-SDP", "MOT17-04-SDP", "PETS09-S2L1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seqinfo.ini").write_text(f"[Sequence]\nname={name}\n")
    assert [source.camera for source in sequences(tmp_path)] == ["MOT17-02-FRCNN", "MOT17-04-SDP", "PETS09-S2L1"]


def test_a_crossing_is_avoided(tmp_path: Path) -> None:
    """Of two people who cross, the crops are of the time before and after."""
    frames = scene.write_frames(tmp_path / "frames", COUNT)
    tracks = tmp_path / "tracks.txt"
    lines = []
    for frame in range(1, COUNT + 1):
        lines += [f"{frame},1,{3 * frame},10,16,34,1", f"{frame},2,{3 * COUNT - 3 * frame},12,16,34,1"]
    tracks.write_text("\n".join(lines))
    extract_crops(Request((Source("c", frames=frames, tracks=tracks, fps=10.0),), tmp_path / "crops"))
    rows = table(tmp_path / "crops" / "tracks.csv")
    assert len(rows) > 8 and max(float(row["overlap"]) for row in rows) <= 0.7


def test_directions_are_those_of_files(tmp_path: Path, door: Source) -> None:
    """The estimator sees crops in memory as it sees them in files."""
    from jgcl_ray.meshes.estimator import HEIGHT, WIDTH, BodyEstimator

    estimator = BodyEstimator()
    assert door.frames is not None
    names = sorted(path.name for path in door.frames.iterdir())[:3]
    small = [
        np.asarray(Image.open(door.frames / name).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) for name in names
    ]
    yaw, deviation = estimator.directions_of(np.stack(small), np.array([(scene.HEIGHT, scene.WIDTH)] * 3))
    whole = estimator.estimate(door.frames, names)
    np.testing.assert_allclose(deviation, whole.deviation, rtol=0.2)
    turned = np.abs((yaw - whole.yaw + 180) % 360 - 180)
    assert turned.max() < 20
    assert camera.HEIGHT == HEIGHT
