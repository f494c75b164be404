"""Runs on Ray that lose a worker, the clustering actor, their driver or a node: the numbers stay the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest
from processes import PATIENCE, said, started, wait_for
from ray.cluster_utils import Cluster
from tiny_run import arguments, records

LONGER = ("warmup.epochs=2", "generation.epochs=2", "joint.epochs=2", "scaling.threads_per_worker=1")
# Going on within an epoch differs in the last digit, which the contrast of so small a joint stage magnifies.
WITHOUT_JOINT = "run.stages=[warmup,generation]"


@pytest.fixture(scope="module")
def undisturbed(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    with driver(walkers, root, "run.local=true") as process:
        assert process.wait(PATIENCE) == 0, said(root)
    return root / "walkers"


def test_a_killed_worker_and_a_killed_actor_change_nothing(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    with driver(walkers, tmp_path) as process:
        wait_for(lambda: reached(tmp_path, "warmup", 1), process, tmp_path)
        kill("ray::_Clusterer", process)
        wait_for(lambda: reached(tmp_path, "generation", 1), process, tmp_path)
        kill("TrainWorker", process)
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert last_line(tmp_path).startswith("mAP ")
    assert_same(tmp_path / "walkers", undisturbed)


@pytest.mark.slow
def test_a_driver_that_is_stopped_and_then_killed_goes_on(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    with driver(walkers, tmp_path) as process:
        wait_for(lambda: reached(tmp_path, "warmup", 2), process, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on from here" in said(tmp_path)
    with driver(walkers, tmp_path) as process:
        wait_for(lambda: reached(tmp_path, "generation", 2), process, tmp_path)
        process.kill()
        process.wait(PATIENCE)
    with driver(walkers, tmp_path) as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert_same(tmp_path / "walkers", undisturbed)


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_within_the_epoch(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    """As a terminal does it: to the whole process group."""
    with driver(walkers, tmp_path) as process:
        wait_for(lambda: reached(tmp_path, "warmup", 1), process, tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGINT, said(tmp_path)
    assert "stopped by SIGINT; the same command goes on from here" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    with driver(walkers, tmp_path) as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert_same(tmp_path / "walkers", undisturbed)


@pytest.mark.slow
def test_a_worker_that_hears_sigterm_saves_before_it_goes(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    with driver(walkers, tmp_path, "checkpoints.keep=99", WITHOUT_JOINT) as process:
        wait_for(lambda: reached(tmp_path, "generation", 1), process, tmp_path)
        kill("TrainWorker", process, signal.SIGTERM)
        wait_for(lambda: saved_within_an_epoch(tmp_path), process, tmp_path)
        kill("TrainWorker", process)
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert_close(tmp_path / "walkers", undisturbed)


@pytest.mark.slow
def test_one_of_two_nodes_leaves_and_another_comes(walkers: Path, tmp_path: Path) -> None:
    """A worker on each of two nodes; one node goes in the middle of an epoch."""
    both = ("scaling.num_workers=2", "pseudo_labels.num_cpus=0", WITHOUT_JOINT)
    (tmp_path / "undisturbed").mkdir()
    with driver(walkers, tmp_path / "undisturbed", *both) as process:
        assert process.wait(PATIENCE) == 0, said(tmp_path / "undisturbed")
    with nodes(2) as cluster, driver(walkers, tmp_path, *both, address=cluster.address) as process:
        wait_for(lambda: reached(tmp_path, "generation", 1), process, tmp_path)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert_close(tmp_path / "walkers", tmp_path / "undisturbed" / "walkers")


@pytest.mark.slow
def test_elastic_workers_use_a_node_that_joins_and_do_without_one_that_leaves(walkers: Path, tmp_path: Path) -> None:
    elastic = ("scaling.num_workers=2", "scaling.min_workers=1", "pseudo_labels.num_cpus=0", "warmup.epochs=9999")
    with nodes(1) as cluster, driver(walkers, tmp_path, *elastic, address=cluster.address) as process:
        wait_for(lambda: reached(tmp_path, "warmup", 1) and workers() == 1, process, tmp_path)
        joined = cluster.add_node(num_cpus=1)
        wait_for(lambda: workers() == 2, process, tmp_path)
        lines = len(lines_of(tmp_path / "walkers" / "metrics.jsonl"))
        wait_for(lambda: len(lines_of(tmp_path / "walkers" / "metrics.jsonl")) > lines + 10, process, tmp_path)
        cluster.remove_node(joined, allow_graceful=False)
        wait_for(lambda: workers() == 1, process, tmp_path)
        lines = len(lines_of(tmp_path / "walkers" / "metrics.jsonl"))
        wait_for(lambda: len(lines_of(tmp_path / "walkers" / "metrics.jsonl")) > lines + 10, process, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM, said(tmp_path)
    steps = [line["step"] for line in records(tmp_path / "walkers") if "cluster_contrast" in line]
    assert steps == list(range(1, len(steps) + 1)), "each step once, whoever made it"


@contextmanager
def nodes(count: int) -> Iterator[Cluster]:
    """A Ray cluster of a head without CPUs and `count` nodes with one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_node_that_leaves_is_replaced(walkers: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Two nodes; the one that runs the worker goes in the middle of an epoch, and another comes."""
    with (
        nodes(1) as cluster,
        driver(walkers, tmp_path, "pseudo_labels.num_cpus=0", address=cluster.address) as process,
    ):
        wait_for(lambda: reached(tmp_path, "generation", 1), process, tmp_path)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert process.wait(PATIENCE) == 0, said(tmp_path)
    assert_same(tmp_path / "walkers", undisturbed)


def driver(
    walkers: Path, root: Path, *overrides: str, address: str = "local"
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """`python -m jgcl_ray.train` on a Ray cluster."""
    return started(root, "jgcl_ray.train", *arguments(walkers, root, *LONGER, *overrides), address=address)


def last_line(root: Path) -> str:
    return said(root).strip().splitlines()[-1]


def reached(root: Path, stage: str, batches: int) -> bool:
    """Whether `batches` of an epoch of the stage are done, and the epoch is not."""
    lines = lines_of(root / "walkers" / "metrics.jsonl")
    done = [
        line for line in lines if line["stage"] == stage and {"generator_total", "cluster_contrast"} & line.keys()
    ]
    return len(done) >= batches


def lines_of(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def saved_within_an_epoch(root: Path) -> bool:
    """Whether there is a checkpoint that is not of an epoch's end."""
    manifests = (root / "walkers" / "checkpoints").glob("step*/checkpoint.json")
    return any(json.loads(manifest.read_text())["position"]["batch"] for manifest in manifests)


def workers() -> int:
    """How many Ray Train workers run on nodes that this process started."""
    return sum("ray::" in title(each) and "TrainWorker" in title(each) for each in psutil.Process().children(True))


def kill(name: str, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """A signal to the Ray process whose title holds `name`, among those that the driver started."""
    found = [child for child in descendants(process) if "ray::" in title(child) and name in title(child)]
    assert len(found) == 1, [title(child) for child in descendants(process)]
    found[0].send_signal(number)


def descendants(process: subprocess.Popen[bytes]) -> Iterator[psutil.Process]:
    yield from psutil.Process(process.pid).children(recursive=True)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def assert_close(folder: Path, expected: Path) -> None:
    """The same records up to the joint stage, but for rounding."""
    ours, theirs = records(folder), [line for line in records(expected) if line["stage"] != "joint"]
    for mine, line in zip(ours, theirs, strict=True):
        assert mine == {
            name: value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True)
            for name, value in line.items()
        }


def assert_same(folder: Path, expected: Path) -> None:
    ours, theirs = records(folder), records(expected)
    assert [(line["stage"], line["epoch"], line["step"]) for line in ours] == [
        (line["stage"], line["epoch"], line["step"]) for line in theirs
    ]
    for mine, line in zip(ours, theirs, strict=True):
        assert mine == {
            name: value if isinstance(value, str) else pytest.approx(value, rel=1e-5, abs=1e-5, nan_ok=True)
            for name, value in line.items()
        }
