"""benchmarks/gpu_check.py without a GPU: smaller parts, what follows from their records, failures on record."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def check() -> Iterator[Any]:
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("gpu_check")
    sys.path.remove(folder)


def found(check: Any, name: str, out: Path) -> dict[str, Any]:
    """The record of a small part, computed in this process."""
    part = next(part for part in check.parts(check.SMALL, out) if part.name == name)
    kind = importlib.import_module("gpu_parts").KINDS[part.kind]
    return {"part": name, "seconds": 0.0, **kind(**json.loads(json.dumps(part.arguments)))}


def test_a_step_is_compared_with_the_literal_one(check: Any, tmp_path: Path) -> None:
    before = [found(check, name, tmp_path) for name in ("matmul", "step-2-literal")]
    step = found(check, "step-2-float32", tmp_path)
    record = check.related(step, before)
    assert "error" not in record and set(before[1]["terms"]) < set(record["terms"])
    ((_, difference),) = record["literal_difference"].items()
    assert 0 < difference < 0.01
    rate = before[0]["rates"]["tf32"] * 1e12
    assert record["share_of_matmul"] == pytest.approx(step["operations"] / step["seconds_step"] / rate, abs=1e-4)
    wrong = step | {"terms": step["terms"] | {"image_cycle": 9.0}}
    assert "image_cycle" in check.related(wrong, before)["error"]


@pytest.mark.parametrize("name", ["ranking", "labels-600x64"])
def test_device_and_cpu_agree(check: Any, name: str, tmp_path: Path) -> None:
    record = found(check, name, tmp_path)
    assert "error" not in record
    assert record.get("differing_labels", 0) == 0 and record.get("same_nearest_ten", 1) > 0.99


def test_a_failed_part_is_on_record_and_the_next_one_runs(
    check: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults: an unknown kind, a part without time, one that needs CUDA."""
    sound = check.Part("machine", 300, "machine", {})
    unknown, endless = check.Part("unknown", 300, "nothing", {}), check.Part("endless", 0.1, "machine", {})
    for_cuda = check.Part("for_cuda", 300, "machine", {}, "why")
    records = check.check([unknown, endless, for_cuda, sound], tmp_path, cuda=False, seconds=900)
    assert "KeyError" in records[0]["error"] and "not done" in records[1]["error"]
    assert records[2]["skipped"] == "no CUDA: why"
    assert records[3]["torch"] and "error" not in records[3]
    lines = (tmp_path / "gpu_check.jsonl").read_text().splitlines()
    assert (
        [json.loads(line) for line in lines]
        == records
        == [json.loads(n) for n in capsys.readouterr().out.splitlines()]
    )
    assert check.check([sound], tmp_path, cuda=False, seconds=0)[0]["error"] == "no time left"


def test_exit_codes(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.torch.cuda, "is_available", lambda: False)
    assert check.main([str(tmp_path), "--parts", "tests"]) == 0, "skipped"
    assert check.main([str(tmp_path), "--parts", "matmul", "--seconds", "0"]) == 1
    with pytest.raises(SystemExit, match="2"):
        check.main([str(tmp_path), "--parts", "nothing"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["FILE"], "FILE: not a folder"),
        (["OUT", "--seconds", "nan"], "'nan' is not a number"),
        (["OUT", "--data", "GONE"], "GONE: no such folder"),
        (["--help"], "usage: gpu_check.sh OUT"),
        ([], "usage: gpu_check.sh OUT"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("precious")
    given = [str(tmp_path / text) if text.isupper() else text for text in arguments]
    script = Path(__file__).parents[1] / "benchmarks" / ("gpu_check.py" if "usage" not in named else "gpu_check.sh")
    command = [sys.executable] if script.suffix == ".py" else ["bash"]
    done = subprocess.run([*command, str(script), *given], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: ") and named in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "FILE").read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_the_job_is_stopped_and_scored(check: Any, walkers: Path, tmp_path: Path) -> None:
    assert check.main([str(tmp_path), "--parts", "job", "--data", str(walkers)]) == 0
    record = json.loads((tmp_path / "gpu_check.jsonl").read_text())
    assert record["ended_by"] == "STOP" and 0 < record["mAP"] <= 1
