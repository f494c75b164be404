"""A training on several Ray Train workers, each with its share of every batch."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from jgcl_ray.errors import UserError
from jgcl_ray.ray_cluster import ray_cluster

RETRIES = 3  # times that the workers start anew from the checkpoint


@dataclass(frozen=True)
class Training:
    """What is trained; its functions are named at the top of their modules, so that workers find them."""

    render: Callable[[Any], object]  # recipe: the cut-outs, by all CPUs, before the workers take them
    lines: Callable[[Any, Path, torch.device, int], Iterator[str]]  # recipe, checkpoint, device, drawers: trains
    trained: Callable[[Path, Any], object]  # checkpoint, recipe: refuses a file of another recipe


def train_on_ray(
    training: Training,
    recipe: Any,
    checkpoint: Path,
    workers: int,
    cuda: bool,
    drawers: int,
    write_line: Callable[[str], None],
) -> None:
    """Trains over a Ray cluster all of whose machines see `checkpoint` under this path, and tells each line."""
    each = {"CPU": 1.0} | ({"GPU": 1.0} if cuda else {})
    if checkpoint.is_file():
        training.trained(checkpoint, recipe)
    training.render(recipe)
    lines, left = (checkpoint.with_name(checkpoint.name + suffix) for suffix in (".lines", ".ray"))
    done = threading.Event()
    reader = threading.Thread(target=_follow, args=(lines, write_line, done), daemon=True)
    with ray_cluster():
        for kind, amount in each.items():
            if (there := ray.cluster_resources().get(kind, 0)) < workers * amount:
                raise UserError(f"--workers {workers} x 1 {kind}, and the Ray cluster has {there:g}")
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "training": training,
                "recipe": recipe,
                "checkpoint": checkpoint,
                "drawers": drawers,
                "lines": lines,
            },
            torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda, resources_per_worker=each),
            run_config=RunConfig(
                name="train", storage_path=str(left), failure_config=FailureConfig(max_failures=RETRIES)
            ),
        )
        lines.write_text("", encoding="utf-8")
        reader.start()
        try:
            trainer.fit()
        finally:
            done.set()
            reader.join()
            lines.unlink()
            shutil.rmtree(left)


def _worker(given: Mapping[str, Any]) -> None:
    training: Training = given["training"]
    for line in training.lines(given["recipe"], given["checkpoint"], ray.train.torch.get_device(), given["drawers"]):
        with given["lines"].open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _follow(lines: Path, write_line: Callable[[str], None], done: threading.Event) -> None:
    with lines.open(encoding="utf-8") as file:
        last = False
        while not last:
            last = done.wait(1.0)
            for line in file.read().splitlines():
                write_line(line)
