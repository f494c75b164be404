"""Data sets whose people are divided by an index, a list or a rule: small folders in each layout, images empty."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from set_folders import check_divided, people, read, refused, touch

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import ReidDataset, open_dataset
from jgcl_ray.data.datasets.division import Division, thinned
from jgcl_ray.data.datasets.labelled import compiled
from jgcl_ray.data.datasets.reid_dataset import Split


class TestDivision:
    def test_the_rule_as_it_is_told(self):
        order = sorted(range(1, 21), key=lambda person: hashlib.sha256(f"3:{person}".encode()).hexdigest())
        assert Division(0.3, 3).training(set(range(1, 21))) == set(order[:6])
        assert Division(0.3, 4).training(set(range(1, 21))) != set(order[:6])

    def test_half_of_an_odd_number_is_rounded_down(self):
        assert len(Division(0.5, 0).training(range(971))) == 485

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 50])
    def test_thinned_tracklets(self, size):
        paths = tuple(f"{row:04d}" for row in range(3 * size))
        tracklets = np.arange(3 * size) % 3  # interleaved by path
        split = Split(Path("/d"), paths, None, np.ones(3 * size, np.int64), tracklets)
        kept = thinned(ReidDataset("made", Path("/d"), split), 3).train
        for tracklet in range(3):
            places = [(int(path) - tracklet) // 3 for path in np.array(kept.paths)[kept.tracklets == tracklet]]
            assert len(places) == min(size, 3)
            assert places[0] == 0
            gaps = np.diff([*places, size])
            assert gaps.max() - gaps.min() <= 1, "evenly spread"

    def test_images_outside_tracklets_stay(self):
        split = Split(Path("/d"), ("a", "b", "c"), None, np.ones(3, np.int64), np.array([-1, -1, 4]))
        assert len(thinned(ReidDataset("made", Path("/d"), split), 1).train) == 3


class TestTwoCameras:
    def test_viper(self, tmp_path):
        names = [
            f"cam_{camera}/{person:03d}_{angle}.bmp" for camera, angle in (("a", 0), ("b", 90)) for person in range(6)
        ]
        dataset = read("viper", touch(tmp_path / "VIPeR", *names).parent)
        check_divided(dataset, 6)
        assert dataset.protocol == "cross_camera" and dataset.root == tmp_path / "VIPeR"
        assert len(dataset.query) == len(dataset.gallery) == 6, "the only photo of a camera is in both"
        assert 0 not in people(dataset.train) | people(dataset.query), "nobody is a distractor"
        assert [dataset.query.cameras[row] for row, path in enumerate(dataset.query.paths) if "cam_b" in path] == [
            2
        ] * 3

    def test_viper_without_a_camera(self, tmp_path):
        assert str(tmp_path / "cam_b") in refused("viper", touch(tmp_path, "cam_a/000_45.bmp"))

    def test_viper_named_otherwise(self, tmp_path):
        message = refused("viper", touch(tmp_path, "cam_a/holiday.bmp", "cam_b/001_0.bmp"))
        assert "holiday.bmp" in message and "000_45.bmp" in message

    def test_cuhk01(self, tmp_path):
        names = [f"campus/{person:04d}{number:03d}.png" for person in (1, 2, 3, 4) for number in (1, 2, 3, 4)]
        dataset = read("cuhk01", touch(tmp_path, *names))
        check_divided(dataset, 4)
        assert dataset.train.cameras.tolist() == [1, 1, 2, 2] * 2
        assert len(dataset.query) == len(dataset.gallery) == 4
        assert dataset.protocol == "cross_camera"

    @pytest.mark.parametrize(
        "form", ["{0:03d}_{1:02d}_{2}.png", "PKUv1a_128x48/{0:03d}_{1:02d}_{2}.png", "train/{0:03d}/{1:02d}_{2}.png"]
    )
    def test_pku_reid(self, tmp_path, form):
        names = [form.format(p, c, side) for p in (1, 2, 3, 4) for c in (1, 2) for side in range(1, 9)]
        dataset = read("pku_reid", touch(tmp_path, *names))
        check_divided(dataset, 4)
        assert len(dataset.train) == 32 and set(dataset.train.cameras.tolist()) == {1, 2}
        assert len(dataset.query) == 4 and len(dataset.gallery) == 28, "a query for each camera"

    def test_pku_reid_takes_copies_once(self, tmp_path):
        names = [
            f"val/{part}/{p:03d}/01_{side}.png" for part in ("all_imgs", "query") for p in (1, 2) for side in (1, 2)
        ]
        dataset = read("pku_reid", touch(tmp_path, *names))
        assert len(dataset.train) == 2 and {path.split("/")[1] for path in dataset.train.paths} == {"all_imgs"}

    def test_shares(self, tmp_path):
        names = [f"{person:03d}_{camera:02d}_1.png" for person in range(1, 11) for camera in (1, 2)]
        touch(tmp_path, *names)
        everybody = read("pku_reid", tmp_path, train_share=0)
        assert len(everybody.train) == 0 and len(everybody.query) == 20
        nobody = read("pku_reid", tmp_path, train_share=1)
        assert len(nobody.train) == 20 and nobody.query is None and nobody.gallery is None
        assert people(read("pku_reid", tmp_path, split=1).train) != people(read("pku_reid", tmp_path).train)

    def test_published_counts(self, tmp_path):
        touch(tmp_path, "001_01_1.png", "001_02_1.png")
        with pytest.warns(UserWarning, match=r"2 instead of 1,824 images, 1 instead of 114 identities$"):
            open_dataset(DataConfig(name="pku_reid", root=tmp_path, train_share=0))


class TestLabelled:
    PATTERN = "{identity}_c{camera}_*.jpg"

    def test_pattern(self, tmp_path):
        names = [
            f"{person}_c{camera}_{n}.jpg"
            for person in ("anna", "bert", "10", "9")
            for camera in (3, 12, 4)
            for n in "ab"
        ]
        dataset = read("labelled", touch(tmp_path, *names), pattern=self.PATTERN)
        check_divided(dataset, 4)
        assert people(dataset.train) | people(dataset.query) == {1, 2, 3, 4}, "natural order, from 1"
        assert set(dataset.train.cameras.tolist()) == {3, 4, 12}
        assert dataset.protocol == "market" and dataset.train.tracklets is None

    def test_folders_carry_parts(self, tmp_path):
        names = [f"{camera}/{person}/{n}.png" for camera in ("door", "lift") for person in (7, 8) for n in "abc"]
        dataset = read("labelled", touch(tmp_path, *names), pattern="{camera}/{identity}/*.png", train_share=0)
        assert dataset.camera_names == {1: "door", 2: "lift"} and dataset.protocol == "cross_camera"
        assert dataset.query.paths == ("door/7/a.png", "door/8/a.png", "lift/7/a.png", "lift/8/a.png")
        assert len(dataset.gallery) == 8

    def test_tracklets(self, tmp_path):
        names = [f"{p}C{c}T{t}F{f}.jpg" for p in (1, 2) for c in (1, 2) for t in (1, 2) for f in range(6)]
        touch(tmp_path, *names)
        pattern = "{identity}C{camera}T{tracklet}F*.jpg"
        train = read("labelled", tmp_path, pattern=pattern, train_share=1).train
        assert len(set(train.tracklets.tolist())) == 8, "tracklet 1 of another person or camera is another one"
        assert len(read("labelled", tmp_path, pattern=pattern, train_share=1, per_tracklet=2).train) == 16

    def test_junk_goes(self, tmp_path):
        touch(tmp_path, "-1_c1_a.jpg", "5_c1_a.jpg", "5_c2_a.jpg")
        assert len(read("labelled", tmp_path, pattern=self.PATTERN, train_share=1).train) == 2

    def test_images_that_do_not_match(self, tmp_path):
        touch(tmp_path, "5_c1_a.jpg", "5_c2_a.jpg", "masks/5_c2_a.jpg")
        with pytest.warns(UserWarning, match=r"1 of 3 images do not match data.pattern .* masks/5_c2_a.jpg"):
            assert len(read("labelled", tmp_path, pattern=self.PATTERN, train_share=1).train) == 2

    def test_no_pattern(self, tmp_path):
        assert "data.pattern is not set" in refused("labelled", touch(tmp_path, "1_c1_a.jpg"))

    def test_no_match(self, tmp_path):
        message = refused("labelled", touch(tmp_path, "x/0001C1.jpg"), pattern=self.PATTERN)
        assert "none of the 1 image " in message and "x/0001C1.jpg" in message and self.PATTERN in message

    @pytest.mark.parametrize(
        ("pattern", "reason"),
        [
            ("{person}_c{camera}.jpg", "{person} is no field"),
            ("{identity}/*.jpg", "{camera} is missing"),
            ("{", "{ is no field"),
        ],
    )
    def test_wrong_pattern(self, tmp_path, pattern, reason):
        assert reason in refused("labelled", touch(tmp_path, "1_c1_a.jpg"), pattern=pattern)

    @pytest.mark.parametrize(
        ("pattern", "path", "found"),
        [
            ("{identity}_c{camera}_*.jpg", "0001_c12_x_y.jpg", ("0001", "12")),
            ("{identity}_c{camera}*.jpg", "0001_c12s1.jpg", ("0001", "12")),
            ("{identity}_c{camera}s*.jpg", "ann_b_c3s1.jpg", ("ann_b", "3")),
            ("**/{identity}/{camera}_?.png", "a/b/7/02_1.png", ("7", "02")),
            ("**/{identity}/{camera}_?.png", "7/02_1.png", ("7", "02")),
            ("{identity}/{identity}_{camera}.jpg", "4/4_2.jpg", ("4", "2")),
            ("{identity}/{identity}_{camera}.jpg", "4/5_2.jpg", None),
            ("{identity}_c{camera}_*.jpg", "x/0001_c1_a.jpg", ("x/0001", "1")),
            ("{identity}_c{camera}.jpg", "0001_c1xjpg", None),
            ("cam (1)+/{identity}_{camera}.jpg", "cam (1)+/3_4.jpg", ("3", "4")),
        ],
    )
    def test_what_a_pattern_means(self, pattern, path, found):
        match = compiled(pattern).fullmatch(path)
        if found is not None and "/" in found[0]:
            assert match is None, "fields do not reach over folders"
        else:
            assert (None if match is None else match.group("identity", "camera")) == found


TORCHREID = [
    f"{pair}_{p:03d}_{view}_{5 * view - 4 + n:02d}.png"
    for pair, p in ((1, 1), (1, 2), (5, 1), (5, 2))
    for view in (1, 2)
    for n in (0, 1)
]


def write_mat(path: Path, pairs: list[int]) -> Path:
    """A cuhk-03.mat of MATLAB 7.3: transposed arrays of references, two zeros where a place is empty."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for variant, shade in (("detected", 40), ("labeled", 200)):
            outer = file.create_dataset(variant, (1, len(pairs)), h5py.ref_dtype)
            for pair, count in enumerate(pairs):
                inner = file.create_dataset(f"#refs#/{variant}{pair}", (10, count), h5py.ref_dtype)
                for place, person in np.ndindex(10, count):
                    pixels = np.zeros(2, np.uint64)
                    if place in (0, 1, 5, 9):
                        pixels = np.full((3, 4, 9), shade, np.uint8)  # colour, width, height
                        pixels[0], pixels[:, 0] = 10 * pair + person, 7
                    name = f"#refs#/{variant}{pair}_{place}_{person}"
                    inner[place, person] = file.create_dataset(name, data=pixels).ref
                outer[0, pair] = inner.ref
    return path


class TestCuhk03:
    @pytest.mark.parametrize("inner", ["", "labeled", "CUHK03-NP/detected"])
    def test_market_folders(self, tmp_path, inner):
        touch(
            tmp_path / inner,
            "bounding_box_train/0001_c1_1.png",
            "query/0002_c1_1.png",
            "bounding_box_test/0002_c2_6.png",
        )
        dataset = read("cuhk03", tmp_path)
        assert dataset.root == tmp_path / inner and dataset.protocol == "market"
        assert (people(dataset.train), people(dataset.query), dataset.gallery.cameras.tolist()) == ({1}, {2}, [2])

    def test_counts_of_the_variant(self, tmp_path):
        touch(
            tmp_path / "labeled",
            "bounding_box_train/0001_c1_1.png",
            "query/0002_c1_1.png",
            "bounding_box_test/0002_c2_6.png",
        )
        with pytest.warns(UserWarning, match="1 instead of 5,328 gallery images"):
            open_dataset(DataConfig(name="cuhk03", root=tmp_path))

    def test_names_of_torchreid(self, tmp_path):
        touch(tmp_path / "images_detected", *TORCHREID)
        dataset = read("cuhk03", tmp_path)
        check_divided(dataset, 4)
        assert people(dataset.train) | people(dataset.query) == {1001, 1002, 5001, 5002}
        assert dataset.train.cameras.tolist() == [1, 1, 2, 2] * 2, "view 1 and 2 of whatever pair"
        assert len(dataset.query) == len(dataset.gallery) == 4
        assert "no official index" in dataset.description

    @pytest.mark.parametrize("kind", ["mat", "json"])
    def test_official_index(self, tmp_path, kind):
        touch(tmp_path / "images_labeled", *TORCHREID)
        rows = {"train": [1, 2, 3, 4, 5, 6, 7, 8], "query": [9, 11], "gallery": [10, 12]}
        if kind == "mat":
            content = {f"{part}_idx": np.array(numbers)[:, None] for part, numbers in rows.items()}
            names = np.array(TORCHREID, object)[:, None]
            scipy.io.savemat(tmp_path / "cuhk03_new_protocol_config_labeled.mat", content | {"filelist": names})
        else:
            splits = {
                part: [[f"C:\\\\data\\\\{TORCHREID[n - 1]}", 0, 0] for n in numbers] for part, numbers in rows.items()
            }
            (tmp_path / "splits_new_labeled.json").write_text(json.dumps([splits]))
        dataset = read("cuhk03", tmp_path)
        assert people(dataset.train) == {1001, 1002} and people(dataset.query) == {5001}
        assert dataset.query.paths == (TORCHREID[8], TORCHREID[10]) and dataset.division == ""

    def test_index_of_other_images(self, tmp_path):
        touch(tmp_path / "images_labeled", *TORCHREID)
        splits = {"train": [["a/1_001_1_01.png", 0, 0]], "query": [["1_900_1_01.png", 1, 0]], "gallery": []}
        (tmp_path / "splits_new_labeled.json").write_text(json.dumps([splits]))
        message = refused("cuhk03", tmp_path)
        assert "1 of 2 images are not in" in message and "1_900_1_01" in message
        (tmp_path / "splits_new_labeled.json").write_text('[{"train": []}]')
        assert "not torchreid's division" in refused("cuhk03", tmp_path)

    @pytest.mark.parametrize("folder", ["", "labeled", "detected"])
    @pytest.mark.parametrize("form", ["{0:04d}_c{1}_{2}.jpg", "{0:04d}_{2:02d}.jpg"])
    def test_images_alone(self, tmp_path, folder, form):
        touch(tmp_path / folder, *(form.format(p, 1 + n // 5, n) for p in range(4) for n in range(10)))
        dataset = read("cuhk03", tmp_path)
        check_divided(dataset, 4)
        assert people(dataset.train) | people(dataset.query) == {1, 2, 3, 4}
        assert dataset.train.cameras.tolist() == ([1] * 5 + [2] * 5) * 2, "five images a camera"

    def test_train_and_val(self, tmp_path):
        touch(
            tmp_path / "labeled",
            *(f"{part}/{p:04d}_{n:02d}.jpg" for part in ("train", "val") for p in (0, 1) for n in (0, 7)),
        )
        dataset = read("cuhk03", tmp_path)
        assert people(dataset.train) == {1, 2} and people(dataset.query) == {10001, 10002}
        assert "train/" in dataset.division

    def test_train_alone(self, tmp_path):
        assert "none in val/" in refused("cuhk03", touch(tmp_path, "labeled/train/0000_00.jpg"))

    def test_released_file(self, tmp_path):
        write_mat(tmp_path / "cuhk03_release/cuhk-03.mat", [2, 1])
        dataset = read("cuhk03", tmp_path, variant="labeled")
        folder = tmp_path / "images_labeled"
        assert sorted(path.name for path in folder.iterdir())[:4] == [
            f"1_001_{v}_{n:02d}.png" for v, n in ((1, 1), (1, 2), (2, 6), (2, 10))
        ]
        assert len(list(folder.iterdir())) == 12, "empty places are left out"
        with Image.open(folder / "2_001_2_06.png") as image:
            assert (
                image.size == (4, 9)
                and image.getpixel((2, 3)) == (10, 200, 200)
                and image.getpixel((0, 5)) == (7, 7, 7)
            )
        assert people(dataset.train) | people(dataset.query) == {1001, 1002, 2001}
        (tmp_path / "cuhk03_release/cuhk-03.mat").unlink()
        assert read("cuhk03", tmp_path).train.fingerprint == dataset.train.fingerprint, "written once"

    def test_damaged_file(self, tmp_path):
        pytest.importorskip("h5py")
        (tmp_path / "cuhk-03.mat").write_bytes(b"MATLAB 5.0" * 100)
        assert "not a MATLAB 7.3 file" in refused("cuhk03", tmp_path)
        assert not (tmp_path / "images_detected").exists()

    def test_without_h5py(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "h5py", None)
        assert "pip install 'jgcl_ray[cuhk03]'" in refused("cuhk03", touch(tmp_path, "cuhk-03.mat"))

    def test_variant_that_is_not_there(self, tmp_path):
        touch(tmp_path / "images_labeled", *TORCHREID)
        assert "data.variant=labeled reads them" in refused("cuhk03", tmp_path, variant="detected")
        assert "detected and labeled" in refused("cuhk03", tmp_path, variant="multi_shot")

    def test_names_of_two_kinds(self, tmp_path):
        message = refused("cuhk03", touch(tmp_path / "images_labeled", *TORCHREID, "9999_00.jpg"))
        assert "9999_00.jpg" in message
