"""A sweep on Ray: how many trials fit at a time, who chooses and stops them, and how an interrupted one goes on."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from jgcl_ray.config import Config
from jgcl_ray.errors import UserError
from jgcl_ray.places import check_folder
from jgcl_ray.ray_cluster import ray_cluster, starts_own_cluster
from jgcl_ray.training.prepare import check_places, plan_run
from jgcl_ray.tuning.record import (
    TRIALS,
    Status,
    SweepRecord,
    TrialRecord,
    best_of,
    check_params,
    open_folder,
    read_trials,
    remaining,
)
from jgcl_ray.tuning.report import write_report
from jgcl_ray.tuning.space import Dimension, Params, Space, metric_of, params_text
from jgcl_ray.tuning.trial import Trial, TrialSetting, epochs_before, last_line
from jgcl_ray.wording import counted
from jgcl_ray.writer_lock import only_writer

DRIVER_CPUS = 0.05  # of the process that starts and follows one trial; Tune refuses 0
TUNE = "tune"  # folder of Tune's own state, in that of the sweep
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no copy of the record as CSV, JSON and TensorBoard
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # reported in a line each, by what trial.json says
    "TUNE_GLOBAL_CHECKPOINT_S": "5",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}

LineWriter = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """What a sweep has come to."""

    folder: Path
    metric: str
    trials: tuple[TrialRecord, ...]
    interrupted: bool
    terminated: bool = False  # by SIGTERM

    @property
    def best(self) -> TrialRecord | None:
        """None where nothing was measured."""
        return best_of(self.trials)


def sweep(base: Config, space: Space, write_line: LineWriter, again: bool = False) -> Sweep:
    """Run all trials of a space that have not ended yet; on the Ray cluster that is there, or on one of its own.

    again: failed trials too. write_line: called with a line now and then. Raises UserError for what the user can
    fix, before anything starts.
    """
    folder, metric = base.run.root / f"{base.run.name}-{space.name}", metric_of(space.sweep, base)
    if space.sweep.searcher == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("searcher: optuna is an extra: pip install 'jgcl_ray[tune]'")
    check_folder(folder, "run.root, run.name:")
    check_places(base, workers_here=starts_own_cluster())
    plan_run(base)  # also renders walkers, once, before the trials want them
    with only_writer(folder):
        return _sweep(folder, metric, base, space, write_line, again)


def _sweep(folder: Path, metric: str, base: Config, space: Space, write_line: LineWriter, again: bool) -> Sweep:
    open_folder(folder, base, space)
    check_params(folder / TRIALS, space)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", "Consider boosting PBT")  # by keeping processes, whose runs would mingle
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists failed and interrupted trials once more
    drawn = dict(enumerate(space.draw())) if space.sweep.searcher == "random" else {}
    left = remaining(read_trials(folder / TRIALS), drawn, again)
    record = SweepRecord(folder, base, space, metric)
    numbers = _numbers(space, folder, left)
    with _terminated_as_interrupted() as terminated:
        if numbers:
            with ray_cluster():
                at_once = _trials_at_once(base)
                setting = TrialSetting(_keeping(base, space), folder / TRIALS, metric, numbers, record.open())
                write_line(_header(space, setting, at_once, record.page))
                with suppress(KeyboardInterrupt):
                    watcher = _Watcher(record, setting, write_line)
                    _tuner(folder, space, setting, list(left.values()), at_once, watcher).fit()
            shutil.rmtree(folder / TUNE, ignore_errors=True)
        else:
            record.open()
        record.settle_trials()
        trials = tuple(read_trials(folder / TRIALS))
        write_report(folder, base, space, metric, trials)
        record.close()
    return Sweep(folder, metric, trials, record.interrupted, bool(terminated))


def _numbers(space: Space, folder: Path, left: Mapping[int, Params]) -> tuple[int, ...]:
    """Of the trials to run; optuna chooses the values of those that were never begun."""
    begun = {record.number for record in read_trials(folder / TRIALS)}
    return tuple(left) + tuple(n for n in range(space.trials) if n not in begun and n not in left)


def _header(space: Space, setting: TrialSetting, at_once: int, page: str) -> str:
    done = space.trials - len(setting.numbers)
    trials = counted(space.trials, "trial") + (f", {done} of them done before" if done else "")
    how = f"{space.sweep.searcher}, scheduler {space.sweep.scheduler.name}"
    return f"{setting.trials.parent}: {trials}, {at_once} at a time; by {setting.metric}; {how}; MLflow: {page}"


def resource_bundles(config: Config, cuda: bool) -> list[dict[str, float]]:
    """What one trial takes of the cluster, each bundle on one node: its driver, its workers, the clustering actor."""
    scaling, labels = config.scaling, config.pseudo_labels
    worker, actor = {"CPU": scaling.cpus_per_worker}, {"CPU": labels.num_cpus}
    if cuda:
        worker["GPU"], actor["GPU"] = scaling.gpus_per_worker, labels.num_gpus
    if config.run.local:
        return [worker]
    return [{"CPU": DRIVER_CPUS}, *[worker] * scaling.num_workers, actor]


def trials_that_fit(bundles: Iterable[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials of these bundles fit on the nodes at a time, the largest bundles placed first."""
    free = [dict(node) for node in nodes]
    ordered = sorted(bundles, key=lambda bundle: (bundle.get("GPU", 0), bundle["CPU"]), reverse=True)
    count = 0
    while all(_place(bundle, free) for bundle in ordered):
        count += 1
    return count


def _place(bundle: Mapping[str, float], free: list[dict[str, float]]) -> bool:
    for node in free:
        if all(node.get(kind, 0.0) + 1e-9 >= amount for kind, amount in bundle.items()):
            for kind, amount in bundle.items():
                node[kind] = node.get(kind, 0.0) - amount
            return True
    return False


def check_fit(config: Config, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials run at a time; UserError with the arithmetic where not even one can."""
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    cuda = config.scaling.device == "cuda" or (config.scaling.device == "auto" and gpus > 0)
    needed = resource_bundles(config, cuda)
    if count := trials_that_fit(needed, nodes):
        return count
    scaling, labels = config.scaling, config.pseudo_labels
    for kind, each, actor, driver in (
        ("CPU", scaling.cpus_per_worker, labels.num_cpus, DRIVER_CPUS),
        ("GPU", scaling.gpus_per_worker, labels.num_gpus, 0.0),
    ):
        total, there = sum(bundle.get(kind, 0.0) for bundle in needed), sum(node.get(kind, 0.0) for node in nodes)
        if total > there + 1e-9:
            said = f"{counted(scaling.num_workers, 'worker')} x {each:g} {kind} (scaling)"
            said += f" + {actor:g} of the clustering actor"
            said += f" + {driver:g} of the trial's driver" if driver else ""
            said = f"{scaling.cpus_per_worker:g} {kind} (run.local)" if config.run.local else said
            raise UserError(
                f"a trial needs {said} = {total:g}, and the Ray cluster has {there:g}: no trial can ever start; "
                f"lower scaling.num_workers, scaling.{kind.lower()}s_per_worker or pseudo_labels.num_{kind.lower()}s"
            )
    largest = max(needed, key=lambda bundle: (bundle.get("GPU", 0.0), bundle["CPU"]))
    has = ", ".join("+".join(f"{node.get(kind, 0):g} {kind}s" for kind in largest) for node in nodes)
    wants = " and ".join(f"{amount:g} {kind}s" for kind, amount in largest.items())
    raise UserError(
        f"the parts of a trial do not fit on the nodes of the Ray cluster ({has}), the largest takes {wants} of one "
        "node: no trial can ever start; lower scaling.cpus_per_worker or scaling.gpus_per_worker"
    )


def _trials_at_once(base: Config) -> int:
    return check_fit(base, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def _keeping(base: Config, space: Space) -> Config:
    """With PBT a checkpoint must outlive its being copied."""
    if space.sweep.scheduler.name != "pbt":
        return base
    return base.model_copy(
        update={"checkpoints": base.checkpoints.model_copy(update={"keep": max(base.checkpoints.keep, 4)})}
    )


def _tuner(
    folder: Path, space: Space, setting: TrialSetting, params: Sequence[Params], at_once: int, watcher: tune.Callback
) -> tune.Tuner:
    """Always a new one: what there was before is known from trial.json, and Tune's own state is never read."""
    shutil.rmtree(folder / TUNE, ignore_errors=True)
    base = setting.base
    cpus = base.scaling.cpus_per_worker if base.run.local else DRIVER_CPUS
    searcher = _optuna(space, setting, params) if space.sweep.searcher == "optuna" else None
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, setting=setting), {"CPU": cpus}),
        param_space={} if searcher else {"params": tune.grid_search(list(params))},
        tune_config=tune.TuneConfig(
            metric=setting.metric,
            mode="max",
            scheduler=_scheduler(space, base),
            search_alg=searcher,
            num_samples=len(setting.numbers) if searcher else 1,
            max_concurrent_trials=at_once,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            name="state",
            storage_path=str(folder / TUNE),
            callbacks=[watcher],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )


def _scheduler(space: Space, base: Config) -> TrialScheduler:
    """Epochs over all stages are the time of a trial; what limits it is its own end."""
    wanted = space.sweep.scheduler
    if wanted.name == "asha":
        return AsyncHyperBandScheduler(
            time_attr="epochs",
            max_t=epochs_before(base) + 1,
            grace_period=wanted.grace_epochs,
            reduction_factor=wanted.reduction,
        )
    if wanted.name == "pbt":
        return PopulationBasedTraining(
            time_attr="epochs",
            perturbation_interval=wanted.every_epochs,
            quantile_fraction=wanted.quantile,
            hyperparam_mutations={"params": {each.field: _domain(each) for each in space.dimensions}},
            custom_explore_fn=partial(_clipped, space.dimensions),
        )
    return FIFOScheduler()


def _clipped(dimensions: Sequence[Dimension], config: dict[str, Any]) -> dict[str, Any]:
    """PBT multiplies by 0.8 or 1.2, which may leave the range."""
    params = {each.field: each.clip(config["params"][each.field]) for each in dimensions}
    return {**config, "params": params}


def _domain(dimension: Dimension) -> Any:
    if not dimension.bounded:
        return tune.choice(list(dimension.values))
    low, high = dimension.values
    if dimension.kind == "int":
        return tune.randint(low, high + 1)
    return tune.loguniform(low, high) if dimension.kind == "loguniform" else tune.uniform(low, high)


def _optuna(space: Space, setting: TrialSetting, params: Sequence[Params]) -> Searcher:
    """Notified of all trials that have a score; those that were interrupted come first."""
    from ray.tune.search.optuna import OptunaSearch

    class Numbered(OptunaSearch):
        """Gives each trial its number."""

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            found = super().suggest(trial_id)
            return None if found is None else {"params": found, "number": next(numbers)}

    numbers = iter(setting.numbers)
    known = [each for each in read_trials(setting.trials) if each.number not in setting.numbers]
    searcher = Numbered(
        space={each.field: _distribution(each) for each in space.dimensions},
        metric=setting.metric,
        mode="max",
        seed=space.sweep.seed + len(known),  # else the draws of the first start would come again
        points_to_evaluate=[dict(each) for each in params] or None,
    )
    for each in known:
        if each.best is not None:
            searcher.add_evaluated_point(each.params, each.best)
    return searcher


def _distribution(dimension: Dimension) -> Any:
    from optuna import distributions

    if not dimension.bounded:
        return distributions.CategoricalDistribution(list(dimension.values))
    low, high = dimension.values
    if dimension.kind == "int":
        return distributions.IntDistribution(low, high)
    return distributions.FloatDistribution(low, high, log=dimension.kind == "loguniform")


class _Watcher(tune.Callback):
    """Hears from Tune when trials end."""

    def __init__(self, record: SweepRecord, setting: TrialSetting, write_line: LineWriter) -> None:
        self._record, self._setting, self._write_line = record, setting, write_line

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks into a file, which nobody reads here."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        epochs = trial.last_result.get("epochs")
        self._end(trial, "stopped", f"among the worse after {epochs} epochs")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._end(trial, "failed", f"its driver was lost: {last_line(str(trial.get_error()))}")

    def _end(self, trial: TuneTrial, status: Status, reason: str) -> None:
        number = self._setting.number(trial.trial_id, trial.config)
        record = self._record.ended(number, trial.config["params"], status, reason)
        value = "-" if record.best is None else f"{record.best:.4f}"
        said = f"{record.name}  {record.status}  {self._setting.metric} {value}  {params_text(record.params)}"
        self._write_line(f"{said}  ({record.reason})" if record.reason else said)


@contextmanager
def _terminated_as_interrupted() -> Iterator[list[int]]:
    """SIGTERM is taken for Ctrl-C, at which Tune ends its trials; those that came."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, before)
