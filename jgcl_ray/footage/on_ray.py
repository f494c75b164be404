"""Cameras side by side on all CPUs of a Ray cluster; the only file here with Ray.

All machines see videos, track files and the folder of crops under the same paths.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from jgcl_ray.errors import UserError
from jgcl_ray.footage.job import Job, work
from jgcl_ray.footage.kept import CameraRecord
from jgcl_ray.ray_cluster import ray_cluster

PROGRESS_EVERY = 25  # frames


def work_on_ray(
    jobs: Sequence[Job], workers: int | None, watch: Callable[[int, int, int], None]
) -> list[CameraRecord | UserError]:
    """`work` for each job, `workers` at once (None: a CPU each); a record or what the user must fix, in their order.

    A process that dies is replaced, and goes on where it was. watch: called with job, frame and last frame.
    """
    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 200 * 2**20}
    with ray_cluster(**own):
        slots = workers or int(ray.cluster_resources().get("CPU", 0))
        if slots < 1:
            raise UserError("the Ray cluster has no CPU to work on")
        remote = ray.remote(num_cpus=1, max_retries=3)(_work)
        waiting = list(enumerate(jobs))[::-1]
        running: dict[ray.ObjectRef, int] = {}
        results: dict[int, CameraRecord | UserError] = {}
        try:
            while len(results) < len(jobs):
                while waiting and len(running) < slots:
                    number, job = waiting.pop()
                    running[remote.remote(job)] = number
                done, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                for reference in done:
                    number = running.pop(reference)
                    results[number] = ray.get(reference)
                    _progress_file(jobs[number]).unlink(missing_ok=True)
                for number in running.values():
                    with contextlib.suppress(OSError, ValueError):  # nothing written yet
                        frame, last = _progress_file(jobs[number]).read_text().split()
                        watch(number, int(frame), int(last))
        finally:
            for reference in running:
                ray.cancel(reference)
        return [results[number] for number in range(len(jobs))]


def _work(job: Job) -> CameraRecord | UserError:
    file = _progress_file(job)

    def write_progress(frame: int, last: int) -> None:
        if frame % PROGRESS_EVERY == 0:
            partial = file.with_suffix(".partial")
            partial.write_text(f"{frame} {last}")
            partial.replace(file)

    try:
        return work(job, write_progress)
    except UserError as error:
        return error


def _progress_file(job: Job) -> Path:
    return job.record.with_suffix(".progress")
