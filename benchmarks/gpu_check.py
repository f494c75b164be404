"""What a GPU does here, and whether it does what a CPU does: in one call of less than nine minutes, without network.

    benchmarks/gpu_check.sh OUT [--parts tests,step-16,...] [--seconds 510] [--data WALKERS]

OUT/gpu_check.jsonl: one JSON object a line, each part with its seconds; OUT/parts: what the parts printed. Each part
(gpu_parts.py) is a process of its own with a time limit; one that fails leaves {"part": ..., "error": ...} and the
next one starts. Exit code 1 if any failed. Without CUDA all is smaller; what needs it is skipped, with the reason.

  machine            the device and what is installed
  matmul             rates of matrix products, in units of 1e12 floating-point operations a second
  tests              `pytest -m gpu`
  step-B-VARIANT     a joint step of B images, 256 x 128, `official` formulation: `literal` makes every pass on its
                     own in IEEE float32 (bm_step.py); the others are the product's, `compiled` in bf16. Seconds, peak
                     memory, `share_of_matmul`: operations a second by the rate of `matmul`. `literal_difference`: the
                     largest relative difference of a term of the first step, from the same weights
  ranking            ranks by distances that the device computes, against those of the CPU
  labels-NxD         one labelling of N features of width D, on the device and on the CPU: the same labels
  job                the main job for two minutes of training, then the mAP of its last checkpoint
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jgcl_ray.arguments import Parser, finite
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.places import check_folder

PARTS = Path(__file__).with_name("gpu_parts.py")
Record = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    product: int  # rows and columns of the matrices that are multiplied
    batches: tuple[int, int]
    image: tuple[int, int]  # height, width
    memory: int  # rows of the memory bank
    steps: int  # that are timed
    networks: tuple[str, ...]  # configuration of the step's
    labels: tuple[tuple[int, int], ...]  # features: number, width
    ranking: tuple[int, int, int]  # queries, gallery, width
    job: tuple[str, ...]  # configuration of the main job
    walkers: tuple[str, ...]  # of its people
    job_seconds: float  # of training


FULL = Size(
    product=8192,
    batches=(16, 64),
    image=(256, 128),
    memory=12_936,
    steps=5,
    networks=(),
    labels=((32_621, 2048), (200_000, 512)),
    ranking=(3368, 15_913, 512),
    job=("scaling.device=cuda",),
    walkers=(),
    job_seconds=120,
)
SMALL = Size(
    product=256,
    batches=(2, 4),
    image=(48, 40),
    memory=200,
    steps=1,
    networks=("encoder.backbone=resnet18", "generator.width=4", "generator.style_width=32", "discriminator.width=4"),
    labels=((600, 64), (900, 32)),
    ranking=(100, 400, 32),
    job=tuple(
        """
        run.local=true data.height=80 data.width=40 data.identities_per_batch=3 data.batch_size=4
        data.images_per_identity=2 encoder.embedding=32 generator.width=1 generator.style_width=8
        discriminator.width=2 discriminator.scales=1 run.init_from=null warmup.mode=unsupervised warmup.epochs=1
        warmup.batches_per_epoch=2 generation.epochs=1 joint.epochs=1000 pseudo_labels.k1=4 pseudo_labels.k2=2
        pseudo_labels.eps=0.7 pseudo_labels.min_samples=2 eval.every=1000
        """.split()
    ),
    walkers=("walkers.preset=tiny",),
    job_seconds=2,
)


@dataclass(frozen=True)
class Variant:
    """One way to make the joint step."""

    settings: tuple[str, ...]
    rate: str  # of `matmul`, that its operations are compared with
    tolerance: float  # of a term against the literal step's: gross errors alone, rounding passes batch norm


STEPS = {
    "literal": Variant((), "float32", 0.0),
    "float32": Variant(("precision.dtype=float32",), "tf32", 0.03),
    "bf16": Variant(("precision.dtype=bf16",), "bf16", 0.3),
    "compiled": Variant(("precision.dtype=bf16", "precision.compile=true"), "bf16", 0.3),
}


@dataclass(frozen=True)
class Part:
    """Something to find out."""

    name: str
    limit: float  # seconds
    kind: str  # of gpu_parts.KINDS
    arguments: Record
    needs_cuda: str | None = None  # why


def parts(size: Size, out: Path, data: Path | None = None) -> list[Part]:
    """All of them; what may be cut off by the end of the time comes last. data: walkers that are rendered already."""

    def step(batch: int, kind: str) -> Part:
        arguments = {
            "batch": batch,
            "image": size.image,
            "memory": size.memory,
            "steps": size.steps,
            "literal": kind == "literal",
            "settings": [*size.networks, *STEPS[kind].settings],
        }
        compiled = kind == "compiled"
        why = "torch.compile is measured there" if compiled else None
        return Part(f"step-{batch}-{kind}", 120 if compiled else 75, "step", arguments, why)

    def labels(rows: int, width: int, limit: float) -> Part:
        return Part(f"labels-{rows}x{width}", limit, "labels", {"rows": rows, "width": width})

    queries, images, width = size.ranking
    walkers = size.walkers if data is None else [f"data.root={data}"]
    job = {"out": str(out), "limit": size.job_seconds, "settings": size.job, "walkers": walkers}
    (first, second), (fewer, more) = size.batches, size.labels
    return [
        Part("machine", 60, "machine", {}),
        Part("matmul", 60, "matmul", {"rows": size.product}),
        Part("tests", 120, "tests", {"report": str(out / "parts" / "tests.xml")}, "all of them need a device"),
        *(step(first, kind) for kind in ("literal", "float32", "bf16")),
        Part("ranking", 60, "ranking", {"queries": queries, "images": images, "width": width}),
        labels(*fewer, 90),
        *(step(second, kind) for kind in ("literal", "float32", "bf16")),
        Part("job", size.job_seconds + 140, "job", job),
        step(first, "compiled"),
        labels(*more, 150),
        step(second, "compiled"),
    ]


def related(record: Record, before: Sequence[Record]) -> Record:
    """A step's record with what follows from those of `matmul` and of the literal step of the same batch."""
    name, known = record["part"], {one["part"]: one for one in before if "error" not in one}
    if "terms" not in record:
        return record
    _, batch, kind = name.split("-")
    more: Record = {}
    if "matmul" in known:
        rate = known["matmul"]["rates"][STEPS[kind].rate]
        more["share_of_matmul"] = round(record["operations"] / record["seconds_step"] / 1e12 / rate, 4)
    literal = known.get(f"step-{batch}-literal")
    if literal is not None and kind != "literal":
        differences = {
            term: abs(record["terms"][term] - value) / max(abs(value), 1e-2)
            for term, value in literal["terms"].items()
        }
        worst = max(differences, key=lambda term: differences[term])
        more["literal_difference"] = {worst: round(differences[worst], 6)}
        more["times_faster_than_literal"] = round(literal["seconds_step"] / record["seconds_step"], 2)
        if not differences[worst] <= STEPS[kind].tolerance:
            more["error"] = f"{worst} differs from the literal step's by a share of {differences[worst]:.3g}"
    return record | more


def in_a_process(part: Part, out: Path, seconds: float) -> Record:
    """The record of a part; with `error` where it failed or took too long."""
    answer, log = out / "parts" / f"{part.name}.json", out / "parts" / f"{part.name}.log"
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(PARTS), part.kind, json.dumps(part.arguments), str(answer)]
    start = time.monotonic()
    with log.open("w") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines, start_new_session=True)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                    process.wait(5)
                except (subprocess.TimeoutExpired, ProcessLookupError):
                    continue
    taken = {"part": part.name, "seconds": round(time.monotonic() - start, 1)}
    if code is None:
        return taken | {"error": f"not done after {seconds:.0f} seconds"}
    if code or not answer.is_file():
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return taken | {"error": f"exit code {code}: {said[-1] if said else 'nothing printed'}"}
    return taken | json.loads(answer.read_text(encoding="utf-8"))


def check(wanted: Sequence[Part], out: Path, cuda: bool, seconds: float) -> list[Record]:
    """One record a part, each printed and appended to OUT/gpu_check.jsonl as soon as it is there."""
    (out / "parts").mkdir(parents=True, exist_ok=True)
    until, records = time.monotonic() + seconds, []
    with (out / "gpu_check.jsonl").open("w", encoding="utf-8") as results:
        for part in wanted:
            left = until - time.monotonic()
            if part.needs_cuda and not cuda:
                record: Record = {"part": part.name, "seconds": 0.0, "skipped": f"no CUDA: {part.needs_cuda}"}
            elif left < 1:
                record = {"part": part.name, "seconds": 0.0, "error": "no time left"}
            else:
                record = related(in_a_process(part, out, min(part.limit, left)), records)
            records.append(record)
            print(json.dumps(record), file=results, flush=True)
            print(json.dumps(record), flush=True)
    return records


def main(given: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--parts", default="", help="A,B: those whose names begin so (all)")
    parser.add_argument("--seconds", type=finite, default=510, help="for all parts together (510)")
    parser.add_argument("--data", type=Path, help="rendered walkers for the job (rendered into OUT/cache)")
    arguments = parser.parse_args(given)
    out, cuda = arguments.out.absolute(), torch.cuda.is_available()
    check_folder(out, "out")
    if arguments.data is not None and not arguments.data.is_dir():
        raise UserError(f"--data {arguments.data}: no such folder; give one that jgcl_ray.data.walkers has written")
    known = parts(FULL if cuda else SMALL, out, arguments.data and arguments.data.absolute())
    begins = tuple(arguments.parts.split(","))
    for begin in begins:
        if not any(part.name.startswith(begin) for part in known):
            parser.error(f"no part {begin!r}; known: {', '.join(part.name for part in known)}")
    records = check([part for part in known if part.name.startswith(begins)], out, cuda, arguments.seconds)
    return int(any("error" in record for record in records))


if __name__ == "__main__":
    with exit_on_user_error():
        code = main()
    sys.exit(code)
