"""The parts of gpu_check.py, each called in a process of its own: `gpu_parts.py KIND ARGUMENTS ANSWER`.

ARGUMENTS: the keyword arguments of the function KIND, a JSON object; ANSWER: the file for the JSON object it returns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bm_pseudo_labels
import bm_ranking
import bm_step
import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config, PseudoLabelsConfig, load_config
from jgcl_ray.evaluation.ranking import Labels, euclidean, rank_by
from jgcl_ray.memories.instances import MemoryBank
from jgcl_ray.models.networks import Networks, build_networks
from jgcl_ray.pseudo_labels.clustering import METHODS
from jgcl_ray.pseudo_labels.exact_search import nearest_rows, searcher_on
from jgcl_ray.pseudo_labels.on_device import encode_on_device, nearest_on_device
from jgcl_ray.training.optim import Optimisers, build_optimisers
from jgcl_ray.training.precision import prepare
from jgcl_ray.training.step import joint_step
from jgcl_ray.training.worker import STOP

CHECKOUT = Path(__file__).resolve().parents[1]
DEVICE = bm_step.DEVICE
CUDA = DEVICE.type == "cuda"
Record = dict[str, Any]


def machine() -> Record:
    """Names and versions."""
    commit = subprocess.run(["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"], capture_output=True, text=True)
    found: Record = {
        "commit": commit.stdout.strip() or None,
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    if CUDA:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_mb": properties.total_memory // 2**20,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def matmul(rows: int) -> Record:
    """1e12 floating-point operations a second; off CUDA there is no TF32, and its rate is float32's."""
    rates: dict[str, float] = {}
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        first, second = (torch.randn(rows, rows, device=DEVICE).to(dtype) for _ in range(2))
        taken = [bm_step.timed(lambda: first @ second) for _ in range(12)][2:]  # noqa: B023
        rates[name] = round(2 * rows**3 / statistics.median(taken) / 1e12, 4)
    return {"rows": rows, "rates": rates}


def gpu_tests(report: str) -> Record:
    """`pytest -m gpu` in the checkout; report: file for its XML."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    code = subprocess.run(command, cwd=CHECKOUT).returncode
    if not Path(report).is_file():
        return {"error": f"pytest ended with exit code {code} and no report"}
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [c.get("name") for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    found: Record = {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}
    if code or not found["passed"]:
        found["error"] = f"exit code {code}, {len(failed)} failed, {found['passed']} passed"
    return found


def step(batch: int, image: Sequence[int], memory: int, steps: int, literal: bool, settings: Sequence[str]) -> Record:
    """Seconds, memory and operations of a joint step of `batch` images (height, width), and the first one's terms.

    memory: rows of the memory bank; steps: that are timed; settings: configuration. Weights are of seed 0.
    """
    if literal:  # the product leaves TF32 as torch sets it
        torch.backends.cudnn.allow_tf32 = False
    one_step: Callable[..., Any] = bm_step.plain_step if literal else joint_step
    common = [f"data.height={image[0]}", f"data.width={image[1]}", *settings]
    common += bm_step.BASELINE["baseline_float32"] if literal else []
    with Operations() as counted:
        one_step(*fresh(batch, memory, [*common, "precision.compile=false"]), 0)
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    state, results = fresh(batch, memory, common), []
    taken = [
        bm_step.timed(lambda: results.append(one_step(*state, number)))  # noqa: B023
        for number in range(steps + 2)
    ]
    seconds, terms = statistics.median(taken[2:]), results[0] if literal else results[0].terms
    return {
        "batch": batch,
        "image": list(image),
        "seconds_step": round(seconds, 5),
        "seconds_first": round(taken[0], 3),
        "images_per_second": round(batch / seconds, 2),
        "peak_memory_mb": round(bm_step.peak_memory()),
        "operations": counted.total,
        "terms": {name: float(value) for name, value in terms.items()},
    }


class Operations(TorchDispatchMode):
    """Floating-point operations of the convolutions and matrix products called while it lasts.

    FlopCounterMode attributes them to modules by hooks, which torch.autograd.grad does not allow.
    """

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def fresh(
    batch: int, memory: int, settings: Sequence[str]
) -> tuple[Networks, Optimisers, MemoryBank, PairedBatch, Config]:
    """What a joint step takes, the same numbers each time."""
    fixed = [
        "encoder.weights=random",
        "losses.formulation=official",
        "encoder.separate_batch_norm=false",
        "run.seed=0",
    ]
    config = load_config(overrides=[*fixed, *settings])
    torch.manual_seed(0)
    networks = prepare(build_networks(config).to(DEVICE), config.precision)
    images = bm_step.make_batch(batch, config.data.height, config.data.width)
    images = replace(images, index=torch.arange(batch, device=DEVICE) * (memory // batch))
    rows = torch.randn(memory, config.encoder.embedding, device=DEVICE)
    bank = MemoryBank(rows, torch.arange(memory) // 20, config.memory_bank)
    return networks, build_optimisers(networks, config.optim), bank, images, config


def ranking(queries: int, images: int, width: int) -> Record:
    """The protocol's ranks by the device's distances and by the CPU's, and the ten nearest of each query."""
    random = np.random.default_rng(0)
    people = random.integers(1, images // 20 + 1, queries + images)
    cameras = random.integers(1, bm_ranking.CAMERAS + 1, queries + images)
    query = bm_ranking.people(queries, width, people[:queries], random)
    gallery = bm_ranking.people(images, width, people[queries:], random)
    who = Labels.of(people[:queries], people[queries:], cameras[:queries], cameras[queries:])
    on_device = torch.from_numpy(query).to(DEVICE), torch.from_numpy(gallery).to(DEVICE)
    half_norms = 0.5 * on_device[1].square().sum(1)

    def distances(rows: slice) -> np.ndarray:
        return (half_norms - on_device[0][rows] @ on_device[1].T).cpu().numpy()

    here, there = rank_by(euclidean(query, gallery), who), rank_by(distances, who)
    nearest = nearest_rows(query, gallery, 10)[1]
    found = searcher_on(on_device[1])(on_device[0], 10).cpu().numpy()
    common = np.mean([np.isin(a, b).mean() for a, b in zip(nearest, found, strict=True)])
    record: Record = {
        "queries": queries,
        "gallery": images,
        "width": width,
        "mAP_cpu": here.mAP,
        "mAP_device": there.mAP,
        "same_ranks": float((here.matches.wrong_before == there.matches.wrong_before).mean()),
        "same_nearest_ten": float(common),
    }
    if abs(here.mAP - there.mAP) > 1e-5 or min(record["same_ranks"], common) < 0.999:
        record["error"] = "the device ranks otherwise than the CPU"
    return record


def labels(rows: int, width: int) -> Record:
    """The same features labelled on the CPU and on the device."""
    features, people = bm_pseudo_labels.people(rows, width)
    config = PseudoLabelsConfig(
        k1=bm_pseudo_labels.K1, k2=bm_pseudo_labels.K2, rho=min(0.002, 26 / rows), neighbours="exact"
    )
    few, of_few = features[:2000].copy(), config.model_copy(update={"rho": 0.01})
    for way in (bm_pseudo_labels.sparse_way, labelled_on_device):
        way(few, of_few)  # compiles, loads libraries
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    there = labelled_on_device(features, config)
    peak = bm_step.peak_memory()
    here = bm_pseudo_labels.sparse_way(features, config)
    differing = int((here["labels"] != there["labels"]).sum())
    record: Record = {
        "rows": rows,
        "width": width,
        "seconds_cpu": round(float(here["clock"].sum()), 3),
        "seconds_device": round(float(there["clock"].sum()), 3),
        "seconds_parts_cpu": here["clock"].round(3).tolist(),  # neighbours, encoding, clustering
        "seconds_parts_device": there["clock"].round(3).tolist(),
        "peak_memory_mb": round(peak),
        "clusters": int(here["labels"].max()) + 1,
        "eps_cpu": here["eps"],
        "eps_device": there["eps"],
        "ari": round(float(adjusted_rand_score(people, here["labels"])), 4),
        "differing_labels": differing,
    }
    if differing:
        record["error"] = f"{differing} of {rows} labels differ between device and CPU"
    return record


def labelled_on_device(features: np.ndarray, config: PseudoLabelsConfig) -> dict[str, Any]:
    """The counterpart of bm_pseudo_labels.sparse_way."""
    clock = [time.perf_counter()]
    on_device = torch.tensor(features, device=DEVICE)
    rank = nearest_on_device(on_device, config.k1)
    bm_step.wait()
    clock.append(time.perf_counter())
    encoding = encode_on_device(on_device, rank, config.k1, config.k2)
    bm_step.wait()
    clock.append(time.perf_counter())
    found = METHODS[config.method](encoding, config, None)
    clock.append(time.perf_counter())
    return {"labels": found.labels, "eps": found.eps, "clock": np.diff(clock)}


def job(out: str, limit: float, settings: Sequence[str], walkers: Sequence[str]) -> Record:
    """`python -m jgcl_ray.train`, its run asked to stop after `limit` seconds of training; then its mAP.

    out: folder for the run and the cache; settings: configuration; walkers: that of the data set alone.
    """
    folder = Path(out) / "job" / "main"
    named = [f"run.root={folder.parent}", f"run.name={folder.name}", "run.resume=auto", "tracking.enabled=false"]
    train = [sys.executable, "-m", "jgcl_ray.train", "--config", "walkers", *named, *settings, *walkers]
    environment = {**os.environ, "JGCL_RAY_CACHE": str(Path(out) / "cache"), "RAY_USAGE_STATS_ENABLED": "0"}
    start, began, until = time.monotonic(), None, float("inf")
    process = subprocess.Popen(train, env=environment)
    while process.poll() is None:
        time.sleep(0.2)
        if began is None and (folder / "metrics.jsonl").is_file():  # images are rendered before
            began = time.monotonic()
            until = began + limit
        if time.monotonic() > until and not (folder / STOP).exists():
            (folder / STOP).touch()
    stopped = (folder / STOP).exists()
    if began is None or (process.returncode and not stopped):
        raise RuntimeError(f"the main job ended with exit code {process.returncode}")
    trained, scores = time.monotonic() - began, folder / "scores.json"
    evaluate = ["--checkpoint", str((folder / "checkpoints" / "latest").resolve()), "--data", "walkers", *walkers]
    evaluate = [sys.executable, "-m", "jgcl_ray.evaluate", *evaluate, "--json", str(scores)]
    subprocess.run(evaluate, env=environment, check=True)
    document = json.loads(scores.read_text(encoding="utf-8"))
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        "ended_by": "STOP" if stopped else "itself",
        "seconds_before_training": round(began - start, 1),
        "seconds_trained": round(trained, 1),
        "last": {name: last[name] for name in ("stage", "epoch", "step") if name in last},
        "mAP": document["mAP"],
        "rank-1": document["rank-1"],
    }


KINDS: dict[str, Callable[..., Record]] = {
    "machine": machine,
    "matmul": matmul,
    "tests": gpu_tests,
    "step": step,
    "ranking": ranking,
    "labels": labels,
    "job": job,
}

if __name__ == "__main__":
    kind, arguments, answer = sys.argv[1:]
    Path(answer).write_text(json.dumps(KINDS[kind](**json.loads(arguments))), encoding="utf-8")
