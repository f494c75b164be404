"""Cost of the memory bank in one step: draw, contrast forward and backward, update; paper formulation.

`bank` is the project's; `gather` draws for each anchor in a loop and copies its negatives into a (B, K, D) tensor.
Prints one JSON object a line: sizes, median seconds of the parts, peak memory in MiB beyond the bank (Linux).

    python benchmarks/bm_memory_bank.py [--rows 12936 32621] [--width 512] [--repeats 20] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import MemoryBankConfig
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.losses.view_contrast import view_contrast
from jgcl_ray.memories.instances import MemoryBank

IMAGES_PER_CLUSTER = 17  # Market-1501's mean


def bank_step(bank: MemoryBank, index: torch.Tensor, f: torch.Tensor, step: int) -> list[float]:
    """One step of the project's bank; the clock after each part."""
    draw = bank.draw(index, seed=1, step=step)
    drawn = clock(bank.device)
    sum(view_contrast(f[0], f[1], bank, draw, 0.04).values()).backward()
    contrasted = clock(bank.device)
    bank.update(index, f[0])
    return [drawn, contrasted, clock(bank.device)]


def gather_step(bank: MemoryBank, index: torch.Tensor, f: torch.Tensor, step: int) -> list[float]:
    """The same step, an anchor after the other, with the negatives copied."""
    generator = torch.Generator(bank.device).manual_seed(step)
    chosen, positive = [], []
    for i in index:
        others = (bank.labels != bank.labels[i]).nonzero()[:, 0]
        shuffled = torch.randperm(len(others), generator=generator, device=bank.device)
        chosen.append(others[shuffled[: bank.negatives]])
        cluster = (bank.labels == bank.labels[i]).nonzero()[:, 0]
        cluster = cluster[cluster != i]
        positive.append(cluster[torch.randint(len(cluster), (), generator=generator, device=bank.device)])
    rows, v_p = torch.stack(chosen), bank.rows[torch.stack(positive)]
    drawn = clock(bank.device)
    image, novel = F.normalize(f, dim=2)
    negatives = bank.rows[rows]  # (B, K, D)
    loss = torch.zeros((), device=bank.device)
    for anchor, match in ((image, v_p), (image, novel), (novel, v_p)):
        others = (negatives @ anchor[:, :, None])[:, :, 0]
        logits = torch.cat([(anchor * match).sum(1, keepdim=True), others], dim=1) / 0.04
        loss = loss + F.cross_entropy(logits, torch.zeros(len(index), dtype=torch.int64, device=bank.device))
    loss.backward()
    contrasted = clock(bank.device)
    with torch.no_grad():
        for i, feature in zip(index, F.normalize(f[0], dim=1), strict=True):
            bank.rows[i] = F.normalize(bank.momentum * bank.rows[i] + (1 - bank.momentum) * feature, dim=0)
    return [drawn, contrasted, clock(bank.device)]


IMPLEMENTATIONS: dict[str, Callable[..., list[float]]] = {"bank": bank_step, "gather": gather_step}


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def memory(device: torch.device, *, start: bool = False) -> int:
    """Bytes in use at the start, from where the peak is counted anew; later that peak."""
    if device.type == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if start:
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def measure(implementation: str, rows: int, arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    labels = torch.arange(rows, device=device) // IMAGES_PER_CLUSTER
    config = MemoryBankConfig(negatives=arguments.negatives)
    bank = MemoryBank(torch.randn(rows, arguments.width, device=device), labels, config)
    before, parts = memory(device, start=True), []
    for step in range(arguments.repeats + 2):
        index = torch.randperm(rows)[: arguments.batch].to(device)
        f = torch.randn(2, arguments.batch, arguments.width, device=device, requires_grad=True)
        start = clock(device)
        draw, contrast, update = IMPLEMENTATIONS[implementation](bank, index, f, step)
        parts.append((draw - start, contrast - draw, update - contrast, update - start))
    names = ("draw_seconds", "contrast_seconds", "update_seconds", "seconds")
    medians = [round(statistics.median(part), 6) for part in zip(*parts[2:], strict=True)]
    record = {
        "benchmark": "memory_bank",
        "implementation": implementation,
        "rows": rows,
        "width": arguments.width,
        "negatives": arguments.negatives,
        "batch": arguments.batch,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        **dict(zip(names, medians, strict=True)),
        "peak_mib": round((memory(device) - before) / 2**20, 1),
    }
    print(json.dumps(record), flush=True)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=whole(1), nargs="+", default=[12936, 32621])
    parser.add_argument("--width", type=whole(1), default=512)
    parser.add_argument("--negatives", type=whole(1), default=8192)
    parser.add_argument("--batch", type=whole(1), default=16)
    parser.add_argument("--repeats", type=whole(1), default=20)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    for rows in arguments.rows:
        for implementation in IMPLEMENTATIONS:
            # A process each: the peak of one would hide that of the next.
            process = get_context("spawn").Process(target=measure, args=(implementation, rows, arguments))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
