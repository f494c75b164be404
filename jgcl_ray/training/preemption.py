"""SIGTERM at a worker whose machine is about to go: noted, so that the loop saves a checkpoint; the work goes on."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_heard = threading.Event()


def hear_sigterm() -> None:
    """From now on the first SIGTERM is noted and nothing else; the second does what the first did before.

    For the main thread, the only one that Python lets set handlers.
    """
    before = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        _heard.set()
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, note)


def heard_sigterm() -> bool:
    """Whether there was one that no earlier call reported; from any thread."""
    heard = _heard.is_set()
    if heard:
        _heard.clear()
    return heard
