"""What a sweep searches: a YAML of configuration fields, each with the values that it may take. No Ray.

config: walkers                                     # what is varied
trials: 12
scheduler: {name: asha, grace_epochs: 2}
fields:
  losses.contrast_views: {uniform: [0.2, 2.0]}      # also loguniform: [a, b], int: [a, b] with both ends,
  pseudo_labels.k1: {choice: [10, 20, 30]}          # choice: [...], and grid: [...], of which all are tried
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from jgcl_ray.config import Config, DataConfig, Section, configs_folder, validate
from jgcl_ray.config_sections import Seed
from jgcl_ray.data.datasets import open_dataset
from jgcl_ray.errors import UserError
from jgcl_ray.places import at_home
from jgcl_ray.strict_yaml import read_yaml
from jgcl_ray.training.best import chooser

Kind = Literal["uniform", "loguniform", "int", "choice", "grid"]
Params = dict[str, Any]  # section.field -> value

MOST_TRIALS = 10_000
LARGEST = 2**53  # of bounds: beyond, floats leave out whole numbers

_KINDS = ("uniform", "loguniform", "int", "choice", "grid")
# What a trial is given by the sweep, and what decides how many trials run at a time.
_NOT_SEARCHED = (
    "run.name",
    "run.root",
    "run.resume",
    "run.local",
    "pseudo_labels.num_cpus",
    "pseudo_labels.num_gpus",
)
_SECTIONS_NOT_SEARCHED = ("scaling", "tracking", "checkpoints")


Metric = Literal["validation_mAP", "validation_rank-1", "mAP", "rank-1", "label_agreement_mAP"]


class SchedulerConfig(Section):
    """Who ends or changes trials before their end."""

    name: Literal["none", "asha", "pbt"] = Field(
        "none",
        description="none: every trial runs to its end; asha: the worse ones are stopped early; pbt: the worst go on "
        "from the checkpoints of the best, with other weights.",
    )
    grace_epochs: int = Field(1, ge=1, description="ASHA: epochs, over all stages, that every trial gets.")
    reduction: float = Field(3, gt=1, description="ASHA: of how many trials one goes on.")
    every_epochs: int = Field(2, ge=1, description="PBT: epochs from one comparison to the next.")
    quantile: float = Field(0.25, gt=0, le=0.5, description="PBT: share of trials that are replaced.")


class SweepConfig(Section):
    """A YAML of configs/search."""

    config: str = Field("walkers", description="Configuration that is varied, where no other is given.")
    trials: int | None = Field(
        None, ge=1, le=MOST_TRIALS, description="How many; null: every combination of a grid once."
    )
    seed: Seed = Field(1, description="Of the draws of values; a trial's own seed is run.seed.")
    metric: Metric | None = Field(
        None, description="What is made large; null: the score that chooses the best checkpoint (eval.select_on)."
    )
    searcher: Literal["random", "optuna"] = Field("random", description="Who chooses values; optuna is an extra.")
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig, description="Early end of trials.")
    fields: dict[str, dict[str, Any]] = Field(min_length=1, description="section.field: {kind: values}")


@dataclass(frozen=True)
class Dimension:
    """The values of one field: between two bounds, or one of several."""

    field: str
    kind: Kind
    values: tuple[Any, ...]  # (low, high) of uniform, loguniform and int

    @property
    def bounded(self) -> bool:
        """Whether `values` are bounds."""
        return self.kind in ("uniform", "loguniform", "int")

    def draw(self, rng: np.random.Generator) -> Any:
        """A value; floats have four digits."""
        if not self.bounded:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "int":
            return int(rng.integers(low, high + 1))
        if self.kind == "loguniform":
            return self.clip(math.exp(rng.uniform(math.log(low), math.log(high))))
        return self.clip(float(rng.uniform(low, high)))

    def clip(self, value: float) -> float:
        """A number within the bounds, with four digits."""
        low, high = self.values
        return float(min(max(float(f"{value:.4g}"), low), high))

    def __str__(self) -> str:
        return f"{self.kind}{list(self.values)}"


@dataclass(frozen=True)
class Space:
    """A checked search space, and how it is searched."""

    name: str
    sweep: SweepConfig
    dimensions: tuple[Dimension, ...]

    @property
    def trials(self) -> int:
        """How many trials; all combinations of a grid, unless given."""
        return self.sweep.trials or self.combinations

    @property
    def combinations(self) -> int:
        """Of the grid fields."""
        return math.prod(len(each.values) for each in self.dimensions if each.kind == "grid")

    def draw(self) -> list[Params]:
        """The fields of each trial: grid combinations in turn, everything else drawn; the same for the same seed."""
        rng = np.random.default_rng(self.sweep.seed)
        grids = [each for each in self.dimensions if each.kind == "grid"]
        combinations = itertools.cycle(itertools.product(*(each.values for each in grids)))
        drawn = []
        for _ in range(self.trials):
            point = dict(zip((each.field for each in grids), next(combinations), strict=True))
            drawn.append(
                {each.field: point[each.field] if each in grids else each.draw(rng) for each in self.dimensions}
            )
        return drawn


def load_space(source: str | Path, trials: int | None = None) -> tuple[str, SweepConfig]:
    """Name and content of a space: a path, or the name of a shipped one; `trials` replaces the file's."""
    path = _find(source)
    tree = read_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: no search space; it needs `fields:` with section.field: {{uniform: [low, high]}}")
    if trials is not None:
        tree = {**tree, "trials": trials}
    try:
        return path.stem, SweepConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {_reason(error)}") from None


def check_space(name: str, sweep: SweepConfig, base: Config) -> Space:
    """The space of a configuration: every field known, every range full of values that the field takes.

    Raises UserError in one line that names the field.
    """
    dimensions = tuple(_dimension(field, given, base) for field, given in sweep.fields.items())
    space = Space(name, sweep, dimensions)
    grids = [each for each in dimensions if each.kind == "grid"]
    if space.combinations > MOST_TRIALS:
        raise UserError(
            f"search space {name}: {space.combinations:,} combinations on the grid, and a sweep has {MOST_TRIALS:,} "
            "trials at most: give fewer values, or make some of them a choice"
        )
    if not grids and sweep.trials is None:
        raise UserError(f"search space {name}: how many trials? nothing is a grid: give trials: N or --trials N")
    if sweep.trials is not None and sweep.trials < space.combinations:
        sizes = " x ".join(str(len(each.values)) for each in grids)
        raise UserError(
            f"search space {name}: {sizes} values on the grid are {space.combinations} combinations, and trials is "
            f"{sweep.trials}: raise it, or make the grid smaller"
        )
    if grids and sweep.searcher == "optuna":
        raise UserError(f"search space {name}: {grids[0].field}: a grid leaves optuna no choice; make it a choice")
    if sweep.scheduler.name == "pbt":
        _check_population(space)
    if sweep.searcher == "random":
        for number, params in enumerate(space.draw()):
            try:
                configured(base, params)
            except UserError as error:  # fields that do not go together
                raise UserError(f"search space {name}, trial {number}, {params_text(params)}: {error}") from None
    return space


def configured(base: Config, params: Mapping[str, Any]) -> Config:
    """The configuration of a trial; UserError as of `validate`."""
    tree = base.model_dump(mode="json")
    for field, value in params.items():
        section, _, name = field.partition(".")
        tree[section][name] = value
    return validate(tree)


def params_text(params: Mapping[str, Any]) -> str:
    """Fields and values in a line."""
    return ", ".join(f"{field}={value}" for field, value in params.items())


def metric_of(sweep: SweepConfig, config: Config) -> str:
    """What is made large, by its name in the run log: what the space says, else what chooses the best checkpoint.

    Reads file names below data.root, but for walkers.
    """
    if sweep.metric is not None:
        return sweep.metric
    chosen_by = chooser(config, _has_validation_list(config.data))
    if chosen_by is None:
        raise UserError(
            f"data.name={config.data.name} has no validation list, and without labels no score is known that follows "
            "the truth: say what is made large by metric: in the search space (mAP: of the test split)"
        )
    return chosen_by


def _has_validation_list(data: DataConfig) -> bool:
    if data.name == "walkers":  # which may have to be rendered first
        return False
    return open_dataset(data).validation is not None


def _find(source: str | Path) -> Path:
    given = at_home(Path(source))
    if given.is_file():
        return given
    folder = configs_folder() / "search"
    shipped = folder / f"{given.name.removesuffix('.yaml')}.yaml"
    if given.parent in (Path(), Path("search"), Path("configs/search")) and shipped.is_file():
        return shipped
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise UserError(f"no search space {str(source)!r}: give a path, or the name of a shipped one ({known})")


def _dimension(field: str, given: Mapping[str, Any], base: Config) -> Dimension:
    _check_field(field, base)
    kind, values = next(iter(given.items()), ("", None))
    if len(given) != 1 or kind not in _KINDS:
        raise UserError(f"{field}: {dict(given)}: give one of {', '.join(_KINDS)} with its values in brackets")
    if not isinstance(values, list) or not values:
        raise UserError(f"{field}: {kind}: {values!r}: no values; give them in brackets")
    dimension = Dimension(field, kind, tuple(values))  # type: ignore[arg-type]
    if dimension.bounded:
        _check_bounds(dimension)
    elif any(values.index(value) != row for row, value in enumerate(values)):
        raise UserError(f"{field}: {kind}: {values}: a value is there twice")
    for value in values:
        _check_value(field, value, base)
    return dimension


def _check_field(field: str, base: Config) -> None:
    section, _, name = field.partition(".")
    sections = type(base).model_fields
    known = [f"{each}.{inner}" for each in sections for inner in type(getattr(base, each)).model_fields]
    if field not in known:
        close = difflib.get_close_matches(field, known, n=1)
        meant = f"did you mean {close[0]}?" if close else "python -m jgcl_ray.config prints them all"
        raise UserError(f"{field}: no such field of the configuration; {meant}")
    if field in _NOT_SEARCHED or section in _SECTIONS_NOT_SEARCHED:
        raise UserError(f"{field}: a sweep sets it for all its trials alike; give {section}.{name}=VALUE instead")


def _check_value(field: str, value: Any, base: Config) -> None:
    """Of the field alone: whether fields go together is seen where all of them are known."""
    section, _, name = field.partition(".")
    others: Section = getattr(base, section)
    try:
        type(others).model_validate(others.model_dump(mode="json") | {name: value})
    except ValidationError as error:
        for found in error.errors():
            if found["loc"][:1] == (name,):
                raise UserError(f"{field}={value!r}: {found['msg'][0].lower()}{found['msg'][1:]}") from None


def _check_bounds(dimension: Dimension) -> None:
    values, said = dimension.values, f"{dimension.field}: {dimension.kind}: {list(dimension.values)}"
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not numbers:
        raise UserError(f"{said}: give two numbers, the least and the largest (1.0e-4: YAML wants the point)")
    low, high = values
    if dimension.kind == "int" and not all(isinstance(value, int) for value in values):
        raise UserError(f"{said}: give two whole numbers")
    if max(abs(low), abs(high)) > LARGEST:
        raise UserError(f"{said}: numbers beyond {LARGEST:,}")
    if not low < high:
        raise UserError(f"{said}: an empty range, {low} is not below {high}")
    if dimension.kind == "loguniform" and low <= 0:
        raise UserError(f"{said}: a logarithm needs more than 0 as its least value")


def _check_population(space: Space) -> None:
    """PBT carries checkpoints from one trial to another: only what does not change them may differ."""
    for each in space.dimensions:
        if not each.field.startswith("losses.") or each.kind not in ("uniform", "loguniform"):
            raise UserError(
                f"search space {space.name}: {each.field}: {each.kind}: pbt changes losses.* only, by uniform or "
                "loguniform; all else is part of the checkpoints that it carries from trial to trial"
            )
    if space.trials < 2 or space.sweep.searcher != "random":
        raise UserError(f"search space {space.name}: pbt needs two trials or more, and searcher: random")


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section: type[Section] = SchedulerConfig if key.startswith("scheduler.") else SweepConfig
        return f"{key}: no such setting; known: {', '.join(section.model_fields)}"
    return f"{key}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}" if key else first["msg"]
