from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from jgcl_ray import diagnosis, doctor
from jgcl_ray.diagnosis import LOST, Finding, available_memory, diagnose, readable, requirements


def _ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        doctor.main(arguments)
    return int(str(ended.value.code))


def _named(name: str) -> Finding:
    (found,) = (finding for finding in diagnose() if finding.name == name)
    return found


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with room, whatever this one has."""
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(diagnosis, "LEAST_DISK", 0)
    monkeypatch.setattr(diagnosis, "LEAST_MEMORY", 0)


def test_where_all_that_is_needed_is_there_the_exit_code_is_0(
    roomy: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended() == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "all that is needed is there"
    for part in ("versions", "optional", "processor", "GPU", "caches", "room"):
        assert f"\n{part}\n" in printed
    assert "\nRay\n" not in printed  # Ray is not started unless asked for


def test_a_missing_package_is_named_with_what_is_lost_and_its_command(
    roomy: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = diagnosis._version
    monkeypatch.setattr(diagnosis, "_version", lambda name: None if name == "mlflow" else version(name))
    assert _ended("--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    (found,) = (finding for finding in document["findings"] if finding["name"] == "mlflow")
    assert (found["value"], found["ok"], found["needed"]) == ("not installed", False, True)
    assert found["lost"] == LOST["mlflow"]
    assert found["remedy"].startswith("pip install 'mlflow")
    assert _ended() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "needed and missing: mlflow"


def test_a_version_out_of_range_and_a_broken_package_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    old = diagnosis._package(Requirement("numpy>=99"), "versions", True, "", "")
    assert not old.ok and old.value.endswith("where >=99 is needed")
    monkeypatch.setitem(diagnosis.MODULES, "numpy", "no_such_module")
    broken = diagnosis._package(Requirement("numpy"), "versions", True, "", "pip install numpy")
    assert not broken.ok and "cannot be imported (ModuleNotFoundError" in broken.value
    assert broken.remedy == "pip install numpy --force-reinstall"


def test_either_build_of_faiss_will_do_and_both_will_not(monkeypatch: pytest.MonkeyPatch) -> None:
    version, there = diagnosis._version, {"faiss-cpu": None, "faiss-gpu": "1.15"}
    monkeypatch.setattr(diagnosis, "_version", lambda name: there[name] if name in there else version(name))
    assert _named("faiss-cpu").ok
    there["faiss-cpu"] = version("faiss-cpu")
    assert _named("faiss").needed and not _named("faiss").ok


def test_little_room_and_a_cache_that_cannot_be_written_fail(
    roomy: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(diagnosis, "LEAST_MEMORY", available_memory() * 100)
    (tmp_path / "file").touch()
    monkeypatch.setenv("JGCL_RAY_CACHE", str(tmp_path / "file" / "cache"))
    failed = {finding.name for finding in diagnose() if finding.needed and not finding.ok}
    assert failed == {"memory", "jgcl_ray"}


def test_the_caches_sizes_are_those_of_their_files(roomy: None, tmp_path: Path) -> None:
    (tmp_path / "cache" / "walkers").mkdir(parents=True)
    (tmp_path / "cache" / "walkers" / "a").write_bytes(bytes(2048))
    (tmp_path / "cache" / ".walkers.lock").touch()
    assert _named("  walkers").value == "2 KiB"
    assert not [finding.name for finding in diagnose() if finding.name.endswith(".lock")]
    assert _named("jgcl_ray").value.endswith(", 2 KiB")


def test_every_requirement_says_what_it_is_for() -> None:
    needed = {need.name for need in requirements() if need.marker is None}
    assert needed == set(LOST)


def test_readable() -> None:
    assert [readable(size) for size in (12, 2048, 3 * 2**20, 5.5 * 2**30)] == ["12 B", "2 KiB", "3 MiB", "5.5 GiB"]
