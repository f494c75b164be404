"""The configuration: one root, a section per part, every field with a sentence.

A run's YAML holds only what differs from the defaults here; `section.field=value` on the command line comes last.
`python -m jgcl_ray.config` prints every field with its default and its sentence (configs/base.yaml).
"""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
)

from jgcl_ray.arguments import Parser
from jgcl_ray.config_sections import (
    PATTERNS,
    STAGES,
    AbsolutePath,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    MeshesConfig,
    RunConfig,
    ScalingConfig,
    Section,
    StageName,
    TrackingConfig,
    WalkersConfig,
)
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.learning_sections import (
    CentroidMemoryConfig,
    ClusterContrastConfig,
    ContrastSchedule,
    DiscriminatorConfig,
    EncoderConfig,
    Formulation,
    GenerationConfig,
    GeneratorConfig,
    JointConfig,
    LossesConfig,
    MemoryBankConfig,
    OptimConfig,
    PrecisionConfig,
    PseudoLabelsConfig,
    Recipe,
    ViewCamera,
    WarmupConfig,
)
from jgcl_ray.places import at_home
from jgcl_ray.strict_yaml import parse_yaml, plain_or_quoted, read_yaml

__all__ = [
    "STAGES",
    "AbsolutePath",
    "CentroidMemoryConfig",
    "CheckpointConfig",
    "ClusterContrastConfig",
    "Config",
    "ContrastSchedule",
    "DataConfig",
    "DiscriminatorConfig",
    "EncoderConfig",
    "EvalConfig",
    "Formulation",
    "GenerationConfig",
    "GeneratorConfig",
    "JointConfig",
    "LossesConfig",
    "MemoryBankConfig",
    "MeshesConfig",
    "OptimConfig",
    "PrecisionConfig",
    "PseudoLabelsConfig",
    "Recipe",
    "RunConfig",
    "ScalingConfig",
    "Section",
    "StageName",
    "TrackingConfig",
    "ViewCamera",
    "WalkersConfig",
    "WarmupConfig",
    "configs_folder",
    "describe",
    "find_config",
    "load_config",
    "override",
    "to_yaml",
    "validate",
]

# Fields that earlier versions had, with the value that is what is done now.
REMOVED = {("cluster_contrast", "negatives"): "all"}


class Config(Section):
    """The root: one section per part."""

    run: RunConfig = Field(default_factory=RunConfig, description="The run itself.")
    scaling: ScalingConfig = Field(default_factory=ScalingConfig, description="Workers and what each of them gets.")
    data: DataConfig = Field(default_factory=DataConfig, description="Images.")
    meshes: MeshesConfig = Field(default_factory=MeshesConfig, description="Bodies and their projections.")
    walkers: WalkersConfig = Field(default_factory=WalkersConfig, description="The rendered benchmark.")
    warmup: WarmupConfig = Field(default_factory=WarmupConfig, description="Stage 1: the encoder alone.")
    generation: GenerationConfig = Field(default_factory=GenerationConfig, description="Stage 2: the generator.")
    joint: JointConfig = Field(default_factory=JointConfig, description="Stage 3: generator and encoder together.")
    cluster_contrast: ClusterContrastConfig = Field(
        default_factory=ClusterContrastConfig,
        description="Cluster-Contrast's schedule in the joint stage, under `joint.recipe=cluster_contrast`.",
    )
    eval: EvalConfig = Field(default_factory=EvalConfig, description="Evaluation and the choice of the best.")
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig, description="What is kept to go on from.")
    encoder: EncoderConfig = Field(default_factory=EncoderConfig, description="The identity encoder E_id.")
    generator: GeneratorConfig = Field(
        default_factory=GeneratorConfig, description="The structure encoder E_str and the generator G."
    )
    discriminator: DiscriminatorConfig = Field(
        default_factory=DiscriminatorConfig, description="The multi-scale discriminator D."
    )
    losses: LossesConfig = Field(default_factory=LossesConfig, description="Weights of the loss terms.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="Optimisers.")
    precision: PrecisionConfig = Field(default_factory=PrecisionConfig, description="Number formats and layout.")
    memory_bank: MemoryBankConfig = Field(
        default_factory=MemoryBankConfig, description="Momentum row per training image, for the joint stage."
    )
    centroid_memory: CentroidMemoryConfig = Field(
        default_factory=CentroidMemoryConfig, description="Momentum row per cluster, for the warm-up."
    )
    pseudo_labels: PseudoLabelsConfig = Field(
        default_factory=PseudoLabelsConfig, description="Distances, clustering and the actor that does both."
    )
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="The run log's mirror in MLflow.")

    def epochs_of(self, stage: StageName) -> int:
        """Epochs of a stage; none of a warm-up that there is none of."""
        if stage == "warmup":
            return 0 if self.warmup.mode == "none" else self.warmup.epochs
        return self.generation.epochs if stage == "generation" else self.joint.epochs

    @property
    def uses_proxies(self) -> bool:
        """Whether the joint stage learns from proxies of cluster and camera."""
        contrasts = "joint" in self.run.stages and self.joint.recipe == "cluster_contrast"
        return contrasts and self.cluster_contrast.proxy_weight > 0

    @property
    def learns_surface_views(self) -> bool:
        """Whether the joint stage learns from people turned along their bodies' surface."""
        contrasts = "joint" in self.run.stages and self.joint.recipe == "cluster_contrast"
        return contrasts and self.cluster_contrast.views_every > 0

    @property
    def needs_bodies(self) -> bool:
        """Whether any stage needs projections of bodies."""
        return self.learns_surface_views or any(self.uses_generator(stage) for stage in self.run.stages)

    def uses_generator(self, stage: StageName) -> bool:
        """Whether the generator works in a stage."""
        return stage == "generation" or (stage == "joint" and self.joint.recipe == "gcl")

    def uses_pseudo_labels(self, stage: StageName) -> bool:
        """Whether a stage clusters the training images."""
        return stage == "joint" or (stage == "warmup" and self.warmup.mode == "unsupervised")


def configs_folder() -> Path:
    """Folder of the shipped YAML files: inside the installed package, or the top level of a checkout."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "configs"


def find_config(source: str | Path) -> Path:
    """Path of a YAML file given by path, or by name (`walkers`, `configs/walkers.yaml`) among the shipped ones."""
    given = at_home(Path(source))
    if given.is_file():
        return given
    shipped = configs_folder() / f"{given.name.removesuffix('.yaml')}.yaml"
    if given.parent in (Path(), Path("configs")) and shipped.is_file():
        return shipped
    if given.is_dir():
        inner = given / "config.yaml"
        remedy = f"give {inner}" if inner.is_file() else "give a YAML file, or the name of a shipped one"
        raise UserError(f"config {str(source)!r}: a folder; {remedy}")
    known = ", ".join(sorted(path.stem for path in configs_folder().glob("*.yaml")))
    raise UserError(f"no config file {str(source)!r}: give a path, or the name of a shipped one ({known})")


def load_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, then the YAML file `source` (path or shipped name), then `section.field=value` overrides.

    Raises UserError, in one line that names the key, the value and what is allowed.
    """
    tree: dict[str, Any] = _read_tree(find_config(source)) if source is not None else {}
    return _overridden(tree, overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration with `section.field=value` changes; UserError as in `load_config`."""
    return _overridden(config.model_dump(mode="json"), overrides)


def validate(tree: Mapping[str, Any]) -> Config:
    """A nested mapping as a Config; UserError in one line otherwise.

    Fields that earlier versions had are no error where they hold what is done now: runs and checkpoints of then open.
    """
    try:
        return Config.model_validate(_without_removed(tree))
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(_one_line(first) + more) from None


def _without_removed(tree: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(tree)
    for (section, field), now in REMOVED.items():
        fields = kept.get(section)
        if isinstance(fields, Mapping) and fields.get(field) == now:
            kept[section] = {name: value for name, value in fields.items() if name != field}
    return kept


def to_yaml(config: Config) -> str:
    """The whole merged configuration as YAML that `load_config` reads back to an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_tree(path: Path) -> dict[str, Any]:
    tree = read_yaml(path)
    if tree is None:
        if not path.stat().st_size:
            raise UserError(f"{path}: an empty file, expected sections with fields; write it again")
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds a {type(tree).__name__}, expected sections with fields")
    return tree


def _parse_value(key: str, text: str) -> Any:
    kinds = _kinds_of(key)
    if kinds and all(_is_text(kind) for kind in kinds):
        return None if NoneType in kinds and text in ("", "null") else plain_or_quoted(text)
    if kinds and NoneType not in kinds and not text.strip():
        raise UserError(f"{key}=: no value; give one, or leave {key} out")
    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"{key}={text}: {error}") from None


def _kinds_of(key: str) -> tuple[Any, ...]:
    """The types that a field takes, one by one; none of what is no field."""
    section, _, name = key.partition(".")
    fields = Config.model_fields
    inner = fields[section].annotation if section in fields else None
    if not (isinstance(inner, type) and issubclass(inner, BaseModel) and name in inner.model_fields):
        return ()
    annotation = inner.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind in (str, Path, NoneType)


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{text!r} is not of the form section.field=value")
        tree = _with(tree, key.split("."), 0, _parse_value(key, value))
    return validate(tree)


def _with(tree: dict[str, Any], path: list[str], depth: int, value: Any) -> dict[str, Any]:
    """A copy with one value changed; the rest is shared, as a YAML's aliases may be."""
    name = path[depth]
    if depth == len(path) - 1:
        return {**tree, name: value}
    inner = tree.get(name, {})
    if not isinstance(inner, dict):
        raise UserError(f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is a field, not a section")
    return {**tree, name: _with(inner, path, depth + 1, value)}


def _one_line(error: Any) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        section: type[BaseModel] = Config
        for name in path[:-1]:
            annotation = section.model_fields[name].annotation
            assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
            section = annotation
        known = list(section.model_fields)
        close = difflib.get_close_matches(path[-1], known, n=1)
        meant = f"did you mean {'.'.join([*path[:-1], close[0]])}? " if close else ""
        return f"{key}={_shown(error['input'])}: no such field; {meant}known: {', '.join(known)}"
    if isinstance(error["input"], dict):  # fields that do not go together: the message names them
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    if error["type"] == "string_pattern_mismatch" and key in PATTERNS:
        return f"{key}={_shown(error['input'])}: {PATTERNS[key]}"
    reason = error["msg"].partition(" for <class")[0]
    return f"{key}={_shown(error['input'])}: {reason[0].lower()}{reason[1:]}"


def _shown(value: Any) -> str:
    """As Python writes it, in a line's length at most; nothing as YAML does."""
    if value is None:
        return "null"
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxlist, brief.maxdict = 2, 4, 4
    brief.maxstring = brief.maxother = brief.maxlong = 80
    return brief.repr(value)


def describe() -> str:
    """Every field with its default and its sentence, as YAML with comments (configs/base.yaml)."""
    lines = [
        "# Every field with its default, as `python -m jgcl_ray.config` prints it; a YAML holds only what differs."
    ]
    for name, section in Config.model_fields.items():
        lines += ["", f"# {section.description}", f"{name}:"]
        assert isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
        for field_name, field in section.annotation.model_fields.items():
            default = field.get_default(call_default_factory=True)
            value = default.as_posix() if isinstance(default, Path) else default
            lines.append(f"  # {field.description}")
            lines.append(f"  {field_name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Parser(
        prog="python -m jgcl_ray.config", description="Print every setting with its default and a sentence, as YAML."
    ).parse_args()
    with exit_on_user_error():
        print(describe(), end="")
