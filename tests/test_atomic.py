"""JSON documents that people can read, too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from jgcl_ray.atomic import replacing, write_json
from jgcl_ray.models.weights import save_weights


def test_json_has_a_line_for_each_entry_and_one_for_a_list_of_numbers(tmp_path: Path) -> None:
    values = {
        "a": 1.5, "words": 'quoted "{[, ä', "none": None, "numbers": list(range(100)), "empty": {}, "nothing": [],
        "rows": [[1, None], [2, "x"]], "deep": {"list": [{"k": True}, [[]]]}, 7: "number", "pair": (1, 2),
    }  # fmt: skip
    target = tmp_path / "values.json"
    write_json(target, values)
    text = target.read_text()
    assert json.loads(text) == json.loads(json.dumps(values))
    assert len(text.splitlines()) == 24 and str(list(range(100))) in text
    for wrong in (float("nan"), [float("inf")], {"a": [[float("nan")]]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(target, wrong)
    assert target.read_text() == text


@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_files_have_the_rights_of_new_ones_here(tmp_path: Path, mask: int, rights: int) -> None:
    before = os.umask(mask)
    try:
        save_weights(torch.nn.Linear(2, 2), tmp_path / "weights.safetensors")
        with replacing(tmp_path / "export") as partial:
            partial.touch(0o600)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {rights}


def test_rests_of_killed_commands_go(tmp_path: Path) -> None:
    target = tmp_path / "a[1].json"
    old, young, others = (
        tmp_path / name for name in (".4194399.partial.a[1].json", ".4194398.partial.a[1].json", "b")
    )
    alive = tmp_path / f".{os.getppid()}.partial.a[1].json"
    for file in (old, young, others, alive):
        file.touch()
    for file in (old, alive, others):
        os.utime(file, (0, 0))
    write_json(target, 1)
    assert sorted(tmp_path.iterdir()) == sorted([young, others, alive, target])


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".png")
    with replacing(path) as partial:
        assert partial.suffix == ".png"
        partial.write_bytes(b"x")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
