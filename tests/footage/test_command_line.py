"""`python -m jgcl_ray.footage` given wrong: one line, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from jgcl_ray.footage.__main__ import main
from jgcl_ray.footage.sources import Source

BAD = {
    "no camera": (["--frames", "x", "--tracks", "y"], "--camera NAME is missing"),
    "nothing": ([], "no camera: give"),
    "neither video nor frames": (["--camera", "a", "--tracks", "y"], "give either --video FILE or --frames DIR"),
    "no tracks": (["--camera", "a", "--frames", "{door}"], "--tracks is missing"),
    "no such file": (["--camera", "a", "--frames", "{door}", "--tracks", "nowhere.txt"], "no such file"),
    "a path as a name": (["--camera", "a/b", "--frames", "{door}", "--tracks", "{tracks}"], "a name that a folder"),
    "a table's name": (["--camera", "tracks.csv", "--frames", "{door}", "--tracks", "{tracks}"], "a table's name"),
    "a long name": (["--camera", "é" * 100, "--frames", "{door}", "--tracks", "{tracks}"], "too long"),
    "no time": (
        ["--camera", "a", "--frames", "{door}", "--tracks", "{tracks}", "--start", "nan"],
        "--start nan: seconds",
    ),
    "no rate": (["--camera", "a", "--frames", "{door}", "--tracks", "{tracks}", "--fps", "1e-320"], "above 0.0001"),
    "twice": (["--camera", "a", "--camera", "a"], "given twice"),
    "before its camera": (["--fps", "3", "--camera", "a", "--camera", "b"], "stands before the first --camera"),
    "an unknown format": (
        ["--camera", "a", "--frames", "{door}", "--tracks", "{tracks}", "--format", "xyz"], "known are auto, mot"
    ),
    "an unknown detector": (["--camera", "a", "--frames", "{door}", "--detect", "xyz"], "known are auto,"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_commands_are_told_in_one_line(
    tmp_path: Path, door: Source, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, message = BAD[name]
    told = [part.format(door=door.frames, tracks=door.tracks) for part in arguments]
    with pytest.raises(SystemExit) as ended:
        main([*told, "--out", str(tmp_path / "crops")])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1 and message in err
