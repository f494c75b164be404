"""Reading data sets by file names: nothing here opens an image, so files are empty."""

import contextlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from jgcl_ray.choices import DATA_SETS
from jgcl_ray.config import DataConfig, WalkersConfig, load_config
from jgcl_ray.data.datasets import Split, dukemtmc_reid, market1501, msmt17, open_dataset
from jgcl_ray.data.datasets.reid_dataset import Published, natural_order
from jgcl_ray.errors import UserError
from jgcl_ray.training.prepare import plan_run

MARKET = [
    "bounding_box_train/0007_c2s1_000451_03.jpg",
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0002_c3s1_000551_01.jpg",
    "query/0001_c1s1_001051_00.jpg",
    "bounding_box_test/0001_c2s1_001051_01.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/0000_c3s1_000451_05.jpg",
]
DUKE = [
    "bounding_box_train/0001_c2_f0046182.jpg",
    "bounding_box_train/0005_c8_f0046302.jpg",
    "query/0003_c1_f0044158.jpg",
    "bounding_box_test/0003_c4_f0044158.jpg",
]
LISTS = {
    "list_train.txt": ["0001/0001_000_05_0303morning_0015_0.jpg 1", "0000/0000_001_14_0303noon_0016_0.jpg 0"],
    "list_val.txt": ["0000/0000_002_01_0303morning_0017_1.jpg 0"],
    "list_query.txt": ["0000/0000_000_03_0303morning_0015_0.jpg 0"],
    "list_gallery.txt": ["0000/0000_001_04_0303morning_0018_0.jpg 0", "0001/0001_001_04_0303noon_0018_0.jpg 1"],
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_msmt17(root: Path, train: str = "train", test: str = "test") -> Path:
    for name, lines in LISTS.items():
        folder = train if name in ("list_train.txt", "list_val.txt") else test
        touch(root, *(f"{folder}/{line.split()[0]}" for line in lines))
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def read(name: str, root: Path | None):
    return open_dataset(DataConfig(name=name, root=root))


def refused(name: str, root: Path | None) -> str:
    with warnings.catch_warnings(), pytest.raises(UserError) as caught:
        warnings.simplefilter("ignore")
        read(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def backward_listing(monkeypatch):
    """Folders list their entries in descending order, which no reader may depend on."""
    scandir = os.scandir

    @contextlib.contextmanager
    def backward(folder):
        with scandir(folder) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", backward)


@pytest.mark.filterwarnings("ignore:.*as published")
class TestMarketLayout:
    def test_splits(self, tmp_path, backward_listing):
        dataset = read("market1501", touch(tmp_path, *MARKET))
        assert dataset.train.paths == (
            "0002_c1s1_000451_03.jpg",
            "0002_c3s1_000551_01.jpg",
            "0007_c2s1_000451_03.jpg",
        )
        assert dataset.train.identities.tolist() == [2, 2, 7]
        assert dataset.train.cameras.tolist() == [1, 3, 2]
        assert dataset.query.identities.tolist() == [1]
        assert dataset.gallery.identities.tolist() == [0, 1], "distractors stay, junk goes"
        assert dataset.train.path(0) == tmp_path / "bounding_box_train/0002_c1s1_000451_03.jpg"
        assert dataset.validation is None

    @pytest.mark.parametrize("inner", ["Market-1501-v15.09.15", "market1501"])
    def test_inner_folder(self, tmp_path, inner):
        touch(tmp_path / inner, *MARKET)
        assert read("market1501", tmp_path).root == tmp_path / inner

    def test_hidden_and_foreign_files_are_ignored(self, tmp_path):
        touch(tmp_path, *MARKET)
        before = read("market1501", tmp_path).train
        touch(tmp_path, "__MACOSX/bounding_box_train/0003_c1s1_1_0.jpg", "query/.DS_Store", "query/Thumbs.db")
        touch(tmp_path, "bounding_box_train/._0002_c1s1_000451_03.jpg", "bounding_box_train/__MACOSX/0001_c1.jpg")
        after = read("market1501", tmp_path).train
        assert after.paths == before.paths and after.fingerprint == before.fingerprint

    def test_duke(self, tmp_path):
        dataset = read("dukemtmc_reid", touch(tmp_path, *DUKE))
        assert dataset.train.identities.tolist() == [1, 5]
        assert dataset.train.cameras.tolist() == [2, 8]

    def test_names_of_another_set(self, tmp_path):
        message = refused("dukemtmc_reid", touch(tmp_path, *MARKET))
        assert str(tmp_path / "bounding_box_train/0002_c1s1_000451_03.jpg") in message
        assert "and 2 more" in message and "0001_c2_f0046182.jpg" in message and "data.name" in message

    def test_name_that_does_not_parse(self, tmp_path):
        touch(tmp_path, *MARKET, "query/holiday.jpg")
        message = refused("market1501", tmp_path)
        assert str(tmp_path / "query/holiday.jpg") in message and "0002_c1s1_000451_03.jpg" in message

    def test_overlapping_identities(self, tmp_path):
        touch(tmp_path, *MARKET, "bounding_box_test/0007_c5s1_000451_03.jpg")
        message = refused("market1501", tmp_path)
        assert "1 identity both" in message and "7" in message and "0007_c2s1_000451_03.jpg" in message

    def test_distractors_in_train_do_not_overlap(self, tmp_path):
        touch(tmp_path, *MARKET, "bounding_box_train/0000_c5s1_000451_03.jpg")
        assert len(read("market1501", tmp_path).train) == 4

    def test_without_training_folder_it_can_be_scored_and_not_trained_on(self, tmp_path):
        touch(tmp_path, *(name for name in MARKET if not name.startswith("bounding_box_train")))
        data = read("market1501", tmp_path)
        assert len(data.train) == 0 and len(data.query) and len(data.gallery)
        with pytest.raises(UserError, match=r"bounding_box_train: no such folder; unpack"):
            plan_run(load_config("market1501", [f"data.root={tmp_path}"]))

    @pytest.mark.parametrize("missing", ["query", "bounding_box_test"])
    def test_missing_folder(self, tmp_path, missing):
        touch(tmp_path, *(name for name in MARKET if not name.startswith(missing)))
        message = refused("market1501", tmp_path)
        assert str(tmp_path / missing) in message and "no such folder" in message and "unpack" in message

    @pytest.mark.parametrize("empty", ["bounding_box_train", "query", "bounding_box_test"])
    def test_empty_split(self, tmp_path, empty):
        touch(tmp_path, *(name for name in MARKET if not name.startswith(empty)), f"{empty}/readme.txt")
        message = refused("market1501", tmp_path)
        assert str(tmp_path / empty) in message and "no image" in message

    def test_only_junk(self, tmp_path):
        touch(tmp_path, *MARKET[:4], "bounding_box_test/-1_c1s1_000401_03.jpg")
        assert "1 image, all junk" in refused("market1501", tmp_path)


@pytest.mark.filterwarnings("ignore:.*as published")
class TestMsmt17:
    @pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
    def test_lists(self, tmp_path, folders, backward_listing):
        dataset = read("msmt17", write_msmt17(tmp_path, *folders))
        assert dataset.train.paths == (
            "0000/0000_001_14_0303noon_0016_0.jpg",
            "0000/0000_002_01_0303morning_0017_1.jpg",
            "0001/0001_000_05_0303morning_0015_0.jpg",
        )
        assert dataset.train.folder == tmp_path / folders[0]
        assert dataset.train.cameras.tolist() == [14, 1, 5]
        assert dataset.train.identities.tolist() == [1, 1, 2]
        assert dataset.validation.paths == ("0000/0000_002_01_0303morning_0017_1.jpg",)
        assert dataset.query.identities.tolist() == [1042]
        assert dataset.gallery.identities.tolist() == [1042, 1043], "test labels start at 0 again"

    def test_order_of_the_lists_does_not_matter(self, tmp_path):
        before = read("msmt17", write_msmt17(tmp_path)).train
        (tmp_path / "list_train.txt").write_text("\r\n".join(reversed(LISTS["list_train.txt"])))
        after = read("msmt17", tmp_path).train
        assert after.fingerprint == before.fingerprint
        assert after.identities.tolist() == before.identities.tolist()

    def test_repacked(self, tmp_path):
        names = ["bounding_box_train/0000_c01_0001.jpg", "bounding_box_train/0001_c15_0002.jpg"]
        names += ["query/0000_c02_0000.jpg", "bounding_box_test/0000_c03_0001.jpg"]
        dataset = read("msmt17", touch(tmp_path / "MSMT17_V1", *names).parent)
        assert dataset.train.identities.tolist() == [1, 2]
        assert dataset.train.cameras.tolist() == [1, 15]
        assert dataset.query.identities.tolist() == [1042]

    def test_both_versions_beside_each_other(self, tmp_path):
        write_msmt17(tmp_path / "MSMT17_V1")
        write_msmt17(tmp_path / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
        assert "holds MSMT17_V1 and MSMT17_V2: give one" in refused("msmt17", tmp_path)
        assert read("msmt17", tmp_path / "MSMT17_V2").train.folder.name == "mask_train_v2"

    def test_both_versions_mixed(self, tmp_path):
        message = refused("msmt17", write_msmt17(tmp_path, "train", "mask_test_v2"))
        assert str(tmp_path) in message and "both V1" in message and "folder of its own" in message

    def test_lists_of_the_other_version(self, tmp_path):
        write_msmt17(tmp_path)
        lines = [line.replace("_0.jpg", "_0_ex.jpg") for line in LISTS["list_gallery.txt"]]
        (tmp_path / "list_gallery.txt").write_text("\n".join(lines))
        message = refused("msmt17", tmp_path)
        assert "list_gallery.txt" in message and "2 of 2" in message and "one version" in message
        assert "0000_001_04_0303morning_0018_0_ex.jpg" in message

    @pytest.mark.parametrize("missing", LISTS)
    def test_missing_list(self, tmp_path, missing):
        (write_msmt17(tmp_path) / missing).unlink()
        message = refused("msmt17", tmp_path)
        assert str(tmp_path / missing) in message and "copy" in message

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "lists no image"),
            ("0000/0000_002_01_0303morning_0017_1.jpg", "list_val.txt:1"),
            ("0000/0000_002_01_0303morning_0017_1.jpg 0\n" * 2, "list_val.txt:2"),
            ("0001/0001_000_05_0303morning_0015_0.jpg 1", "in list_train.txt too"),
            ("0000/0000_002_01_0303morning_0017_1.jpg 99999999999999999999", "list_val.txt:1"),
            ("0000/\udcff.jpg 0", "no text in UTF-8"),
        ],
    )
    def test_damaged_list(self, tmp_path, text, reason):
        (write_msmt17(tmp_path) / "list_val.txt").write_bytes(os.fsencode(text))
        message = refused("msmt17", tmp_path)
        assert str(tmp_path / "list_val.txt") in message and reason in message

    def test_name_that_does_not_parse(self, tmp_path):
        touch(write_msmt17(tmp_path), "train/0000/holiday.jpg")
        (tmp_path / "list_val.txt").write_text("0000/holiday.jpg 0")
        assert str(tmp_path / "train/0000/holiday.jpg") in refused("msmt17", tmp_path)

    def test_missing_folder(self, tmp_path):
        write_msmt17(tmp_path)
        (tmp_path / "test").rename(tmp_path / "elsewhere")
        message = refused("msmt17", tmp_path)
        assert str(tmp_path / "test") in message and "no such folder" in message

    def test_empty_folder(self, tmp_path):
        write_msmt17(tmp_path)
        (tmp_path / "test").rename(tmp_path / "elsewhere")
        (tmp_path / "test").mkdir()
        assert f"{tmp_path / 'test'}: holds no" in refused("msmt17", tmp_path)


class TestFolder:
    def test_a_folder_per_camera(self, tmp_path, backward_listing):
        touch(
            tmp_path,
            "cam10/b.JPG",
            "cam2/z.png",
            "cam2/a.webp",
            "cam2/notes.txt",
            ".trash/x.jpg",
            "__MACOSX/y.jpg",
            "cam2/@eaDir/a.jpg",
        )
        dataset = read("folder", tmp_path)
        assert dataset.train.paths == ("cam10/b.JPG", "cam2/a.webp", "cam2/z.png"), "rows by path"
        assert dataset.camera_names == {1: "cam2", 2: "cam10"}, "cameras in natural order"
        assert dataset.train.cameras.tolist() == [2, 1, 1]
        assert dataset.train.identities is None and dataset.query is None and dataset.gallery is None
        assert list(dataset.splits) == ["train"]

    def test_flat(self, tmp_path):
        dataset = read("folder", touch(tmp_path, "b.jpeg", "a.bmp"))
        assert dataset.train.paths == ("a.bmp", "b.jpeg")
        assert dataset.train.cameras.tolist() == [-1, -1]

    def test_one_camera(self, tmp_path):
        with pytest.warns(UserWarning, match=r"one camera \(door\)"):
            read("folder", touch(tmp_path, "door/a.jpg", "door/b.jpg"))

    def test_camera_without_images(self, tmp_path):
        touch(tmp_path, "cam1/a.jpg", "cam2/notes.txt", "cam3/a.jpg")
        with pytest.warns(UserWarning, match="no image in cam2"):
            assert read("folder", tmp_path).camera_names == {1: "cam1", 2: "cam3"}

    def test_nested_deeper(self, tmp_path):
        message = refused("folder", touch(tmp_path, "cam1/7/a.jpg", "cam1/8/monday/b.jpg"))
        assert str(tmp_path / "cam1/8/monday") in message and "two folders deep" in message

    @pytest.mark.parametrize("other", ["cam1/a.jpg", "cam2/a.jpg"])
    def test_tracks_and_images_mixed(self, tmp_path, other):
        message = refused("folder", touch(tmp_path, "cam1/7/b.jpg", other))
        assert "cam1/7/b.jpg" in message and other in message and "all alike" in message

    def test_images_beside_cameras(self, tmp_path):
        message = refused("folder", touch(tmp_path, "cam1/a.jpg", "b.jpg"))
        assert "b.jpg" in message and "beside" in message

    def test_nothing(self, tmp_path):
        assert f"{tmp_path}: holds no image" in refused("folder", touch(tmp_path, "cam1/notes.txt"))


class TestWalkers:
    def test_given_folder(self, tmp_path):
        touch(tmp_path, *MARKET, "meshes/train/render/0002_c1s1_000451_03.png")
        dataset = read("walkers", tmp_path)
        assert dataset.name == "walkers" and len(dataset.train) == 3

    def test_rendered_into_the_cache(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(
            "jgcl_ray.data.walkers.ensure_rendered",
            lambda config: asked.append(config) or touch(tmp_path, *MARKET),
            raising=False,
        )
        walkers = WalkersConfig(preset="full", seed=3)
        assert open_dataset(DataConfig(name="walkers"), walkers).root == tmp_path
        assert asked == [walkers]


class TestEveryReader:
    @pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "walkers"])
    def test_root_is_asked_for(self, name):
        assert "data.root" in refused(name, None)

    @pytest.mark.parametrize("name", DATA_SETS)
    def test_root_that_is_not_there(self, tmp_path, name):
        assert f"data.root={tmp_path / 'nowhere'}: no such folder" in refused(name, tmp_path / "nowhere")
        assert "a file, not a folder" in refused(name, touch(tmp_path, "file") / "file")

    @pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "folder"])
    def test_root_with_something_else(self, tmp_path, name):
        message = refused(name, touch(tmp_path, "photos/a.jpg"))
        remedy = {"mars": "bbox_train/", "viper": "cam_a/", "prid2011": "single_shot/", "cuhk01": "campus/"}
        remedy |= {"pku_reid": "001_01_1.png", "labelled": "{identity}_c{camera}"}
        if name != "labelled":
            assert str(tmp_path) in message
        assert remedy.get(name, "bounding_box_train/") in message

    def test_unknown_name(self):
        data = DataConfig().model_copy(update={"name": "market"})
        with pytest.raises(UserError, match=r"data.name='market': no such data set; .*known: market1501, .*walkers"):
            open_dataset(data)


def test_published_counts():
    assert vars(market1501.PUBLISHED) == vars(Published(12936, 3368, 15913, 751, 750, 6))
    assert vars(dukemtmc_reid.PUBLISHED) == vars(Published(16522, 2228, 17661, 702, 702, 8))
    assert vars(msmt17.PUBLISHED) == vars(Published(32621, 11659, 82161, 1041, 3060, 15))


def test_counts_that_differ_are_warned_about(tmp_path, monkeypatch):
    touch(tmp_path, *MARKET)
    with pytest.warns(
        UserWarning, match="3 instead of 12,936 train images, 1 instead of .* query.*3 instead of 6 cameras"
    ):
        read("market1501", tmp_path)
    monkeypatch.setattr(market1501, "PUBLISHED", Published(3, 1, 2, 2, 1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read("market1501", tmp_path)


def test_split_refuses_rows_out_of_order():
    with pytest.raises(AssertionError, match="rows in order"):
        Split(Path("/"), ("b", "a"), None, np.zeros(2, dtype=np.int64))


def test_fingerprint_tells_rows_apart():
    def fingerprint(*paths: str) -> str:
        return Split(Path("/"), paths, None, np.zeros(len(paths), dtype=np.int64)).fingerprint

    assert fingerprint("a", "b") == fingerprint("a", "b")
    assert len({fingerprint("a", "b"), fingerprint("ab"), fingerprint("a"), fingerprint("a", "c")}) == 4


def test_take_keeps_tracklets_and_times():
    cameras, tracklets, times = np.array([1, 1, 2]), np.array([4, -1, 7]), np.array([0.5, np.nan, 2.0])
    tracked = Split(Path("/"), ("a", "b", "c"), None, cameras, tracklets, times).take(np.array([0, 2]))
    assert tracked.tracklets.tolist() == [4, 7] and tracked.times.tolist() == [0.5, 2.0]
    single = Split(Path("/"), ("a", "b", "c"), None, cameras).take(np.array([True, False, True]))
    assert single.tracklets is None and single.times is None
    with pytest.raises(AssertionError):
        Split(Path("/"), ("a", "b", "c"), None, cameras, tracklets[:2], times)


def test_take_keeps_the_order():
    split = Split(Path("/d"), ("a", "b", "c"), np.array([4, 5, 6]), np.array([1, 2, 3]))
    for rows in (np.array([0, 2]), np.array([True, False, True])):
        taken = split.take(rows)
        assert taken.paths == ("a", "c")
        assert taken.identities.tolist() == [4, 6] and taken.cameras.tolist() == [1, 3]


def test_natural_order():
    names = ["cam10", "cam2", "10", "9", "cam2b", "cam02"]
    assert sorted(names, key=natural_order) == ["9", "10", "cam02", "cam2", "cam2b", "cam10"]
