"""A run goes on with the images it has learnt from, or says which are others."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import configured

from jgcl_ray.config import Config
from jgcl_ray.data.datasets import Split
from jgcl_ray.data.image_listing import LISTING, ImageListing, difference, pack, unpack
from jgcl_ray.data.samplers import Shard
from jgcl_ray.errors import UserError
from jgcl_ray.training import worker
from jgcl_ray.training.prepare import InProcess, open_folder, plan_run
from jgcl_ray.training.worker import STOP, clear, work

pytestmark = pytest.mark.usefixtures("one_thread")

WARM_UP = "run.stages=[warmup]"


def start(config: Config) -> bool:
    """Train, or go on; whether the run was stopped."""
    plan = plan_run(config)
    open_folder(plan)
    clear(plan.folder)
    return work(plan, InProcess(config.pseudo_labels), Shard(), torch.device("cpu")).interrupted


@pytest.fixture(scope="module")
def begun(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos, and the folder of a run that was stopped within its first epoch."""
    root = tmp_path_factory.mktemp("begun")
    shutil.copytree(walkers, root / "photos", ignore=shutil.ignore_patterns("meshes"))
    done = worker.WorkerHooks.batch_done
    with pytest.MonkeyPatch.context() as patch:

        def stop(self: worker.WorkerHooks, *told: object) -> None:
            done(self, *told)  # type: ignore[arg-type]
            (root / "runs" / "walkers" / STOP).touch()

        patch.setattr(worker.WorkerHooks, "batch_done", stop)
        assert start(configured(root / "photos", root / "runs", WARM_UP))
    return root / "photos", root / "runs"


@pytest.fixture
def copied(begun: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Both, to be changed; the photos elsewhere and with other dates."""
    photos, runs = (shutil.copytree(folder, tmp_path / folder.name, symlinks=True) for folder in begun)
    for photo in photos.rglob("*.jpg"):
        os.utime(photo, (1, 1))
    return photos, runs


def train_photos(photos: Path) -> list[Path]:
    return sorted((photos / "bounding_box_train").glob("*.jpg"))


def test_a_copy_of_the_photos_is_the_same_data_set(copied: tuple[Path, Path]) -> None:
    assert not start(configured(*copied, WARM_UP))


def renamed(photos: list[Path]) -> str:
    photos[0].rename(photos[0].with_name("0099_c1s1_000001_00.jpg"))
    return rf"1 renamed \({photos[0].name} to 0099_c1s1_000001_00\.jpg\)"


def replaced(photos: list[Path]) -> str:
    size = photos[0].stat().st_size
    content = bytearray(photos[1].read_bytes())
    content += bytes(max(0, size - len(content)))  # bytes after a JPEG's end are passed over
    photos[0].write_bytes(content)
    return rf"1 replaced \({photos[0].name}\)"


def exchanged(photos: list[Path]) -> str:
    first, second = photos[0].read_bytes(), photos[5].read_bytes()
    photos[0].write_bytes(second)
    photos[5].write_bytes(first)
    return rf"2 replaced \({photos[0].name}, {photos[5].name}\)"


def added(photos: list[Path]) -> str:
    for number in range(4):
        content = photos[number].read_bytes() + b"\0"
        photos[0].with_name(f"0099_c1s1_00000{number}_00.jpg").write_bytes(content)
    return r"4 added \(0099_c1s1_000000_00\.jpg, 0099\S+, 0099\S+, \.\.\.\)"


def removed(photos: list[Path]) -> str:
    photos[3].unlink()
    photos[4].unlink()
    return rf"2 removed \({photos[3].name}, {photos[4].name}\)"


@pytest.mark.parametrize("change", [renamed, replaced, exchanged, added, removed])
def test_other_photos_are_named_and_the_run_is_left_as_it_was(copied: tuple[Path, Path], change) -> None:
    photos, runs = copied
    said = change(train_photos(photos))
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    with pytest.raises(UserError, match=f"since then {said}; .*run.init_from={re.escape(str(runs))}") as caught:
        start(configured(photos, runs, WARM_UP))
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_what_is_advised_works(copied: tuple[Path, Path]) -> None:
    photos, runs = copied
    removed(train_photos(photos))
    with pytest.raises(UserError) as caught:
        start(configured(photos, runs, WARM_UP))
    advised = re.findall(r"run\.(?:name|init_from)=\S+", str(caught.value))
    assert len(advised) == 2
    assert not start(configured(photos, runs, WARM_UP, *advised))
    assert (runs / "walkers-2" / "checkpoints" / "latest").is_dir()


def test_other_photos_of_the_source_are_named(walkers: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    source = shutil.copytree(begun[0], tmp_path / "source")
    settings = (WARM_UP, "warmup.mode=source", "warmup.source=market1501", f"warmup.source_root={source}")
    start(configured(walkers, tmp_path, *settings))
    removed(train_photos(source))
    with pytest.raises(UserError, match=rf"{re.escape(str(source))}\S*: not the images .* 2 removed"):
        open_folder(plan_run(configured(walkers, tmp_path, *settings)))


def without_listing(runs: Path) -> None:
    """As version 0.1 wrote checkpoints."""
    checkpoint = (runs / "walkers" / "checkpoints" / "latest").resolve()
    (checkpoint / LISTING).unlink()
    manifest = json.loads((checkpoint / "checkpoint.json").read_text())
    del manifest["sha256"][LISTING]
    (checkpoint / "checkpoint.json").write_text(json.dumps(manifest))


def test_a_checkpoint_without_a_listing_goes_on(copied: tuple[Path, Path]) -> None:
    without_listing(copied[1])
    assert not start(configured(*copied, WARM_UP))


def test_a_checkpoint_without_a_listing_is_refused_to_another_number_of_images(copied: tuple[Path, Path]) -> None:
    without_listing(copied[1])
    removed(train_photos(copied[0]))
    with pytest.raises(UserError, match=r"labels are of 16 images, .* holds 14"):
        start(configured(*copied, WARM_UP))


def test_a_listing_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    whole = pack({"train": ImageListing(("a.jpg",), ((1, 2),))})
    for content in (b"", whole[:-6], b"PK" + whole, pack({})[:-1]):
        with pytest.raises(UserError, match=r"here: damaged .*; take another checkpoint"):
            unpack(content, "here")


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    listing = ImageListing((name,), ((3, 4),))
    assert unpack(pack({"train": listing}), "") == {"train": listing}
    (tmp_path / name).write_bytes(b"abc")
    here = ImageListing.of(Split(tmp_path, (name,), None, np.zeros(1, np.int64)))
    assert "1 replaced" in difference(listing, here) and difference(here, here) == ""


def test_a_hundred_thousand_images_take_a_megabyte() -> None:
    draw = random.Random(0)
    names = tuple(f"camera{row % 6}/track{row // 40:05d}/{row:08d}.jpg" for row in range(100_000))
    listing = ImageListing(names, tuple((draw.randrange(2000, 9000), draw.getrandbits(32)) for _ in names))
    assert len(pack({"train": listing})) < 1.5e6
