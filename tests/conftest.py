"""Fixtures that several folders share. Beside it: helper modules that tests in any folder import by name."""

from __future__ import annotations

import os
import signal

# A shell without job control starts what it puts in the background deaf to Ctrl-C, and so is all that starts there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Test processes side by side (pytest-xdist) share the cores; set before torch, faiss and numpy start their threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import faiss
import pytest
import torch

from jgcl_ray.data.walkers import WalkersSize, render


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the tiny runs."""
    folder = tmp_path_factory.mktemp("data") / "walkers"
    render(folder, WalkersSize(train=4, test=2, images=4, true_views=0, height=80), seed=2, workers=1)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks and galleries as small as these spend their time waking threads."""
    threads, of_faiss = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(of_faiss)
