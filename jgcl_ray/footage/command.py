"""All cameras of a command: those not done yet, here or over a Ray cluster, then the tables and the summary."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jgcl_ray.atomic import one_at_a_time
from jgcl_ray.contact_sheet import check_sheet
from jgcl_ray.data.datasets.unfinished import STATE
from jgcl_ray.errors import UserError
from jgcl_ray.footage.detect import check_installed
from jgcl_ray.footage.job import Job, Watch, begun_otherwise, finished, work
from jgcl_ray.footage.kept import CameraRecord
from jgcl_ray.footage.sampling import Sampling
from jgcl_ray.footage.sources import Source, checked
from jgcl_ray.footage.summary import check_tables, records_of, write_sheet, write_summary, write_tables
from jgcl_ray.footage.tracks import Filters
from jgcl_ray.places import absolute, check_folder
from jgcl_ray.progress import bars
from jgcl_ray.writer_lock import only_writer


@dataclass(frozen=True)
class Request:
    """What is wanted."""

    sources: tuple[Source, ...]
    out: Path
    filters: Filters = field(default_factory=Filters)
    sampling: Sampling = field(default_factory=Sampling)
    detector_weights: Path | None = None
    workers: int | None = (
        None  # cameras at once over Ray; 0: one after the other, here; None: Ray where there are several
    )
    sheet: Path | None = None
    replace: bool = False  # crops that a camera has of other footage


def extract_crops(request: Request) -> list[str]:
    """Crops, tables, summary and sheet; the summary's lines. A camera's UserError comes after the other cameras."""
    sources = checked(request.sources)
    out = absolute(request.out)
    check_folder(out / STATE if out.is_dir() else out, "--out")
    check_tables(out)
    if request.sheet is not None:
        check_sheet(request.sheet, "--sheet")
    for detector in {source.detect for source in sources} - {None}:
        assert detector is not None
        check_installed(detector)
    records_of(out)  # a damaged one of any camera is reported before the work
    (out / STATE).mkdir(parents=True, exist_ok=True)
    jobs = [Job(source, out, request.filters, request.sampling, request.detector_weights) for source in sources]
    open_jobs = [job for job in jobs if finished(job) is None]
    for job in jobs:
        if job not in open_jobs:
            print(f"{job.source.camera}: done already", file=sys.stderr)
    anew = [job for job in open_jobs if begun_otherwise(job, request.replace)]
    for job in anew:
        print(f"{job.source.camera}: crops of other settings or files, cut anew", file=sys.stderr)
    with ExitStack() as held:
        for job in open_jobs:
            held.enter_context(only_writer(out / STATE, "give another --out", f"{job.source.camera}.lock"))
        results = _work(open_jobs, request.workers)
    for job, result in zip(open_jobs, results, strict=True):
        if isinstance(result, dict):
            for note in result["notes"]:
                print(f"{job.source.camera}: {note}", file=sys.stderr)
    failed = [result for result in results if isinstance(result, UserError)]
    for reason in failed[:-1]:
        print(f"error: {reason}", file=sys.stderr)
    # Another command may finish other cameras of this folder meanwhile: the tables hold those of both.
    with one_at_a_time(out / STATE / ".tables"):
        records = records_of(out)
        if failed and not records:  # nothing to make tables of
            raise failed[-1]
        write_tables(out, records)
        lines = write_summary(out, records)
        if records:
            sheet = request.sheet or out / STATE / "sheet.png"
            write_sheet(out, sheet, records)
            lines.append(f"sheet: {sheet}")
    if failed:
        raise failed[-1]
    return lines


def _work(jobs: Sequence[Job], workers: int | None) -> list[CameraRecord | UserError]:
    if not jobs:
        return []
    with bars() as add:
        moved = [add(f"{job.source.camera}, frames") for job in jobs]

        def watch(number: int, frame: int, last: int) -> None:
            moved[number](frame, max(last, frame))

        if workers == 0 or (workers is None and len(jobs) == 1):
            return [_here(job, partial(watch, place)) for place, job in enumerate(jobs)]
        from jgcl_ray.footage.on_ray import work_on_ray

        return work_on_ray(jobs, workers, watch)


def _here(job: Job, watch: Watch) -> CameraRecord | UserError:
    try:
        return work(job, watch)
    except UserError as error:
        return error
