"""Cameras by a YAML file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jgcl_ray.errors import UserError
from jgcl_ray.footage.sources import Source, read_sources


def test_camera_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text("cameras:\n  door: {video: a.mp4, tracks: a.txt}\n  door: {video: b.mp4, tracks: b.txt}\n")
    with pytest.raises(
        UserError, match=r"--sources .*cameras.yaml: line 3: door stands a second time, first in line 2"
    ):
        read_sources(file)


def test_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cameras\.yaml: not YAML in UTF-8"):
        read_sources(file)


@pytest.mark.parametrize("value", ["[a.mp4, b.mp4]", "{first: a.mp4}"])
@pytest.mark.parametrize("name", ["camera", "video", "tracks", "format", "fps"])
def test_a_setting_is_one_value(name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(f"cameras:\n- {{{name}: {value}}}\n")
    with pytest.raises(UserError, match=f"{name}: .* is more than one; a camera has one {name}"):
        read_sources(file)


@pytest.mark.parametrize("given", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_not_read(given: str, tmp_path: Path) -> None:
    """One without a writer is waited for, the other fills the memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "frames").mkdir()
    with pytest.raises(UserError, match=f"camera door: --tracks .*{given}: a pipe or a device; save it as a file"):
        Source("door", frames=tmp_path / "frames", tracks=tmp_path / given).checked()
    with pytest.raises(UserError, match=f"--sources .*{given}: a pipe or a device; save it as a file"):
        read_sources(tmp_path / given)
