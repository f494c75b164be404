"""People found and tracked where there are no tracks: by a detector and a tracker that the user has installed.

Detectors: ultralytics (AGPL-3.0) or torchvision (BSD-3). Tracker: ByteTrack of the package `trackers` (Roboflow,
Apache-2.0). None of them is a dependency; the tracks are written as MOT text, to be looked at and used again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.atomic import replacing
from jgcl_ray.errors import UserError
from jgcl_ray.footage.video import FrameReader, ReadProgress

DETECTORS = ("auto", "ultralytics", "torchvision")
LEAST = 0.1  # score from which on a box goes to the tracker; ByteTrack makes use of weak ones

Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # RGB -> (n, 4) corners, (n,) scores


def check_installed(detector: str) -> str:
    """The detector's name; UserError that says what to install."""
    if detector not in DETECTORS:
        raise UserError(f"--detect {detector}: known are {', '.join(DETECTORS)}")
    wanted = DETECTORS[1:] if detector == "auto" else (detector,)
    found = [name for name in wanted if _there(name)]
    missing = [] if found else [" or ".join(wanted)]
    missing += [] if _there("trackers") else ["trackers"]
    if missing:
        named = " and ".join(missing)
        install = f"pip install {found[0] if found else wanted[0]} trackers"
        raise UserError(f"--detect needs {named}, not installed here: {install}; or give --tracks")
    return found[0]


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def write_tracks(
    reader: FrameReader,
    file: Path,
    detector: str,
    weights: Path | None,
    watch: Callable[[int], None],
) -> None:
    """Detect and track people in all frames; `file` is MOT text, complete or not there.

    weights: of the detector; None for what it takes by itself. watch: called with each frame's number.
    """
    find = {"ultralytics": _ultralytics, "torchvision": _torchvision}[check_installed(detector)](weights)
    follow = _byte_track(reader.rate)
    last = reader.footage.frames or 10**9
    with replacing(file) as partial, partial.open("w", encoding="utf-8") as lines:
        for frame in reader.frames(range(1, last + 1), ReadProgress()):
            for track, box, score in follow(*find(np.ascontiguousarray(frame.pixels))):
                left, top, right, bottom = box
                place = f"{left:.1f},{top:.1f},{right - left:.1f},{bottom - top:.1f}"
                lines.write(f"{frame.number},{track},{place},{score:.3f},-1,-1,-1\n")
            watch(frame.number)
        lines.flush()


def _ultralytics(weights: Path | None) -> Detector:
    from ultralytics import YOLO

    model: Any = YOLO(str(weights) if weights else "yolo11n.pt")

    def find(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes = model.predict(pixels[..., ::-1], classes=[0], conf=LEAST, verbose=False)[0].boxes  # takes BGR
        return np.asarray(boxes.xyxy.cpu()).reshape(-1, 4), np.asarray(boxes.conf.cpu()).reshape(-1)

    return find


def _torchvision(weights: Path | None) -> Detector:
    import torch
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    if weights is None:
        model = fasterrcnn_mobilenet_v3_large_fpn(weights="DEFAULT")
    else:
        model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()

    @torch.inference_mode()
    def find(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = model([torch.from_numpy(pixels).permute(2, 0, 1).float() / 255])[0]
        people = (found["labels"] == 1) & (found["scores"] >= LEAST)
        return found["boxes"][people].numpy(), found["scores"][people].numpy()

    return find


def _byte_track(rate: float) -> Callable[[np.ndarray, np.ndarray], list[tuple[int, np.ndarray, float]]]:
    import supervision
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(frame_rate=rate)

    def follow(boxes: np.ndarray, scores: np.ndarray) -> list[tuple[int, np.ndarray, float]]:
        classes = np.zeros(len(boxes), int)
        found = tracker.update(supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes))
        if not len(found):
            return []
        named = zip(found.tracker_id, found.xyxy, found.confidence, strict=True)
        return [(int(track), box, float(score)) for track, box, score in named if track >= 0]

    return follow
