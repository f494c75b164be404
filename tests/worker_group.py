"""A group of gloo workers for tests: processes of their own, that meet through a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_workers(workers: int, function: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """`function(rank, join, *arguments)` in each of `workers` processes; `join()` enters the process group.

    What a worker computes before it joins, it computes as a single worker does. The first exception is raised here.
    """
    mp.spawn(_work, args=(workers, str(folder / "meeting"), function, arguments), nprocs=workers)


def _work(rank: int, workers: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)

    def join() -> None:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)

    try:
        function(rank, join, *arguments)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
