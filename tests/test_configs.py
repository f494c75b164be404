"""The shipped configurations: they hold only what differs, and start on data in the layout that they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from jgcl_ray.cache import cache_folder
from jgcl_ray.config import Config, configs_folder, load_config
from jgcl_ray.data.samplers import Shard
from jgcl_ray.data.walkers import WalkersSize, rendering
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.body_models import anny_body
from jgcl_ray.meshes.projection_folders import VIEWS, view_folder
from jgcl_ray.training.prepare import InProcess, estimate_bodies, open_folder, plan_run
from jgcl_ray.training.worker import clear, work

SHIPPED = sorted(path for path in configs_folder().glob("*.yaml") if path.stem != "base")

MARKET = (
    [f"bounding_box_train/{person:04d}_c{camera}s1_000451_00.jpg" for person in (2, 7) for camera in (1, 2)],
    ["query/0001_c1s1_001051_00.jpg", "bounding_box_test/0001_c2s1_001051_01.jpg"],
)
DUKE = (
    [f"bounding_box_train/{person:04d}_c{camera}_f0046182.jpg" for person in (2, 7) for camera in (1, 2)],
    ["query/0001_c1_f0046182.jpg", "bounding_box_test/0001_c2_f0046182.jpg"],
)
MSMT17 = (
    [
        f"train/{person:04d}/{person:04d}_000_{camera:02d}_0303noon_0015_0.jpg"
        for person in (0, 1)
        for camera in (1, 2)
    ],
    [f"test/0000/0000_000_{camera:02d}_0303noon_0015_0.jpg" for camera in (1, 2)],
)


def write_image(path: Path, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(path.name.encode())).integers(0, 256, (40, 20, 3), np.uint8)
    Image.fromarray(pixels[..., 0] if grey else pixels).save(path)


def write_set(root: Path, files: tuple[list[str], list[str]]) -> list[str]:
    """Images in train and test, and MSMT17's lists; the overrides that point at them and at their projections."""
    train, test = files
    for name in (*train, *test):
        write_image(root / name)
    inside = [name.partition("/")[2] for name in train]
    for view in VIEWS:
        for name in inside:
            write_image(view_folder(root / "meshes", "train", view) / name, grey=True)
    if train[0].startswith("train/"):
        query, gallery = (name.partition("/")[2] for name in test)
        lists = {"train": inside[:3], "val": inside[3:], "query": [query], "gallery": [gallery]}
        for name, listed in lists.items():
            (root / f"list_{name}.txt").write_text("".join(f"{line} {int(line[:4])}\n" for line in listed))
    return [f"data.root={root}", f"meshes.root={root / 'meshes'}"]


def adaptation(root: Path) -> list[str]:
    write_set(root / "source", MARKET)
    return [*write_set(root / "target", MSMT17), f"warmup.source_root={root / 'source'}"]


def crops(root: Path) -> list[str]:
    """Three people before three cameras, a colour to each."""
    for camera in range(3):
        for number in range(6):
            shade = np.random.default_rng((camera, number)).integers(0, 60, (52, 20, 3), np.uint8)
            shade[..., number % 3] += 180
            (root / f"cam{camera}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(shade).save(root / f"cam{camera}" / f"{number:03d}.png")
    return [f"data.root={root}"]


DATA: dict[str, Callable[[Path], list[str]]] = {
    "cluster_contrast": lambda root: [],
    "dukemtmc_reid": lambda root: write_set(root, DUKE),
    "folder": crops,
    "gcl": lambda root: [],
    "market1501": lambda root: write_set(root, MARKET),
    "market1501_to_msmt17": adaptation,
    "msmt17": lambda root: write_set(root, MSMT17),
    "official": lambda root: write_set(root, MARKET),
    "walkers": lambda root: [],
    "walkers_tiny": lambda root: [],
}


@pytest.fixture
def few_walkers(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The presets with a handful of walkers, in this session's cache, with the body's tables of the usual one."""
    few = WalkersSize(train=3, test=1, images=2, true_views=0, height=80)
    for preset in rendering.PRESETS:
        monkeypatch.setitem(rendering.PRESETS, preset, few)
    cache = tmp_path_factory.getbasetemp() / "few_walkers"
    if not cache.exists():
        anny_body()
        cache.mkdir()
        for tables in cache_folder().glob("anny-*"):
            (cache / tables.name).symlink_to(tables)
    monkeypatch.setenv("JGCL_RAY_CACHE", str(cache))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_holds_only_what_differs(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    defaults = Config().model_dump(mode="json")
    given = {f"{section}.{name}": value for section, fields in tree.items() for name, value in fields.items()}
    same = [key for key, value in given.items() if defaults[key.split(".")[0]][key.split(".")[1]] == value]
    # The walkers are the default of everything: what says so is there to be seen.
    assert same == [] or (file.stem in ("walkers", "gcl") and set(same) <= set(WALKERS_SAY)), same
    assert load_config(file).run.name == file.stem


WALKERS_SAY = ("run.name", "data.name", "meshes.source", "walkers.preset")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_what_comments_suggest_is_accepted(file: Path) -> None:
    comments = " ".join(line.partition("#")[2] for line in file.read_text().splitlines())
    suggested = re.findall(r"\b[a-z_]+\.[a-z_]+=[\w.]+\b", comments)
    assert suggested or file.stem == "walkers"
    for override in suggested:
        assert load_config(file, [override]) != load_config(file)


def test_every_shipped_config_is_tried() -> None:
    assert DATA.keys() == {path.stem for path in SHIPPED}


@pytest.mark.filterwarnings("ignore:.*as published")
@pytest.mark.parametrize("name", DATA)
def test_a_shipped_config_starts_on_its_layout(name: str, tmp_path: Path, few_walkers: None) -> None:
    overrides = DATA[name](tmp_path / "data")
    plan = plan_run(load_config(name, [*overrides, f"run.root={tmp_path / 'runs'}"]))
    assert len(plan.dataset.train) >= 4
    assert (plan.source is not None) == (plan.config.warmup.mode == "source")
    assert (plan.dataset.query is None) == (name == "folder")


@pytest.mark.parametrize(
    "start",
    [
        "warmup.mode=source run.init_from=null",
        "run.init_from=rendered",
        "run.init_from=null warmup.mode=unsupervised encoder.weights=imagenet",
    ],
)
def test_crops_have_several_starts(start: str, tmp_path: Path, few_walkers: None) -> None:
    plan = plan_run(load_config("folder", [*crops(tmp_path), *start.split()]))
    assert (plan.source is not None) == ("source" in start)


@pytest.mark.parametrize(
    "name", [name for name in DATA if name not in ("walkers", "walkers_tiny", "cluster_contrast", "gcl")]
)
def test_without_a_folder_the_missing_one_is_named(name: str) -> None:
    with pytest.raises(UserError, match=r"data\.root is not set: give the folder that holds .*data\.root=FOLDER"):
        plan_run(load_config(name))


@pytest.mark.filterwarnings("ignore:.*as published")
def test_where_projections_come_from(tmp_path: Path, few_walkers: None) -> None:
    """By the presets that learn without any, too, as soon as they are asked for the paper's stages."""
    data, meshes = write_set(tmp_path, MARKET)
    sources = {
        (): "estimated",
        (meshes,): "folders",
        ("meshes.parameters=bodies.npz",): "parameters",
        ("meshes.source=upright",): "upright",
    }
    for overrides, source in sources.items():
        assert load_config("market1501", [data, *overrides]).meshes.source == source
    gcl = ["joint.recipe=gcl", "run.stages=[warmup,generation,joint]", "data.batch_size=64"]
    plan_run(load_config("market1501", [data, *gcl]))
    with pytest.raises(UserError, match=r"meshes\.root is not set.*meshes\.source=estimated"):
        plan_run(load_config("market1501", [data, *gcl, "meshes.source=folders"]))


GCL = ("joint.recipe=gcl", "run.stages=[warmup,generation,joint]", "generation.epochs=1")


@pytest.mark.parametrize("stages", [(), GCL], ids=["default", "gcl"])
def test_crops_without_labels_run_to_the_end(stages: tuple[str, ...], tmp_path: Path, few_walkers: None) -> None:
    """configs/folder.yaml, smaller: the encoder learns from walkers, then from the crops, which GCL draws, too."""
    tiny = """
        data.height=80 data.width=40 data.batch_size=8 data.identities_per_batch=2 data.images_per_identity=2
        encoder.embedding=16 generator.width=1 generator.style_width=8 discriminator.width=2 discriminator.scales=1
        warmup.epochs=1 warmup.batches_per_epoch=2 joint.epochs=1 tracking.enabled=false
        pseudo_labels.k1=5 pseudo_labels.k2=2 pseudo_labels.eps=0.8 precision.dtype=float32
        run.init_from=null warmup.mode=source
    """.split()
    config = load_config("folder", [*crops(tmp_path / "crops"), *tiny, *stages, f"run.root={tmp_path}"])
    plan = plan_run(config)
    open_folder(plan)
    estimate_bodies(plan)
    clear(plan.folder)
    outcome = work(plan, InProcess(config.pseudo_labels), Shard(), torch.device("cpu"))
    assert outcome.scores is None and not outcome.interrupted
    records = [json.loads(line) for line in (plan.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in records if "images_per_second" in record] == list(config.run.stages)
    labellings = [record for record in records if "num_clusters" in record]
    assert {labelling["stage"] for labelling in labellings} == {*config.run.stages} - {"warmup"}
    for labelling in labellings:
        assert labelling["num_clusters"] > 0 and {"num_outliers", "eps", "single_camera_share"} <= labelling.keys()
    assert all("mAP" not in record for record in records)
