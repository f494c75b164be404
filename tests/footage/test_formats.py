"""What each tracker writes, read as the same boxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scene

from jgcl_ray.errors import UserError
from jgcl_ray.footage.formats import read_rows
from jgcl_ray.footage.tracks import Filters, Footage, Tracks, people_of

COUNT = 6
FOOTAGE = Footage(scene.WIDTH, scene.HEIGHT, COUNT)

# The first frame, and what a line looks like; {f} frame, {t} track, {l} {p} {w} {h} box, {r} {b} its end.
LINES = {
    "MOTChallenge results, ByteTrack, OC-SORT": (1, "{f},{t},{l}.00,{p}.00,{w}.00,{h}.00,0.87,-1,-1,-1"),
    "ByteTrack's video demo": (0, "{f},{t},{l}.00,{p}.00,{w}.00,{h}.00,0.87,-1,-1,-1"),
    "commas and blanks": (1, "{f}, {t}, {l}, {p}, {w}, {h}, 1, -1, -1, -1"),
    "boxmot 2021": (1, "{f} {t} {l} {p} {w} {h} -1 -1 -1 -1"),
    "boxmot before its issue 217": (0, "{f} {t} {l} {p} {w} {h} -1 -1 -1 -1"),
    "boxmot 10": (1, "{f} {t} {l} {p} {w} {h} 0 0 -1"),
    "boxmot": (1, "{f},{t},{l},{p},{w},{h},1,1,0.871235"),
    "DeepSORT": (1, "{f},{t},{l}.00,{p}.00,{w}.00,{h}.00,1,-1,-1,-1"),
    "FairMOT": (1, "{f},{t},{l},{p},{w},{h},1,-1,-1,-1"),
    "FairMOT with scores": (1, "{f},{t},{l},{p},{w},{h},0.87,1,-1,-1,-1"),
    "FairMOT, KITTI": (0, "{f} {t} pedestrian 0 0 -10 {l} {p} {r} {b} -10 -10 -10 -1000 -1000 -1000 -10"),
    "Norfair": (1, "{f},{t},{l},{p},{w},{h},-1,-1,-1,-1"),
    "six columns": (1, "{f},{t},{l},{p},{w},{h}"),
    "NVIDIA": (0, "3 {t} {f} {l} {p} {w} {h} 12.345 -1.5"),
}


def read(path: Path, filters: Filters | None = None, footage: Footage = FOOTAGE, camera: str | None = None) -> Tracks:
    return people_of(read_rows(path, camera=camera), path, footage, filters or Filters())[0]


def assert_the_scene(tracks: Tracks, count: int = COUNT, tolerance: float = 1e-9) -> None:
    truth = [(frame, *box) for frame in range(1, count + 1) for box in scene.boxes(frame)]
    found = np.column_stack([tracks.frame, tracks.track, tracks.box])
    np.testing.assert_allclose(found, truth, atol=tolerance)


@pytest.mark.parametrize("name", LINES)
def test_a_line_a_box(tmp_path: Path, name: str) -> None:
    first, form = LINES[name]
    file = tmp_path / "clip.txt"
    file.write_text(scene.mot_lines(COUNT, first, form=form))
    tracks = read(file)
    assert_the_scene(tracks)
    scores = tracks.confidence[np.isfinite(tracks.confidence)]
    assert len(scores) == (len(tracks) if "0.87" in form or ",1,-1" in form or " 1, -1" in form else 0)


def test_zero_and_one_are_told_apart_or_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "clip.txt"
    file.write_text(scene.mot_lines(COUNT, 0))
    _, notes = people_of(read_rows(file), file, FOOTAGE, Filters())
    assert "the first frame is 0 (there is a frame 0" in notes[0]
    late = [line for line in scene.mot_lines(COUNT, 0).splitlines() if not line.startswith("0,")]
    file.write_text("\n".join(late))
    tracks, notes = people_of(read_rows(file), file, FOOTAGE, Filters())
    assert tracks.frame.min() == 1 and "the first frame is 1 (there is no frame 0" in notes[0]
    assert read(file, Filters(first_frame="0")).frame.min() == 2
    with pytest.raises(UserError, match="--first-frame is 1"):
        file.write_text(scene.mot_lines(COUNT, 0))
        read(file, Filters(first_frame="1"))


def test_names_of_frames_as_numbers(tmp_path: Path) -> None:
    """DeepSORT's frame is the number in the image's name."""
    file = tmp_path / "clip.txt"
    file.write_text(scene.mot_lines(COUNT, 100))
    footage = Footage(scene.WIDTH, scene.HEIGHT, COUNT, numbers=tuple(range(100, 100 + COUNT)))
    assert_the_scene(read(file, footage=footage))
    assert_the_scene(read(file, Filters(first_frame="names"), footage))


def ultralytics(form: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        labels = folder / "labels"
        labels.mkdir()
        for frame in range(1, COUNT + 1):
            lines = []
            for track, left, top, width, height in scene.boxes(frame):
                x, y = (left + width / 2) / scene.WIDTH, (top + height / 2) / scene.HEIGHT
                corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
                polygon = " ".join(f"{a / scene.WIDTH:.6g} {b / scene.HEIGHT:.6g}" for a, b in corners)
                shares = f"{x:.6g} {y:.6g} {width / scene.WIDTH:.6g} {height / scene.HEIGHT:.6g}"
                lines.append(form.format(box=shares, polygon=polygon, track=track))
            (labels / f"clip_{frame}.txt").write_text("\n".join(lines) + "\n")
        return labels

    return write


@pytest.mark.parametrize(
    "form",
    ["0 {box} {track}", "0 {box} 0.87 {track}", "0 {polygon} {track}", "0 {polygon} 0.87 {track}"],
    ids=["tracked", "with confidence", "polygons", "polygons with confidence"],
)
def test_ultralytics(tmp_path: Path, form: str) -> None:
    labels = ultralytics(form)(tmp_path)
    tracks = read(labels)
    assert_the_scene(tracks, tolerance=1e-3)
    assert np.isfinite(tracks.confidence).all() == ("0.87" in form)


def test_ultralytics_odd_lines(tmp_path: Path) -> None:
    """Boxes without a track, other classes, doubled lines of a second run, frames without a file."""
    labels = ultralytics("0 {box} {track}")(tmp_path)
    (labels / "clip_2.txt").unlink()
    with (labels / "clip_3.txt").open("a") as file:
        file.write("0 0.5 0.5 0.1 0.3\n2 0.5 0.5 0.1 0.3 9\n" + (labels / "clip_3.txt").read_text())
    tracks = read(labels)
    assert sorted(set(tracks.frame.tolist())) == [1, 3, 4, 5, 6]
    assert len(tracks) == 10 and set(tracks.track.tolist()) == {1, 2}


def test_ultralytics_without_frames_or_tracks(tmp_path: Path) -> None:
    one = tmp_path / "all.txt"
    one.write_text("0 0.5 0.5 0.1 0.3 1\n0 0.51 0.5 0.1 0.3 1\n")
    with pytest.raises(UserError, match="without numbers of frames"):
        read(one)
    with pytest.raises(UserError, match="no track numbers"):  # `yolo predict save_conf=True`
        read(ultralytics("0 {box} 0.87")(tmp_path))


def records(count: int = COUNT) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for frame in range(count):
        for track, left, top, width, height in scene.boxes(frame + 1):
            corners = {"x_min": left, "y_min": top, "x_max": left + width, "y_max": top + height}
            found.append({**corners, "class_id": 0, "confidence": 0.87, "tracker_id": track, "frame_number": frame})
    return found


def test_supervision(tmp_path: Path) -> None:
    rows = records()
    table, listed = tmp_path / "sink.csv", tmp_path / "sink.json"
    surplus = "0,0,9,9,0,0.5,,0\n1,1,9,9,2,0.5,77,0\n"  # nobody yet, a car
    table.write_text(
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n" + surplus
    )
    listed.write_text(json.dumps(rows))
    assert_the_scene(read(table))
    assert_the_scene(read(listed))


def test_numbers_with_decimals(tmp_path: Path) -> None:
    """As pandas writes a column of whole numbers in which one is missing."""
    file = tmp_path / "a.csv"
    rows = [f"{n + 1}.0,{t}.0,{x},{y},{w},{h},0.0" for n in range(COUNT) for t, x, y, w, h in scene.boxes(n + 1)]
    file.write_text("\n".join(["Frame,ID,bb_left,bb_top,bb_width,bb_height,class", *rows, "2.0,,5,5,9,9,0.0"]))
    assert_the_scene(read(file))


@pytest.mark.parametrize("shape", ["list of frames", "object of frames", "frames with detections", "lines"])
def test_ultralytics_json(tmp_path: Path, shape: str) -> None:
    """`Results.summary()` has no frames; people add them in one of these ways."""
    frames: list[list[dict[str, object]]] = [[] for _ in range(COUNT)]
    for number in range(COUNT):
        for track, left, top, width, height in scene.boxes(number + 1):
            box = {"x1": left, "y1": top, "x2": left + width, "y2": top + height}
            frames[number].append({"name": "person", "class": 0, "confidence": 0.87, "box": box, "track_id": track})
        frames[number].append({"name": "car", "class": 2, "confidence": 0.5, "box": box})
    contents = {
        "list of frames": json.dumps(frames),
        "object of frames": json.dumps({str(number): boxes for number, boxes in enumerate(frames)}),
        "frames with detections": json.dumps([{"frame": n, "detections": boxes} for n, boxes in enumerate(frames)]),
        "lines": "\n".join(json.dumps({**box, "frame": n}) for n, boxes in enumerate(frames) for box in boxes),
    }
    file = tmp_path / "tracks.json"
    file.write_text(contents[shape])
    assert_the_scene(read(file))


def test_deepstream(tmp_path: Path) -> None:
    for frame in range(COUNT):
        lines = [
            f"Person {t} 0.0 0 0.0 {x}.0 {y}.0 {x + w}.0 {y + h}.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.87"
            for t, x, y, w, h in scene.boxes(frame + 1)
        ]
        (tmp_path / f"00_000_{frame:06d}.txt").write_text("\n".join(lines))
    assert_the_scene(read(tmp_path))


def test_several_cameras_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mtmc.txt"
    file.write_text(
        scene.mot_lines(COUNT, 0, form="3 {t} {f} {l} {p} {w} {h} 1.5 2.5")
        + scene.mot_lines(COUNT, 0, form="4 {t} {f} 1 1 9 9 1.5 2.5")
    )
    with pytest.raises(UserError, match="holds the cameras 3, 4: say whose"):
        read(file)
    with pytest.raises(UserError, match="no camera 5"):
        read(file, camera="5")
    assert_the_scene(read(file, camera="3"))


def ground_truth(folder: Path, year: int) -> Path:
    (folder / "gt").mkdir()
    file = folder / "gt" / "gt.txt"
    lines = []
    for frame in range(1, COUNT + 1):
        for track, left, top, width, height in scene.boxes(frame):
            rest = "1,1,0.8" if year > 2015 else "1,-1,-1,-1"
            lines.append(f"{frame},{track},{left + 1},{top + 1},{width},{height},{rest}")
        ends = {2016: ["1,8,1", "0,1,1", "1,1,0.1"], 2015: ["0,-1,-1,-1"]}[year]
        lines += [f"{frame},{track},9,9,9,9,{end}" for track, end in enumerate(ends, 50)]
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("year", [2015, 2016])
def test_ground_truth(tmp_path: Path, year: int) -> None:
    """Flag, class (a distractor has flag 1) and visibility decide; pixels count from 1."""
    file = ground_truth(tmp_path, year)
    assert_the_scene(read(file))
    if year == 2016:
        assert set(read(file, Filters(classes=("8",))).track.tolist()) == {50}
        assert set(read(file, Filters(min_visibility=0.0)).track.tolist()) == {1, 2, 52}


def test_cvat(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "labels.txt").write_text("car\nperson\n")
    file = tmp_path / "gt" / "gt.txt"
    file.write_text(scene.mot_lines(COUNT, form="{f},{t},{l},{p},{w},{h},1,2,1.0") + "1,9,1,1,9,9,1,1,1.0\n")
    assert_the_scene(read(file))


def test_confidence(tmp_path: Path) -> None:
    file = tmp_path / "clip.txt"
    file.write_text(scene.mot_lines(COUNT, form="{f},{t},{l},{p},{w},{h},0.{t}5,-1,-1,-1"))
    assert set(read(file, Filters(min_confidence=0.2)).track.tolist()) == {2}
    file.write_text(scene.mot_lines(COUNT, form="{f},{t},{l},{p},{w},{h},-1,-1,-1,-1"))
    tracks, notes = people_of(read_rows(file), file, FOOTAGE, Filters(min_confidence=0.2))
    assert len(tracks) == 2 * COUNT and any("nothing to filter" in note for note in notes)


def bad(text: str, name: str = "clip.txt") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return write


BAD = {
    "shares of the frame": (
        bad("".join(f"{frame},1,0.2,0.3,0.1,0.25,0.9,-1,-1,-1\n" for frame in range(1, 6))),
        "all boxes lie between 0 and 1: shares of the frame, where MOT text has pixels; multiply left and "
        "width by 160, top and height by 120",
    ),
    "another video's frames": (bad(scene.mot_lines(50)), "lie beyond the end: its last frame is 50, and there are 6"),
    "another video's size": (
        bad(scene.mot_lines(6, form="{f},{t},{l}50,{p}50,90,90,1")),
        "outside the 160 x 120 frame",
    ),
    "semicolons": (bad("1;1;5;5;9;9;1\n"), "separated by ';'"),
    "detections": (bad(scene.mot_lines(6, form="{f},-1,{l},{p},{w},{h},0.9")), "no track numbers"),
    "a ragged line": (bad("1,1,5,5,9,9,1\n2,1,5,5\n"), "line 2: 4 columns"),
    "a word": (bad("1,1,5,5,9,9,1\n2,1,five,5,9,9,1\n"), "line 2: not numbers only"),
    "too few columns": (bad("1,1,55,55\n"), "4 columns"),
    "shares of a second": (bad("0.04,1,55,55,9,9\n"), "frame and track come first"),
    "no track column": (bad("frame,x1,y1,x2,y2\n1,5,5,9,9\n", "a.csv"), "no column for the track"),
    "no frame column": (bad("x_min,y_min,x_max,y_max,tracker_id\n5,5,9,9,1\n", "a.csv"), "no column for the frame"),
    "no box": (bad("frame,id,speed\n1,1,9\n", "a.csv"), "no box; expected"),
    "an unsaid class": (
        bad("frame,id,x1,y1,x2,y2,class_id\n1,1,5,5,9,9,4\n1,2,5,5,9,9,5\n", "a.csv"),
        "holds the classes 4 .1., 5 .1.: say which",
    ),
    "a pickle": (bad("", "results.pkl"), ".pkl files are not read"),
    "no JSON": (bad("[{", "a.json"), "no JSON"),
    "nothing": (bad("\n\n"), "empty"),
    "digits of another script": (bad("1,1,٥,5,9,9,1\n"), "line 1: not numbers only"),
    "a track of twenty digits": (
        bad("1,99999999999999999998,5,5,9,9,1\n1,99999999999999999999,50,5,9,9,1\n"),
        "box 1: track .* more than 15 digits",
    ),
    "half a track": (bad("frame,id,x,y,w,h\n1,1.5,5,5,9,9\n", "a.csv"), "box 1: track 1.5 is no whole number"),
    "no frame's number": (bad("frame,id,x,y,w,h\nnan,1,5,5,9,9\n", "a.csv"), "box 1: frame nan"),
    "a field without an end": (bad("frame,id,x,y,w,h\n" + '1,"' + "5" * 200_000, "a.csv"), "a.csv"),
    "JSON of nothing": (bad("null", "a.json"), "a.json: cannot be read as a track file"),
    "frames of nothing": (bad('{"1": null}', "a.json"), "a.json: cannot be read as a track file"),
    "too deep": (bad("[" * 100_000, "a.json"), "a.json: cannot be read as a track file"),
    "too many digits": (bad(f"[{'9' * 5000}]", "a.json"), "a.json: cannot be read as a track file"),
    "a switch": (bad('[{"frame": true, "id": 1, "x": 5, "y": 5, "w": 9, "h": 9}]', "a.json"), "no number: True"),
    "a word in KITTI's": (bad("0 1 Pedestrian 0 0 0 a 1 9 9 1 1 1 1 1 1 1\n"), "KITTI|kitti"),
    "no camera's number": (bad("nan 1 0 5 5 9 9 1 1\n" + "1 1 0 5 5 9 9 1 1\n"), "format nvidia"),
    "prose": (bad("these are my tracks\nof a walk today\n"), "no column for the frame"),
    "a class as track": (
        bad("".join(f"{f},1,{x},5,9,9,1\n" for f in range(1, 5) for x in (5, 50, 90, 20))),
        "no track number",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_line(tmp_path: Path, name: str) -> None:
    write, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        read(write(tmp_path))
    assert "\n" not in str(caught.value)


def test_boxes_that_stick_out(tmp_path: Path) -> None:
    """They stay as they were tracked; those wholly outside fall out."""
    file = tmp_path / "clip.txt"
    file.write_text(scene.mot_lines(COUNT) + "1,3,-8,5,20,30,1,-1,-1,-1\n2,3,-40,5,20,30,1,-1,-1,-1\n")
    tracks = read(file)
    assert tracks.box[tracks.track == 3].tolist() == [[-8, 5, 20, 30]]
