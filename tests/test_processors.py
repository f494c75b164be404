"""Tests of numerics under several kinds of processor, which the environment of a process chooses (.ci/run).

A processor shows in the order of sums: which vectors oneDNN, ATen and MKL use, and on how many threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NUMERICS = (
    "training/test_official_step.py::test_every_number_of_the_authors_implementation",
    "training/test_step.py::test_joint_step_equals_the_slow_one",
    "training/test_step.py::test_bf16_comes_near_float32_and_losses_stay_in_float32",
    "training/test_precision.py",
    "models/test_blocks.py",
    "models/test_discriminator.py",
    "models/test_generator.py",
    "losses",
    "evaluation/test_activations.py",
    "evaluation/test_ranking.py::test_authors_numbers",
    "pseudo_labels/test_clustering.py::test_authors_eps_and_labels",
    "pseudo_labels/test_distances.py::test_equals_the_authors_distances",
    "meshes/test_projections.py::test_drawn_ahead_is_what_is_drawn_on_demand",
    "meshes/test_renderers.py::test_fragments_are_those_of_a_slow_tracer",
)
IN_FLOAT64 = "training/test_official_step.py::test_every_number_of_the_formulas_in_float64"
# Each with a number of threads; the longest first.
# https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
KINDS = {
    "ATen without vectors": ({"ATEN_CPU_CAPABILITY": "default"}, 4),
    "oneDNN with SSE4.1, MKL with SSE4.2": ({"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}, 1),
    "all with AVX2": (
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        2,
    ),
}
SECONDS = 1200


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Two kinds at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {kind: pool.submit(run, *KINDS[kind]) for kind in KINDS}
        pool.shutdown(cancel_futures=True)


def run(settings: dict[str, str], threads: int) -> subprocess.CompletedProcess[str]:
    tests = [*NUMERICS, IN_FLOAT64] if "ATEN_CPU_CAPABILITY" in settings else NUMERICS
    chosen = {name for kind, _ in KINDS.values() for name in kind}
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    # Passive: threads that wait give way, where there are more of them than cores.
    environment |= {**settings, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *tests],
        cwd=TESTS,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_numerics_do_not_know_the_processor(
    kind: str, outcomes: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> None:
    done = outcomes[kind].result()
    assert done.returncode == 0, done.stdout
