"""Every kind of file that is written here and read again: damaged, it is one line that names it and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from jgcl_ray.config import load_config, to_yaml
from jgcl_ray.data.datasets import Split
from jgcl_ray.data.datasets.walkers import _with_tracklets
from jgcl_ray.data.image_listing import ImageListing, pack, unpack
from jgcl_ray.data.staging import LISTING, stage_folder
from jgcl_ray.data.walkers import rendering
from jgcl_ray.data.walkers.rendering import WalkersSize, render
from jgcl_ray.encoder import METADATA, Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.estimator_training.cutouts import _ARRAYS as CUTOUTS
from jgcl_ray.estimator_training.cutouts import read_shard
from jgcl_ray.estimator_training.train import Learner, Recipe
from jgcl_ray.evaluation.query_scores import ScoresFile
from jgcl_ray.footage.kept import read_journal, read_record
from jgcl_ray.footage.summary import records_of
from jgcl_ray.meshes import upright
from jgcl_ray.meshes.estimated_bodies import read_estimated
from jgcl_ray.meshes.walker_files import ARRAYS, read_height, read_views
from jgcl_ray.meshes.walking_pose import WalkingPoses
from jgcl_ray.mlflow_mirror import _NO_MODEL, RunCard, _SavedModel
from jgcl_ray.run_log import read_records
from jgcl_ray.stored_files import read_yaml_as
from jgcl_ray.training.prepare import _config_before
from jgcl_ray.training.worker import read_outcome
from jgcl_ray.tuning.record import TrialRecord, check_params, open_folder, read_trials
from jgcl_ray.tuning.space import SweepConfig, check_space

SIZE = WalkersSize(train=2, test=2, images=2, true_views=0, height=32)
SPACE = SweepConfig(trials=2, fields={"losses.image_cycle": {"uniform": [1.0, 2.0]}})
CROP = {
    "file": "door/0001/000001.jpg", "camera": "door", "track": "0001", "frame": 1, "time": 0.0, "left": 1.0,
    "top": 1.0, "width": 8.0, "height": 16.0, "confidence": None, "quality": 0.5, "overlap": 0.0,
}  # fmt: skip
SPAN = {"camera": "door", "track": "0001", "first": 1, "last": 2, "start": 0.0, "end": 1.0, "boxes": 2, "crops": 1}
QUERIES = {
    "files": ["a.jpg"], "identities": [1], "cameras": [1], "average_precision": [0.5], "first_match": [1],
    "gallery_cameras": [1, 2], "by_camera": [[None, 0.5]],
}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A kind of JSON (or YAML) file."""

    name: str  # below the test's folder
    content: Mapping[str, Any]
    read: Callable[[Path], object]  # of the file
    needed: tuple[str, ...]  # fields, with dots, that it cannot do without
    remedy: str
    dump: Callable[[Any], str] = json.dumps


def _sweep(file: Path) -> None:
    base = load_config("walkers", [f"run.root={file.parents[1]}"])
    open_folder(file.parent, base, check_space("mine", SPACE, base))


def _trial(file: Path) -> None:
    base = load_config("walkers")
    assert [trial.name for trial in read_trials(file.parents[1])] == ["trial_000"]
    check_params(file.parents[1], check_space("mine", SPACE, base))


DOCUMENTS = {
    "walkers.json": Document(
        "walkers.json", SIZE.made_of(1), lambda file: render(file.parent, SIZE, 1), (), "render the walkers again"
    ),
    "walkers.json, height": Document(
        "walkers.json", SIZE.made_of(1), lambda file: read_height(file.parent), ("height",), "render the walkers"
    ),
    "trial.json": Document(
        "trials/trial_000/trial.json",
        {"name": "trial_000", "number": 0, "params": {"losses.image_cycle": 1.5}, "status": "finished", "best": 0.5},
        _trial,
        ("name", "number", "params", "params.losses.image_cycle"),
        "remove .*trial_000 to run the trial anew",
    ),
    "sweep.json": Document("s/sweep.json", {}, _sweep, (), "another run.name"),
    "tracking.json": Document(
        "tracking.json",
        {"key": "k", "name": "n", "uri": "", "experiment": "e", "status": "RUNNING", "params": {}, "tags": {}},
        lambda file: RunCard.read(file.parent),
        ("key", "name", "uri", "experiment", "status", "params", "tags"),
        "delete it",
    ),
    "outcome.json": Document(
        "outcome.json",
        {
            "interrupted": False,
            "position": {"stage": 1, "epoch": 2, "batch": 0, "step": 3},
            "scores": {"mAP": 0.5, "rank1": 0.5, "mINP": 0.5, "queries": 3},
        },
        lambda file: read_outcome(file.parent),
        ("interrupted", "position", "scores.mAP", "scores.queries"),
        "give the command again",
    ),
    "MLmodel": Document(
        "MLmodel",
        {"model_uuid": "u", "metadata": {"step": 3}},
        lambda file: read_yaml_as(file, _SavedModel, _NO_MODEL),
        ("model_uuid", "metadata", "metadata.step"),
        "remove the folder model",
        yaml.safe_dump,
    ),
    "config.yaml": Document(
        "config.yaml",
        yaml.safe_load(to_yaml(load_config("walkers"))),
        _config_before,
        (),
        "another run.name",
        yaml.safe_dump,
    ),
    "a camera's record": Document(
        "crops/.footage/door.json",
        {"digest": "d", "camera": "door", "rows": [CROP], "spans": [SPAN], "notes": []},
        read_record,
        ("digest", "camera", "rows", "spans", "notes"),
        "delete it and the folder .*crops/door, the camera is done again",
    ),
    "a camera's record, of all": Document(
        "crops/.footage/door.json",
        {"digest": "d", "camera": "door", "rows": [CROP], "spans": [SPAN], "notes": []},
        lambda file: records_of(file.parents[1]),
        ("camera",),
        "delete it and the folder .*crops/door, the camera is done again",
    ),
    "scores": Document(
        "scores.json",
        {"mAP": 0.5, "protocol": "market", "gallery": 7, "checkpoint": {"path": "run"}, "by_query": QUERIES},
        ScoresFile.read,
        ("mAP", "protocol", "gallery", "by_query", *(f"by_query.{name}" for name in QUERIES)),
        "write it again",
    ),
}


def _others(value: object) -> Iterator[object]:
    """Values that nothing of this type can be."""
    yield from ([], {}) if isinstance(value, int | float | str | None) else ("x", 3)
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield "x"
    if isinstance(value, str):
        yield 3


def _changed(content: Mapping[str, Any], field: str, value: object) -> dict[str, Any]:
    """A copy with another value in a field; ... takes it out."""
    copy: dict[str, Any] = json.loads(json.dumps(content))
    section, name = copy, field
    while name not in section:  # fields' names may hold dots themselves
        outer, _, name = name.partition(".")
        section = section[outer]
    section[name] = value
    if value is ...:
        del section[name]
    return copy


def _value(content: Mapping[str, Any], field: str) -> object:
    section, name = content, field
    while name not in section:
        outer, _, name = name.partition(".")
        section = section[outer]
    return section[name]


def _damages(kind: Document) -> Iterator[str]:
    whole = kind.dump(kind.content)
    yield from ("[]", "3", '"text"', "\0\0\0", "[" * 100_000)
    if kind.dump is json.dumps:
        yield from ("", "null", whole[: len(whole) // 2])
    for field in kind.needed:
        yield kind.dump(_changed(kind.content, field, ...))
        for other in _others(_value(kind.content, field)):
            yield kind.dump(_changed(kind.content, field, other))


def _refused(read: Callable[[Path], object], file: Path, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"(?s){file.name}.*{remedy}") as caught:
        read(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str, tmp_path: Path) -> None:
    kind = DOCUMENTS[name]
    file = tmp_path / kind.name
    file.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "crops" / "door").mkdir(parents=True)
    if name != "sweep.json":  # made from its configuration, below
        file.write_text(kind.dump(kind.content))
    kind.read(file)
    for damage in _damages(kind):
        file.write_text(damage)
        remedy = "write it again" if name == "scores" else kind.remedy
        _refused(kind.read, file, remedy)
    file.write_bytes(b"\xff\xfe{}")
    _refused(kind.read, file, kind.remedy)


def test_the_listing_of_a_staged_copy(tmp_path: Path) -> None:
    source, disk = tmp_path / "source", tmp_path / "disk"
    source.mkdir()
    disk.mkdir()
    (source / "a.jpg").touch()
    file = stage_folder(source, disk) / LISTING
    for damage in ("", "[]", "null", "3", '{"a.jpg": 3}', '{"a.jpg": [1, 2]}', '{"a.jpg": ["x", 1, "y"]}'):
        file.write_text(damage)
        _refused(lambda _: stage_folder(source, disk), file, f"remove {file.parent}, the data set is copied again")


RECORD = '{"stage": "joint", "epoch": 0, "step": 1, "x": 0.5, "y": null}\n'


@pytest.mark.parametrize(
    "line",
    ["[]", "3", "{", '{"stage": "joint", "epoch": 0}', '{"stage": 3, "epoch": 0, "step": 1}',
     '{"stage": "joint", "epoch": "0", "step": 1}', '{"stage": "joint", "epoch": 0, "step": 1.5}',
     '{"stage": "joint", "epoch": 0, "step": 1, "x": "0.5"}', '{"stage": "joint", "epoch": 0, "step": 1, "x": NaN}',
     '{"stage": "joint", "epoch": 0, "step": 1, "x": [1]}', '{"stage": "joint", "epoch": 0, "step": true}',
     '{"stage": "joint", "epoch": 0, "step": 1, "x": 1' + "0" * 400 + "}", "[" * 100_000],
)  # fmt: skip
def test_metrics(tmp_path: Path, line: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(RECORD + line + "\n" + RECORD)
    with pytest.raises(UserError, match=rf"{file}: line 2 is not a record; take it out"):
        read_records(tmp_path)
    file.write_text(RECORD + RECORD)
    assert len(read_records(tmp_path)) == 2


def test_the_journal_of_a_camera(tmp_path: Path) -> None:
    file = tmp_path / "crops" / ".footage" / "door.jsonl"
    file.parent.mkdir(parents=True)
    header, track = '{"digest": "d"}\n', json.dumps({"track": 1, "folder": "0001", "rows": [CROP]}) + "\n"
    file.write_text(header + track + track[:20])  # stopped while it wrote: the last track is done again
    assert read_journal(file) == ({"digest": "d"}, [{"track": 1, "folder": "0001", "rows": [CROP]}])
    for damage in ("[]\n", "3\n", track, header + "[]\n", header + track[:20] + "\n" + track, header + "{}\n",
                   header + track.replace('"folder": "0001"', '"folder": 3'),
                   header + track.replace('"time": 0.0', '"time": "late"')):  # fmt: skip
        file.write_text(damage)
        _refused(read_journal, file, "delete it and the folder .*crops/door, the camera is done again")


def _array(described: str, sizes: Mapping[str, int]) -> np.ndarray:
    kinds, *shape = described.split()
    of_kind: dict[str, Any] = {"U": "<U9", "i": np.int64, "f": np.float32, "u": np.uint8}
    array = np.zeros([sizes.get(size) or int(size) for size in shape], of_kind[kinds[0]])
    return np.char.add(array, "x") if kinds == "U" else array


def _npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # of its stub


TRUTH = {name: _array(each, {"N": 2, "M": 1, "V": 7, "H": 4, "W": 2}) for name, each in ARRAYS.items()}
NPZ: dict[str, tuple[str, Mapping[str, np.ndarray], Callable[[Path], object], str]] = {
    "views.npz": ("views.npz", TRUTH, lambda file: read_views(file, *ARRAYS), "remove .* render the walkers again"),
    "bodies.npz": (
        "bodies.npz",
        {"names": np.array(["a", "b"]), "deviation": np.zeros(2, np.float32), "made_from": np.array("digest")},
        read_estimated,
        "delete it, the bodies will be estimated again",
    ),
    "cut-outs": (
        "0000.npz",
        {name: _array(each, {"N": 2, "P": 1}) for name, each in CUTOUTS.items()},
        read_shard,
        "delete it, its walkers are rendered again",
    ),
}


@pytest.mark.parametrize("name", NPZ)
def test_arrays(name: str, tmp_path: Path) -> None:
    file_name, arrays, read, remedy = NPZ[name]
    file = tmp_path / file_name
    _npz(file, arrays)
    read(file)
    whole = file.read_bytes()
    for content in (b"", b"PK", b"text", whole[: len(whole) // 2], whole[:-30]):
        file.write_bytes(content)
        _refused(read, file, remedy)
    for key, array in arrays.items():
        others = [np.array(3), np.zeros((*array.shape, 2), array.dtype), np.array([{}], object)]
        others += [array.astype("U9") if array.dtype.kind != "U" else np.zeros(array.shape)]
        for other in others:
            np.savez(file, **{**arrays, key: other})  # type: ignore[arg-type]
            _refused(read, file, remedy)
        _npz(file, {name: each for name, each in arrays.items() if name != key})
        _refused(read, file, remedy)


def test_rows_in_the_walkers_truth(tmp_path: Path) -> None:
    for key, value in (("photo_rows", np.array([2])), ("photo_rows", np.array([-1])), ("gait", np.full((2, 8), 9.0))):
        _npz(tmp_path / "views.npz", {**TRUTH, key: value})
        _refused(lambda file: read_views(file, *ARRAYS), tmp_path / "views.npz", "render the walkers again")


def test_a_record_of_a_photo_that_was_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "set.partial" / "records"
    records.mkdir(parents=True)
    (records.parent / "walkers.json").write_text(json.dumps(SIZE.made_of(1)))
    whole = {name: _array(ARRAYS[name].replace(" N", ""), {}) for name in ("shape", "gait", *rendering._OF_SHOT)}
    whole["photos"] = np.zeros(0, np.uint8)
    for row in range(len(SIZE.plan(1).photos)):
        _npz(records / f"{row}.npz", whole)
    file = records / "1.npz"
    for damaged in ({}, {**whole, "gait": np.zeros(7)}, {**whole, "photos": np.zeros(0)}):
        _npz(file, damaged)
        _refused(lambda _: render(tmp_path / "set", SIZE, 1, workers=1), file, "delete it")
    file.write_bytes(b"PK")
    _refused(lambda _: render(tmp_path / "set", SIZE, 1, workers=1), file, "the photo is rendered again")


def test_a_folder_that_only_bears_the_name_of_a_set_under_way(tmp_path: Path) -> None:
    precious = tmp_path / "set.partial" / "thesis.txt"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(UserError, match=r"set\.partial exists and is no set of walkers: remove it"):
        render(tmp_path / "set", SIZE, 1)
    assert precious.exists()


@pytest.mark.parametrize("text", ["", "a", "name,tracklet,time\nf/a.jpg,x,0\n", "name,tracklet,time\nf/a.jpg,1,nan\n",
                                  f"name,tracklet,time\nf/a.jpg,1{'0' * 30},0\n", "name,tracklet,time\nf/a.jpg\n",
                                  "name,tracklet,time\nf/a.jpg,1,0\x00\n"])  # fmt: skip
def test_tracks_of_walkers(tmp_path: Path, text: str) -> None:
    split, file = Split(tmp_path / "f", ("a.jpg",), np.array([1]), np.array([1])), tmp_path / "tracks.csv"
    file.write_text("name,tracklet,time\nf/a.jpg,1,0.5\n")
    assert _with_tracklets(split, file).times is not None
    file.write_text(text)
    _refused(lambda _: _with_tracklets(split, file), file, "render the walkers again, or remove the file")


def test_the_pictures_of_upright_walkers(tmp_path: Path) -> None:
    file, shape = tmp_path / "upright.npy", (upright.BODIES, upright.SIDES, 4, 2)

    def read(_: Path) -> np.ndarray:
        return upright._kept(file, lambda height, width: np.zeros(shape, np.uint8), np.dtype(np.uint8), shape)

    assert read(file).shape == shape
    whole = file.read_bytes()
    np.save(tmp_path / "other.npy", np.zeros(shape))
    _npz(tmp_path / "other.npz", {"x": np.zeros(3)})
    others = [(tmp_path / name).read_bytes() for name in ("other.npy", "other.npz")]
    for content in (b"", b"text", whole[:-1], whole[:30], b"\x93NUMPY\x01\x00\x05\x00(((((", *others):
        file.write_bytes(content)
        _refused(read, file, "delete it, it will be drawn again")


def test_the_listing_of_a_checkpoints_images() -> None:
    whole = pack({"train": ImageListing(("a",), ((1, 2),))})
    assert unpack(whole, "images.json.gz")["train"].names == ("a",)
    for content in (b"", whole[:-9], b"\x1f\x8btext", whole[:-4] + b"0000"):
        with pytest.raises(UserError, match=r"images\.json\.gz: damaged .*; take another checkpoint"):
            unpack(content, "images.json.gz")


def test_the_training_of_an_estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WalkingPoses, "fit", lambda poses: poses)  # seconds
    file, learner = tmp_path / "x.safetensors.training", Learner(Recipe(), torch.device("cpu"))
    learner.save(file)
    learner.load(file)
    whole = file.read_bytes()
    for content in (b"", b"text", b"PK", whole[: len(whole) // 2]):
        file.write_bytes(content)
        _refused(learner.load, file, "delete it, the training begins anew")
    state = learner._state()
    damaged: list[object] = [[1], 3, {}, {**state, "network": {}}, {**state, "average": "x"}, {**state, "step": "x"}]
    damaged += [{**state, "optimiser": {"state": {}}}, {key: state[key] for key in state if key != "recipe"}]
    for content in damaged:
        torch.save(content, file)
        _refused(learner.load, file, "delete it, the training begins anew")
    torch.save({**state, "recipe": {}}, file)
    with pytest.raises(UserError, match=r"is of another training, .*delete it"):
        learner.load(file)


@pytest.mark.parametrize(
    "card", ["", "[]", "3", "{}", '{"encoder": 3, "height": 1, "width": 1}',
             '{"encoder": {}, "height": 0, "width": 1}',
             '{"encoder": {"backbone": 3}, "height": 8, "width": 8}', '{"encoder": {}, "height": 1e999, "width": 8}',
             '{"encoder": {}, "height": 8, "width": 8, "resampling": 3}',
             '{"encoder": {}, "height": 1000000000, "width": 8}',
             '{"encoder": {"backbone": "tomorrow"}, "height": 8, "width": 8}',
             '{"encoder": {"tomorrow": 1}, "height": 8, "width": 8}'],
)  # fmt: skip
def test_the_card_of_an_exported_encoder(tmp_path: Path, card: str) -> None:
    file = tmp_path / "encoder.safetensors"
    save_file({"x": torch.zeros(1)}, file, {METADATA: card})
    _refused(Encoder.load, file, "export it again")


@pytest.mark.parametrize(
    "field", ['"number": -1', '"best": NaN', '"best": Infinity', '"seconds": NaN', '"epochs": -2']
)
def test_numbers_of_a_trial_that_cannot_be(tmp_path: Path, field: str) -> None:
    file = tmp_path / "trial_000" / "trial.json"
    file.parent.mkdir()
    file.write_text('{"name": "trial_000", "number": 0, "params": {}, ' + field + "}")
    _refused(lambda _: read_trials(tmp_path), file, "to run the trial anew")


def test_a_trial_that_says_another_name(tmp_path: Path) -> None:
    record = TrialRecord("trial_000", 0, {})
    (tmp_path / "trial_000").mkdir()
    record.write(tmp_path)
    (tmp_path / "trial_000").rename(tmp_path / "trial_001")
    file = tmp_path / "trial_001" / "trial.json"
    _refused(lambda _: read_trials(tmp_path), file, "to run the trial anew")
