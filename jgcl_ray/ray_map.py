"""One function over many items on all CPUs of a Ray cluster, with a progress bar; the only file here with Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from jgcl_ray.errors import UserError
from jgcl_ray.progress import bars

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_over_cluster(
    function: Callable[[list[Item]], Result],
    items: Sequence[Item],
    *,
    chunk_size: int = 16,
    workers: int | None = None,
    use_gpus: bool = False,
    title: str = "",
) -> list[Result]:
    """`function(chunk)` for every chunk of items; the results in the items' order.

    `workers`: how many chunks are worked on at once; None for as many as the cluster has CPUs (or GPUs), 0 for this
    process alone, without Ray. `use_gpus`: one GPU a chunk, where the cluster has any. The cluster is that of
    RAY_ADDRESS or the one that `ray start` started on this machine; without one a local Ray is started, and ended at
    the end. A chunk whose process dies is worked on again, so the function must bear being run twice; what it opens
    it may keep in a cache of its module. A UserError raised by it arrives as one. Progress is counted in items.
    """
    chunks = [list(items[start : start + chunk_size]) for start in range(0, len(items), chunk_size)]
    with _progress(title, len(items)) as advance:
        if workers == 0 or not chunks:
            results = []
            for chunk in chunks:
                results.append(function(chunk))
                advance(len(chunk))
            return results
        from jgcl_ray.ray_cluster import ray_cluster

        # A Ray of its own needs no dashboard, and room for results alone.
        own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 200 * 2**20}
        with ray_cluster(**own):
            return _map(function, chunks, workers, use_gpus, advance)


def _map(
    function: Callable[[list[Item]], Result],
    chunks: list[list[Item]],
    workers: int | None,
    use_gpus: bool,
    advance: Callable[[int], None],
) -> list[Result]:
    import ray

    available = ray.cluster_resources()
    gpus = int(available.get("GPU", 0)) if use_gpus else 0
    slots = gpus or int(available.get("CPU", 0))
    if slots < 1:
        raise UserError("the Ray cluster has no CPU to work on")

    @ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_retries=3)
    def work(chunk: list[Item]) -> Result:
        return function(chunk)

    waiting = iter(enumerate(chunks))
    running: dict[ray.ObjectRef, int] = {}
    results: dict[int, Result] = {}
    try:
        while len(results) < len(chunks):
            for number, chunk in islice(waiting, (workers or slots) - len(running)):
                running[work.remote(chunk)] = number
            (done,), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(done)
            results[number] = ray.get(done)
            advance(len(chunks[number]))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    finally:
        for reference in running:
            ray.cancel(reference)
    return [results[number] for number in range(len(chunks))]


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    with bars(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=False) as add:
        moved, done = add(title, total), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            moved(done, total)

        yield advance
