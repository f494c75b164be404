"""One function over many items, with Ray and without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from mesh_samples import make_parameters

from jgcl_ray.errors import UserError
from jgcl_ray.ray_cluster import ray_cluster
from jgcl_ray.ray_map import map_over_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_ADDRESS", "local")
        with ray_cluster(num_cpus=2, include_dashboard=False):
            yield


def test_without_ray_everything_happens_here() -> None:
    here = os.getpid()
    results = map_over_cluster(lambda chunk: (sum(chunk), os.getpid()), range(7), chunk_size=3, workers=0)
    assert results == [(3, here), (12, here), (6, here)]
    assert map_over_cluster(sum, [], workers=None) == []


# The functions that follow are lambdas or inner ones: Ray sends those along, and its workers cannot import this file.


def test_results_keep_the_order_of_the_items(cluster: None) -> None:
    results = map_over_cluster(lambda chunk: (sum(chunk), os.getpid()), range(20), chunk_size=3)
    assert [chunk for chunk, _ in results] == [3, 12, 21, 30, 39, 48, 37]
    assert os.getpid() not in {process for _, process in results}
    assert ray.is_initialized()  # a connection that was there before stays


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_arrive(cluster: None, workers: int) -> None:
    def refuse(chunk: list[int]) -> None:
        raise UserError(f"item {chunk[0]} is bad: mend it")

    with pytest.raises(UserError, match=r"^item 0 is bad: mend it$"):
        map_over_cluster(refuse, [0, 1], workers=workers)
    with pytest.raises(ZeroDivisionError):
        map_over_cluster(lambda chunk: chunk[0] / 0, [1], workers=workers)


def test_a_dead_process_is_no_loss(cluster: None, tmp_path: Path) -> None:
    def die_once(chunk: list[int]) -> int:
        marker = tmp_path / str(chunk[0])
        if chunk[0] == 4 and not marker.exists():
            marker.touch()
            os._exit(1)
        return chunk[0]

    assert map_over_cluster(die_once, range(6), chunk_size=2) == [0, 2, 4]
    assert (tmp_path / "4").exists()


def test_projections_are_drawn_by_a_local_ray(tmp_path: Path, smpl_npz: Path) -> None:
    """The command line with two workers, in a process of its own, which starts and ends a Ray."""
    names = [f"{number:04d}_c1s1_000001_00.jpg" for number in range(20)]
    np.savez(tmp_path / "parameters.npz", **make_parameters(names))
    program = "from jgcl_ray import progress\nprogress.LINE_EVERY = 0.0\n"
    program += "from jgcl_ray.meshes.projections import main\nmain()"
    command = [sys.executable, "-c", program, "--parameters", tmp_path / "parameters.npz"]
    command += ["--smpl", smpl_npz, "--out", tmp_path / "out", "--size", "32x16", "--workers", "2"]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "160 pictures drawn, 0 kept" in result.stdout and "20 of 20\n" in result.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == 160
    (tmp_path / "out" / "train" / "render" / names[3].replace(".jpg", ".png")).unlink()
    np.savez(tmp_path / "parameters.npz", **make_parameters(names, betas=np.zeros((20, 10))))
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
