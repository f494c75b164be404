"""Leaving Ray."""

from __future__ import annotations

import os
import subprocess
import sys

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
