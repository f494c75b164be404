"""Commands in processes of their own, which write to ROOT/said, and may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PATIENCE = 400  # seconds


@contextmanager
def started(root: Path, module: str, *arguments: str, address: str = "local") -> Iterator[subprocess.Popen[bytes]]:
    """`python -m MODULE ...`; what is left of it ends with the context. address: of the Ray cluster."""
    environment = os.environ | {"RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}
    with (root / "said").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
            process.wait(PATIENCE)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], root: Path) -> None:
    """Until it holds; an error if the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, said(root)
        assert time.monotonic() < deadline, said(root)
        time.sleep(0.02)


def said(root: Path) -> str:
    return (root / "said").read_text()
