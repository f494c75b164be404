"""A run on Ray: the workers, the clustering actor beside them, and the way home for errors and signals."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray.train
import torch
from ray.autoscaler.sdk import request_resources
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from jgcl_ray.config import Config
from jgcl_ray.data.samplers import Shard
from jgcl_ray.errors import UserError
from jgcl_ray.pseudo_labels.actor import ClusteringClient, start_clustering_actor
from jgcl_ray.ray_cluster import ray_cluster
from jgcl_ray.run_log import prepare_tracking
from jgcl_ray.training.loop import Outcome
from jgcl_ray.training.preemption import hear_sigterm, heard_sigterm
from jgcl_ray.training.prepare import InProcess, Plan, check_folder, estimate_bodies, open_folder, plan_run
from jgcl_ray.training.summary import aligned, describe, memory, memory_lines
from jgcl_ray.training.terminal import WARNINGS
from jgcl_ray.training.worker import ask_to_stop, clear, read_outcome, work
from jgcl_ray.wording import counted
from jgcl_ray.writer_lock import only_writer

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal ended the run after a checkpoint."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on from here")


LineWriter = Callable[[str], None]


def train(config: Config, write_line: LineWriter) -> Outcome:
    """A whole run, or the rest of one; on the Ray cluster that is there, or on one of its own.

    write_line: called with each line of the header. Raises UserError for what the user can fix, another process that
    writes to the run's folder included, and Interrupted after Ctrl-C or SIGTERM.
    """
    plan = plan_run(config)
    with only_writer(plan.folder):
        return _train(plan, write_line)


def _train(plan: Plan, write_line: LineWriter) -> Outcome:
    config = plan.config
    open_folder(plan)
    estimate_bodies(plan)
    clear(plan.folder)
    if (unavailable := prepare_tracking(plan.config)) is not None:
        logger.warning("MLflow: %s; the record stays in %s", unavailable, plan.folder)
    # Signals after Ray: where it starts it puts a handler of its own on SIGTERM, which ends the process.
    with nullcontext() if config.run.local else ray_cluster(), _signals(plan.folder) as received:
        outcome = _in_this_process(plan, write_line) if config.run.local else _on_ray(plan, write_line)
    if received:
        raise Interrupted(received[0])
    if outcome is None:
        raise RuntimeError(f"the workers ended without an outcome; see {plan.folder}")
    return outcome


def dry_run(config: Config, write_line: LineWriter) -> None:
    """Check everything that a run checks before it trains, and tell its plan and the memory that it will need.

    Nothing is written but the walkers, where they are asked for and not yet in the cache.
    """
    plan = plan_run(config)
    check_folder(plan)
    if config.run.local:
        devices = _local_device(config).type
    else:
        with ray_cluster():
            devices = _devices(config, _check_resources(config))
    for line in (*aligned(describe(plan, devices)), *memory_lines(memory(plan))):
        write_line(line)


def _in_this_process(plan: Plan, write_line: LineWriter) -> Outcome:
    config, device = plan.config, _local_device(plan.config)
    _use_threads(config, 1)
    for line in aligned(
        describe(plan, f"one process on {device.type}, {counted(torch.get_num_threads(), 'thread')}, no Ray")
    ):
        write_line(line)
    return work(plan, InProcess(config.pseudo_labels), Shard(), device)


def _on_ray(plan: Plan, write_line: LineWriter) -> Outcome | None:
    config = plan.config
    cuda = _check_resources(config)
    for line in aligned(describe(plan, _devices(config, cuda))):
        write_line(line)
    actor = start_clustering_actor(config.pseudo_labels)
    resources = {"CPU": config.scaling.cpus_per_worker}
    if cuda:
        resources["GPU"] = config.scaling.gpus_per_worker
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"plan": plan, "actor": actor, "cuda": cuda},
        torch_config=_TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=ScalingConfig(num_workers=_workers(config), use_gpu=cuda, resources_per_worker=resources),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # Train V2 takes more than the stub of V1
            name="train",
            storage_path=str(plan.folder / "ray"),
            failure_config=FailureConfig(max_failures=config.scaling.max_failures),
            # Ray's default of one OpenMP thread a CPU, read where torch is imported, slows more threads down by half.
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(_threads(config, config.scaling.num_workers))}},
        ),
    )
    try:
        _beside_the_main_thread(trainer.fit)
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from None
    finally:
        ray.kill(actor)
    return read_outcome(plan.folder)


def _beside_the_main_thread(call: Callable[[], object]) -> None:
    """Wait for a call in a thread of its own, while signals reach this one's handlers.

    From the main thread Ray's fit() puts a handler of its own on SIGINT, which ends a run without a checkpoint.
    """
    done: Future[object] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="fit", daemon=True).start()  # a second Ctrl-C does not wait for it
    done.result()


def _train_worker(loop_config: Mapping[str, Any]) -> None:
    plan: Plan = loop_config["plan"]
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = torch.device("cpu")
    if loop_config["cuda"]:
        device = ray.train.torch.get_device()
    else:
        _use_threads(plan.config, shard.count)
    client = ClusteringClient(loop_config["actor"], plan.config.pseudo_labels)
    with _warnings_to(plan.folder / WARNINGS) if shard.index == 0 else nullcontext():
        work(plan, client, shard, device, lambda numbers: ray.train.report(dict(numbers)), _Preempted())


class _Preempted:
    """Whether this worker has news that its machine will go: SIGTERM, or Ray's notice that nodes are drained."""

    def __init__(self) -> None:
        self._known: Any = None

    def __call__(self) -> bool:
        before, self._known = self._known, ray.train.get_preemption_info()
        return heard_sigterm() or (self._known is not None and self._known != before)


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(hear_sigterm)


class _TorchConfig(TorchConfig):
    """Workers hear SIGTERM, too. Train functions run in a thread, so it is the backend that reaches the main one."""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


@contextmanager
def _warnings_to(file: Path) -> Iterator[None]:
    """The package's warnings on this worker into a file of the run, from where the driver's terminal shows them."""
    package, handler = logging.getLogger("jgcl_ray"), logging.FileHandler(file)
    handler.setLevel(logging.WARNING)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


@contextmanager
def _signals(folder: Path) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask the workers to save and end; a second one ends at once."""
    received: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if received:
            signal.default_int_handler(number, frame)
        received.append(number)
        ask_to_stop(folder)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wants_cuda(config: Config, there: bool) -> bool:
    if config.scaling.device == "cuda" and not there:
        raise UserError("scaling.device=cuda: there is no GPU; use scaling.device=cpu or auto")
    return there and config.scaling.device != "cpu"


def _threads(config: Config, workers: int) -> int:
    return config.scaling.threads_per_worker or max(1, len(os.sched_getaffinity(0)) // workers)


def _use_threads(config: Config, workers: int) -> None:
    torch.set_num_threads(_threads(config, workers))


def _workers(config: Config) -> Any:  # Ray's annotations know no pair
    """How many workers Ray Train is to keep: a number, or the fewest and the most."""
    least, most = config.scaling.min_workers, config.scaling.num_workers
    return most if least in (None, most) else (least, most)


def _check_resources(config: Config) -> bool:
    """Whether the workers get GPUs. What cannot start would wait for ever: UserError with the arithmetic instead.

    Within scaling.wait_seconds machines may still come; an autoscaler is asked for them.
    """
    deadline = time.monotonic() + config.scaling.wait_seconds
    try:
        return _resources(config)
    except UserError:
        if not config.scaling.wait_seconds:
            raise
    request_resources(bundles=_wanted(config))
    try:
        while True:
            try:
                return _resources(config)
            except UserError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)
    finally:
        request_resources(bundles=[])  # else it would hold the machines after the run


def _wanted(config: Config) -> list[dict[str, float]]:
    scaling, labels = config.scaling, config.pseudo_labels
    gpus = scaling.device == "cuda"
    worker = {"CPU": scaling.cpus_per_worker, "GPU": scaling.gpus_per_worker if gpus else 0}
    actor = {"CPU": labels.num_cpus, "GPU": labels.num_gpus if gpus else 0}
    bundles = [*(worker for _ in range(scaling.num_workers)), actor]
    return [{kind: amount for kind, amount in bundle.items() if amount} for bundle in bundles if any(bundle.values())]


def _resources(config: Config) -> bool:
    scaling, labels, there = config.scaling, config.pseudo_labels, ray.cluster_resources()
    cuda = _wants_cuda(config, there.get("GPU", 0) > 0)
    workers = scaling.min_workers or scaling.num_workers
    needs = [("CPU", scaling.cpus_per_worker, labels.num_cpus)]
    if cuda:
        needs.append(("GPU", scaling.gpus_per_worker, labels.num_gpus))
    for kind, each, actor in needs:
        if workers * each + actor > there.get(kind, 0):
            raise UserError(
                f"{counted(workers, 'worker')} x {each:g} {kind} (scaling) + {actor:g} of the clustering actor = "
                f"{workers * each + actor:g}, and the Ray cluster has {there.get(kind, 0):g}: lower "
                f"scaling.num_workers, scaling.{kind.lower()}s_per_worker or pseudo_labels.num_{kind.lower()}s, or "
                "give machines that are starting time by scaling.wait_seconds"
            )
    return cuda


def _devices(config: Config, cuda: bool) -> str:
    scaling, there = config.scaling, ray.cluster_resources()
    kind, each = ("GPU", scaling.gpus_per_worker) if cuda else ("CPU", scaling.cpus_per_worker)
    count = f"{scaling.num_workers} worker{'s' if scaling.num_workers > 1 else ''}"
    whole = ", ".join(f"{there[name]:g} {name}s" for name in ("CPU", "GPU") if there.get(name))
    nodes = sum(node["Alive"] for node in ray.nodes())
    return (
        f"{count} x {each:g} {kind} and the clustering actor, on {nodes} Ray node{'s' if nodes > 1 else ''} ({whole})"
    )


def _local_device(config: Config) -> torch.device:
    return torch.device("cuda" if _wants_cuda(config, torch.cuda.is_available()) else "cpu")


def _cause(error: ray.train.TrainingFailedError) -> Exception:
    """A worker's UserError, to be reported in one line; anything else as Ray reports it."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        inner: BaseException | None = failure
        while inner is not None:
            if isinstance(inner, UserError):
                return inner
            inner = getattr(inner, "cause", None) or inner.__cause__
    return error
