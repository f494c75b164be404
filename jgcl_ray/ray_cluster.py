"""The way into a Ray cluster and out of it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.services import find_gcs_addresses

from jgcl_ray.errors import Terminated, UserError

TIMEOUT = 5.0  # seconds for a cluster's head to take a connection


@contextmanager
def ray_cluster(**own: Any) -> Iterator[None]:
    """The cluster that RAY_ADDRESS or a running head names, else, or as RAY_ADDRESS=local, one of its own.

    own: how the latter is started, as for ray.init. A connection that is there already stays.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    # A thread that exports metrics outlives a process's second ray.shutdown and may end the process by a signal.
    os.environ.setdefault("RAY_enable_open_telemetry", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    given = os.environ.get("RAY_ADDRESS")
    address = _head_here() if given == "auto" else given or _running_head()
    if address in (None, "local"):
        with _sigterm_kept(), _apart():
            ray.init(address="local", **{"include_dashboard": True, **quiet, **own})
    else:
        if given in (None, "", "auto"):  # the user's token, which ray.init takes by itself for "auto" alone
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        check_address(address)
        try:
            with _sigterm_kept():
                ray.init(address=address, **quiet)
        except ConnectionError:
            raise UserError(f"no Ray cluster answers at {address} (RAY_ADDRESS, or `ray start` here)") from None
    try:
        yield
    finally:
        shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """ray.init sets a handler of its own, which ends the process with exit code 1 and tidies up nothing of ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # by that handler
        raise Terminated from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _apart() -> Iterator[None]:
    """Ray's daemons get a process group of their own: a signal to all processes of a command, as terminals, `timeout`
    and batch systems send it, is for the command to hear, which needs them to save and to end in order.

    They end with it all the same, by PR_SET_PDEATHSIG.
    """
    starts: Any = services
    popen = starts.ConsolePopen
    starts.ConsolePopen = partial(popen, process_group=0)
    try:
        yield
    finally:
        starts.ConsolePopen = popen


def starts_own_cluster() -> bool:
    """Whether `ray_cluster` would start a cluster of this machine alone, rather than join one."""
    given = os.environ.get("RAY_ADDRESS")
    return not ray.is_initialized() and (given == "local" or (not given and _running_head() is None))


def nodes_and_resources() -> tuple[int, dict[str, float]]:
    """How many nodes of the cluster are alive, and its resources by name."""
    return sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()


def check_address(address: str) -> None:
    """UserError, after seconds, where an address is none, or nobody listens there; Ray itself waits for minutes.

    address: HOST:PORT or ray://HOST:PORT.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise UserError(
            f"RAY_ADDRESS={address}: not the address of a Ray cluster; give HOST:PORT of its head (6379 unless set "
            "otherwise), or RAY_ADDRESS=local for a cluster of one's own"
        )
    try:
        _connect(host, port)
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error}); start it, correct RAY_ADDRESS, or set RAY_ADDRESS=local"
        ) from None


def shutdown() -> None:
    """ray.shutdown, meanwhile without Python's garbage collector.

    Ray ends the process at once, with exit code 1, where another thread gives up a handle while it shuts down; any
    thread does that whom the collector happens to call upon.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if enabled:
            gc.enable()


def _head_here() -> str:
    """HOST:PORT that RAY_ADDRESS=auto means; UserError, after seconds, where no head of this machine answers."""
    if (left := _running_head()) is not None:
        return left
    for address in sorted(find_gcs_addresses()):  # of processes that run, wherever they keep their files
        host, _, port = address.rpartition(":")
        with suppress(OSError, ValueError, OverflowError):
            _connect(host, port)
            return address
    raise UserError(
        "no Ray cluster answers on this machine (RAY_ADDRESS=auto); start one by `ray start --head`, give HOST:PORT "
        "of another machine's head, or set RAY_ADDRESS=local"
    )


def _connect(host: str, port: str) -> None:
    socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT).close()


def _running_head() -> str | None:
    """HOST:PORT that `ray start` left for this machine, if someone listens there.

    Ray's own "auto" waits minutes for a head that died, and takes one of a container whose processes it can see.
    """
    left = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        address = left.read_text().strip()
        host, _, port = address.rpartition(":")
        _connect(host, port)
    except (OSError, ValueError, OverflowError):
        return None
    return address
