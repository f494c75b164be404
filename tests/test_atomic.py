"""JSON documents that people can read, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jgcl_ray.atomic import write_json


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
