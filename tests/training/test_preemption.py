"""SIGTERM at a process that hears it: the first is noted, the second ends it."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import sys, time
from jgcl_ray.training.preemption import hear_sigterm, heard_sigterm

hear_sigterm()
assert not heard_sigterm()
print("ready", flush=True)
while not heard_sigterm():
    time.sleep(0.01)
assert not heard_sigterm()  # told once
print("noted", flush=True)
time.sleep(60)
"""


def test_the_first_is_noted_and_the_second_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "noted\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
