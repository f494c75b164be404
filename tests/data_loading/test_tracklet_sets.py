"""Data sets of tracklets: MARS and PRID2011, small folders in each layout, images empty."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from set_folders import people, read, refused, touch

MARS_TRAIN = [f"0001/0001C{c}T0001F{f:03d}.jpg" for c in (1, 2) for f in range(1, 6)]
MARS_TEST = [
    *(f"0002/0002C{c}T000{t}F{f:03d}.jpg" for c in (1, 3) for t in (1, 2) for f in range(1, 4)),
    "0000/0000C4T0001F001.jpg",
    "00-1/00-1C5T0001F001.jpg",
]


def write_mars(root: Path) -> Path:
    touch(root / "bbox_train", *MARS_TRAIN)
    touch(root / "bbox_test", *MARS_TEST)
    return root


def write_info(root: Path, **changes) -> None:
    (root / "info").mkdir()
    names = [name.rpartition("/")[2] for name in sorted(MARS_TEST)]
    (root / "info/test_name.txt").write_text("\n".join(names) + "\n")
    # 00-1, 0000, then four tracklets of three images: first, last (from 1), person, camera.
    spans = [[1, 1, -1, 5], [2, 2, 0, 4], [3, 5, 2, 1], [6, 8, 2, 1], [9, 11, 2, 3], [12, 14, 2, 3]]
    content = {"spans": spans, "query": [[4, 5]]} | changes
    scipy.io.savemat(root / "info/tracks_test_info.mat", {"track_test_info": np.array(content["spans"], float)})
    scipy.io.savemat(root / "info/query_IDX.mat", {"query_IDX": np.array(content["query"], float)})


class TestMars:
    def test_without_info(self, tmp_path):
        dataset = read("mars", write_mars(tmp_path / "MARS").parent)
        train, query, gallery = dataset.train, dataset.query, dataset.gallery
        assert len(train) == 10 and len(set(train.tracklets.tolist())) == 2 and train.times is None
        assert train.cameras.tolist() == [1] * 5 + [2] * 5
        assert gallery.identities.tolist() == [0] + [2] * 12, "distractors stay, junk goes"
        assert query.paths == ("0002/0002C1T0001F002.jpg", "0002/0002C3T0001F002.jpg"), (
            "middle of the first tracklets"
        )
        assert set(query.tracklets.tolist()) < set(gallery.tracklets.tolist()), "the gallery has the query tracklets"
        assert "first tracklet" in dataset.description and dataset.protocol == "market"

    def test_with_info(self, tmp_path):
        write_info(write_mars(tmp_path))
        dataset = read("mars", tmp_path)
        assert dataset.query.paths == ("0002/0002C1T0002F002.jpg", "0002/0002C3T0001F002.jpg")
        assert dataset.division == ""

    def test_per_tracklet(self, tmp_path):
        dataset = read("mars", write_mars(tmp_path), per_tracklet=2)
        assert len(dataset.train) == 4 and len(dataset.gallery) == 1 + 4 * 2 and len(dataset.query) == 2

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"query": [[7]]}, "not of the tracklets"),
            ({"spans": [[1, 1, 2]] * 6}, "not of the tracklets"),
            ({"spans": [[1, 40, 2, 1]] * 6}, "not of the 14 images"),
            ({"spans": [[3, 6, 2, 1]] * 6}, "begin and end in different"),
        ],
    )
    def test_wrong_info(self, tmp_path, changes, reason):
        write_info(write_mars(tmp_path), **changes)
        assert reason in refused("mars", tmp_path)

    def test_info_in_part(self, tmp_path):
        write_info(write_mars(tmp_path))
        (tmp_path / "info/query_IDX.mat").unlink()
        assert "query_IDX.mat missing" in refused("mars", tmp_path)

    def test_damaged_info(self, tmp_path):
        write_info(write_mars(tmp_path))
        (tmp_path / "info/query_IDX.mat").write_bytes(b"no matlab file at all" * 20)
        assert "query_IDX.mat: not a MATLAB file" in refused("mars", tmp_path)

    def test_words_in_place_of_numbers(self, tmp_path):
        write_info(write_mars(tmp_path))
        scipy.io.savemat(tmp_path / "info/query_IDX.mat", {"query_IDX": np.array(["one", "two"])})
        assert "query_IDX is no matrix of numbers" in refused("mars", tmp_path)

    def test_names_that_are_no_text(self, tmp_path):
        write_info(write_mars(tmp_path))
        (tmp_path / "info/test_name.txt").write_bytes(b"\xff\xfe")
        assert "test_name.txt: damaged (no text in UTF-8" in refused("mars", tmp_path)

    def test_other_variable(self, tmp_path):
        write_info(write_mars(tmp_path))
        scipy.io.savemat(tmp_path / "info/query_IDX.mat", {"queries": np.ones((1, 2))})
        assert "holds no query_IDX but queries" in refused("mars", tmp_path)

    def test_images_missing(self, tmp_path):
        write_info(write_mars(tmp_path))
        for frame in (1, 2, 3):
            (tmp_path / f"bbox_test/0002/0002C3T0001F00{frame}.jpg").unlink()
        assert "1 of 2 query tracklets have no image" in refused("mars", tmp_path)

    def test_name_that_does_not_parse(self, tmp_path):
        write_mars(tmp_path)
        assert "holiday.jpg" in refused("mars", touch(tmp_path, "bbox_test/0002/holiday.jpg"))

    def test_missing_folder(self, tmp_path):
        touch(tmp_path / "bbox_train", *MARS_TRAIN)
        assert str(tmp_path / "bbox_test") in refused("mars", tmp_path)

    def test_same_person_in_both(self, tmp_path):
        write_mars(tmp_path)
        assert "1 identity both" in refused("mars", touch(tmp_path, "bbox_test/0001/0001C1T0009F001.jpg"))


def single_shot(root: Path, shared: int = 4) -> Path:
    a = [*range(1, shared + 1), 201, 202]
    b = [*range(1, shared + 1), 201, 202, 203]
    return touch(
        root, *(f"cam_{camera}/person_{p:04d}.png" for camera, numbers in (("a", a), ("b", b)) for p in numbers)
    )


def multi_shot(root: Path, lengths: dict[int, tuple[int, int]]) -> Path:
    for person, counts in lengths.items():
        for camera, count in zip("ab", counts, strict=True):
            touch(root, *(f"cam_{camera}/person_{person:04d}/{n:04d}.png" for n in range(1, count + 1)))
    return root


class TestPrid2011:
    def test_single_shot(self, tmp_path):
        single_shot(tmp_path / "prid_2011/single_shot")
        dataset = read("prid2011", tmp_path)
        assert len(people(dataset.train)) == 2 and len(dataset.train) == 4
        assert people(dataset.query) == {1, 2, 3, 4} - people(dataset.train)
        assert set(dataset.query.cameras.tolist()) == {1} and set(dataset.gallery.cameras.tolist()) == {2}
        assert people(dataset.gallery) == people(dataset.query) | {201, 202, 203}, "those whom b alone saw"
        assert dataset.protocol == "cross_camera"

    def test_multi_shot(self, tmp_path):
        multi_shot(tmp_path / "multi_shot", {1: (27, 30), 2: (40, 27), 3: (26, 50), 201: (30, 30)})
        dataset = read("prid2011", tmp_path)
        assert people(dataset.train) | people(dataset.query) == {1, 2}, "who is long enough in both, up to 200"
        assert len(dataset.query) == 1 and len(set(dataset.gallery.tracklets.tolist())) == 1
        assert len(set(dataset.train.tracklets.tolist())) == 2

    def test_given_division(self, tmp_path):
        multi_shot(tmp_path / "multi_shot", dict.fromkeys((1, 2, 3, 4), (27, 27)))
        half = {"train": ["person_0001", "person_0002"], "test": ["person_0003", "person_0004"]}
        splits = [half, {"train": half["test"], "test": half["train"]}]
        (tmp_path / "splits_prid2011.json").write_text(json.dumps(splits))
        assert people(read("prid2011", tmp_path, split=1).train) == {3, 4}
        assert "2 divisions" in refused("prid2011", tmp_path, split=2)
        (tmp_path / "splits_prid2011.json").write_text('[{"train": ["person_0009"], "test": []}]')
        assert "1 of its people are not in the folders" in refused("prid2011", tmp_path)
        (tmp_path / "splits_prid2011.json").write_text("{}")
        assert "torchreid" in refused("prid2011", tmp_path)

    def test_variants(self, tmp_path):
        single_shot(tmp_path / "single_shot")
        multi_shot(tmp_path / "multi_shot", {1: (27, 27), 2: (27, 27)})
        assert read("prid2011", tmp_path).root.name == "single_shot"
        assert read("prid2011", tmp_path, variant="multi_shot").root.name == "multi_shot"
        assert "single_shot and multi_shot" in refused("prid2011", tmp_path, variant="labeled")

    def test_missing_camera(self, tmp_path):
        touch(tmp_path, "single_shot/cam_a/person_0001.png")
        assert str(tmp_path / "single_shot/cam_b") in refused("prid2011", tmp_path)

    def test_name_that_does_not_parse(self, tmp_path):
        single_shot(tmp_path / "single_shot")
        assert "holiday.png" in refused("prid2011", touch(tmp_path, "single_shot/cam_a/holiday.png"))
