"""A camera of the scene: frames and tracks."""

from __future__ import annotations

from pathlib import Path

import pytest
import scene
from scene import COUNT

from jgcl_ray.footage.sources import Source


@pytest.fixture
def door(tmp_path: Path) -> Source:
    frames = scene.write_frames(tmp_path / "door", COUNT)
    tracks = tmp_path / "door.txt"
    tracks.write_text(scene.mot_lines(COUNT))
    return Source("door", frames=frames, tracks=tracks, fps=scene.RATE)
