"""`--detect`, with modules that stand in for detector and tracker: neither is a dependency."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scene
import torch

from jgcl_ray.errors import UserError
from jgcl_ray.footage import detect
from jgcl_ray.footage.command import Request, extract_crops
from jgcl_ray.footage.sampling import Sampling
from jgcl_ray.footage.sources import Source

COUNT = 20


def stand_in(patch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(content)
    patch.setitem(sys.modules, name, module)


class FakeYolo:
    """Finds the scene's colours, with the calls and answers of ultralytics' YOLO."""

    def __init__(self, weights: str) -> None:
        assert weights == "yolo11n.pt"

    def predict(self, picture: np.ndarray, classes: list[int], conf: float, verbose: bool) -> list[Any]:
        assert classes == [0] and picture.shape == (scene.HEIGHT, scene.WIDTH, 3)
        boxes = []
        for colour in scene.COLOURS:
            near = np.abs(picture[..., ::-1].astype(int) - colour).max(2) < 40
            if near.sum() > 50:
                y, x = np.nonzero(near)
                height = 2 * (y.max() - y.min() + 1)
                boxes.append([x.min(), y.min(), x.max() + 1, y.min() + height])
        found = torch.tensor(np.array(boxes, float).reshape(-1, 4))
        return [SimpleNamespace(boxes=SimpleNamespace(xyxy=found, conf=torch.full((len(found),), 0.9)))]


class FakeDetections(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.xyxy)


class FakeByteTrack:
    """Numbers people by the height at which they walk; the first frame's are not confirmed yet."""

    def __init__(self, frame_rate: float) -> None:
        assert frame_rate == scene.RATE
        self.frames = 0

    def update(self, found: FakeDetections) -> FakeDetections:
        self.frames += 1
        found.tracker_id = np.array([-1 if self.frames == 1 else int(box[1] // 38) + 1 for box in found.xyxy])
        return found


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "ultralytics", YOLO=FakeYolo)
    stand_in(monkeypatch, "supervision", Detections=FakeDetections)
    stand_in(monkeypatch, "trackers", ByteTrackTracker=FakeByteTrack)


def test_people_are_found_and_followed(tmp_path: Path, installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene.write_frames(tmp_path / "door", COUNT)
    source = Source("door", frames=frames, fps=scene.RATE, detect="auto")
    out = tmp_path / "crops"
    extract_crops(Request((source,), out))
    assert {path.name for path in (out / "door").iterdir()} == {"0001", "0002"}
    for file in (out / "door").rglob("*.jpg"):
        assert scene.has_colour(file, int(file.parent.name)) and int(file.stem) > 1
    [written] = (out / ".footage").glob("door.*.tracks.txt")
    assert written.read_text().splitlines()[0].startswith("2,1,8.0,4.0,")
    monkeypatch.setattr(FakeYolo, "predict", lambda *_, **__: pytest.fail("people are looked for again"))
    extract_crops(Request((source,), out, sampling=Sampling(per_track=2)))
    assert len(list((out / "door").rglob("*.jpg"))) == 4


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene.write_frames(tmp_path / "door", 3)
    monkeypatch.setattr(detect, "_there", lambda name: False)
    for name, message in (
        (
            "auto",
            "needs ultralytics or torchvision and trackers, not installed here: pip install ultralytics trackers",
        ),
        ("torchvision", "needs torchvision and trackers, not installed here: pip install torchvision trackers"),
    ):
        with pytest.raises(UserError, match=message):
            extract_crops(Request((Source("a", frames=frames, detect=name),), tmp_path / "crops"))
    monkeypatch.setattr(detect, "_there", lambda name: name == "torchvision")
    with pytest.raises(UserError, match="needs trackers, not installed here: pip install torchvision trackers"):
        detect.check_installed("auto")
