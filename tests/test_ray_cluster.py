"""Leaving Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

_LEAVE_WHILE_ANOTHER_THREAD_COLLECTS = """
import gc, threading
import ray
from jgcl_ray.ray_cluster import ray_cluster

class Ring:
    def __init__(self, handles):
        self.itself, self.handles = self, handles

def churn():
    while True:
        if rings:
            rings.pop()
        alive = [Ring(None) for _ in range(1500)]  # what survives a while makes the collector look at all there is

with ray_cluster(num_cpus=1, include_dashboard=False):
    gc.disable()
    rings = [Ring([ray.put(0) for _ in range(20)]) for _ in range(600)]
    gc.enable()
    threading.Thread(target=churn, daemon=True).start()
assert gc.isenabled() and not ray.is_initialized()
print("left")
"""


def test_a_thread_that_collects_handles_meanwhile_does_not_end_the_process() -> None:
    """Ray ends a process that gives up a handle while Ray shuts down: sweeps lost their last lines to it."""
    done = subprocess.run(
        [sys.executable, "-c", _LEAVE_WHILE_ANOTHER_THREAD_COLLECTS],
        env=os.environ | {"RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "left\n")


_WAIT_WITHIN = """
import time
import ray
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.ray_cluster import ray_cluster

with exit_on_user_error(), ray_cluster(num_cpus=1, include_dashboard=False):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)  # in which daemons that had heard it would end
        assert ray.get(ray.remote(lambda: 7).remote(), timeout=30) == 7
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_of_a_command_leaves_ray_there_to_end_in_order(number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WAIT_WITHIN],
        env=os.environ | {"RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        os.killpg(process.pid, number)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == code and "Traceback" not in said
