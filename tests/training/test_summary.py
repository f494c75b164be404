"""The plan of a run in words, and the memory it will need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import arguments, configured

from jgcl_ray.training.prepare import plan_run
from jgcl_ray.training.summary import describe, memory


def test_header_says_what_is_about_to_happen(walkers: Path, tmp_path: Path) -> None:
    lines = describe(plan_run(configured(walkers, tmp_path, "scaling.num_workers=2")), "two of them")
    assert lines["run"] == f"{tmp_path / 'walkers'}, new"
    assert str(walkers) in lines["data"] and "train 16 images" in lines["data"]
    assert lines["stages"] == "warm-up by pseudo labels, 1 epoch, generation, 1 epoch, joint, 1 epoch"
    assert "4 images, in the warm-up 6, 2 and 3 on each of 2 workers" in lines["batch"]
    assert lines["devices"] == "two of them"
    assert lines["best"] == "the last checkpoint: without labels no score is known that follows the truth"
    assert lines["record"].endswith("metrics.jsonl; MLflow: off")


def test_memory_grows_with_what_it_is_for(walkers: Path, tmp_path: Path) -> None:
    def parts(*overrides: str) -> dict[str, int]:
        return dict(memory(plan_run(configured(walkers, tmp_path, *overrides))))

    small, wide = parts(), parts("generator.width=4")
    activations = "activations of 4 images"
    assert wide["networks, gradients, optimisers"] > small["networks, gradients, optimisers"]
    assert wide[activations] > small[activations] > 4 * 10 * 80 * 40 * 4
    assert parts("data.batch_size=8")["activations of 8 images"] == pytest.approx(2 * small[activations], rel=0.1)
    alone = ("run.stages=[warmup,joint]", "joint.recipe=cluster_contrast")
    encoder = parts(*alone)["activations of 6 images"]
    assert parts(*alone, "data.images_per_identity=4")["activations of 12 images"] == pytest.approx(
        2 * encoder, rel=0.1
    )
    with_views = parts(*alone, "cluster_contrast.views_every=2")["activations of 9 images"]
    assert with_views == pytest.approx(1.5 * encoder, rel=0.1)
    assert small["images in memory (data.cache)"] == 16 * 80 * 40 * 3
    assert parts("data.cache=false")["images in memory (data.cache)"] == 0


def test_dry_run_writes_nothing_and_bad_input_is_one_line(walkers: Path, tmp_path: Path) -> None:
    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jgcl_ray.train", "--dry-run", "run.local=true"]
        return subprocess.run(
            [*command, *arguments(walkers, tmp_path / "runs", *overrides)],
            capture_output=True,
            text=True,
            check=False,
        )

    aligned = run()
    assert aligned.returncode == 0, aligned.stderr
    assert "memory of each worker, about" in aligned.stdout
    assert not (tmp_path / "runs").exists()
    refused = run("meshes.source=folders", f"meshes.root={tmp_path}")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.strip().splitlines()) == 1 and str(tmp_path) in refused.stderr
