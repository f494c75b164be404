"""Crops in folders of tracks: tracklets, times and spans."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import Split, open_dataset
from jgcl_ray.errors import UserError

NAMES = [
    "cam10/0003/000050.jpg",
    "cam2/0007/000010.jpg",
    "cam2/0007/000020.jpg",
    "cam2/0010/000015.jpg",
]
TRACKS = "file,camera,track,frame,time,left,top,width,height,confidence,quality,overlap\n"
SPANS = "camera,track,first,last,start,end,boxes,crops\n"


def crops(root: Path, names: list[str] = NAMES) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(root: Path, **fields) -> Split:
    return open_dataset(DataConfig(name="folder", root=root, **fields)).train


def row(name: str, time: float) -> str:
    camera, track, frame = name.split("/")
    return f"{name},{camera},{track},{int(frame[:6])},{time},0,0,20,50,,0.5,0\n"


def refused(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tracklets_and_frame_numbers(tmp_path):
    dataset = open_dataset(DataConfig(name="folder", root=crops(tmp_path)))
    assert dataset.train.paths == tuple(NAMES) and dataset.camera_names == {1: "cam2", 2: "cam10"}
    assert dataset.train.tracklets.tolist() == [2, 0, 0, 1], "natural order, over all cameras"
    assert dataset.train.times.tolist() == [50, 10, 20, 15]
    assert dataset.train.tracklet_spans.tolist() == [[50, 50], [10, 20], [10, 20], [15, 15]]
    assert dataset.train.identities is None and dataset.query is None


def test_one_track_name_under_two_cameras(tmp_path):
    train = read(crops(tmp_path, ["a/1/000001.jpg", "b/1/000001.jpg"]))
    assert len(set(train.tracklets.tolist())) == 2


def test_times_of_the_table(tmp_path):
    crops(tmp_path)
    lines = [row(NAMES[0], 2.5), row(NAMES[1], 0.4), row(NAMES[2], 0.8), row("cam2/0099/000001.jpg", 9)]
    (tmp_path / "tracks.csv").write_text(TRACKS + "".join(lines))
    train = read(tmp_path)
    assert np.array_equal(train.times, [2.5, 0.4, 0.8, np.nan], equal_nan=True)
    assert np.array_equal(train.tracklet_spans[:, 1], [2.5, 0.8, 0.8, np.nan], equal_nan=True)
    (tmp_path / "spans.csv").write_text(SPANS + "cam2,0007,8,40,0.28,1.56,33,2\n")
    train = read(tmp_path)
    assert train.tracklet_spans[1].tolist() == train.tracklet_spans[2].tolist() == [0.28, 1.56]
    assert np.isnan(train.spans[[0, 3]]).all() and train.tracklet_spans[0].tolist() == [2.5, 2.5]
    assert train.take(np.array([2])).spans.tolist() == [[0.28, 1.56]]


def test_per_tracklet(tmp_path):
    names = [f"cam{c}/{t:04d}/{100 * t + f:06d}.jpg" for c in (1, 2) for t in (1, 2) for f in range(9)]
    train = read(crops(tmp_path, names), per_tracklet=3)
    assert train.times.tolist() == [100, 103, 106, 200, 203, 206] * 2
    assert train.tracklet_spans[:6].tolist() == [[100, 108]] * 3 + [[200, 208]] * 3, "of the whole track"


def test_numbers_that_begin_again_in_each_track(tmp_path):
    names = [f"door/{track}/{frame:04d}.jpg" for track in "abc" for frame in (1, 2)] + ["lift/x/0007.jpg"]
    with pytest.warns(UserWarning, match="most tracks of door begin with the same number"):
        train = read(crops(tmp_path, names))
    assert train.times is None and train.tracklet_spans is None and len(set(train.tracklets.tolist())) == 4


def test_names_without_numbers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(crops(tmp_path, ["a/x/left.jpg", "b/y/right.jpg"])).times is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("frame,when\n1,2\n", "no column file, time"),
        (TRACKS + row(NAMES[0], 1) + row(NAMES[1], 2).replace(",2,", ",soon,", 1), "tracks.csv:3"),
        (TRACKS + row("door/0001/000001.jpg", 1), "none of its 1 row "),
        (TRACKS + row(NAMES[0], 1) + row(NAMES[1], 2) + row(NAMES[0], 3), f"tracks.csv:4: {NAMES[0]} again"),
        (TRACKS + row(NAMES[0], "inf"), "tracks.csv:2: inf is no time"),
        (TRACKS + row(NAMES[0], "1e400"), "tracks.csv:2: 1e400 is no time"),
        (TRACKS + row(NAMES[0], 1) + row(NAMES[1], 2)[:30], "tracks.csv:3: the line ends before time"),
        ("", "no column file, time"),
    ],
)
def test_wrong_table(tmp_path, text, reason):
    crops(tmp_path)
    (tmp_path / "tracks.csv").write_text(text)
    message = refused(tmp_path)
    assert reason in message and str(tmp_path / "tracks.csv") in message


def test_a_track_that_ends_before_it_begins(tmp_path: Path) -> None:
    crops(tmp_path)
    (tmp_path / "tracks.csv").write_text(TRACKS + row(NAMES[1], 2))
    (tmp_path / "spans.csv").write_text(SPANS + "cam2,0007,8,40,1.56,0.28,33,2\n")
    assert f"{tmp_path}/spans.csv:2: ends at 0.28 before it begins at 1.56" in refused(tmp_path)


def test_spans_over_the_images_at_hand():
    tracklets, times = np.array([5, -1, 5, 3, 3, 8]), np.array([4.0, 1.0, 2.0, np.nan, 7.0, np.nan])
    split = Split(Path("/d"), tuple("abcdef"), None, np.ones(6, np.int64), tracklets, times)
    literal = []
    for tracklet in tracklets:
        own = [t for k, t in zip(tracklets, times, strict=True) if k == tracklet != -1 and not np.isnan(t)]
        literal.append([min(own), max(own)] if own else [np.nan, np.nan])
    assert np.array_equal(split.tracklet_spans, literal, equal_nan=True)
