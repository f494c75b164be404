"""The sections of the configuration but for what is learnt and how (learning_sections.py).

Every field is typed, with a default, its limits and a sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from jgcl_ray.arguments import LARGEST_SIDE
from jgcl_ray.choices import DATA_SETS, RENDERERS, one_of
from jgcl_ray.errors import UserError
from jgcl_ray.places import absolute


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise PydanticCustomError("path", "A path has no character of number 0")
    try:
        return absolute(path)
    except UserError as error:
        raise PydanticCustomError("path", "{reason}", {"reason": str(error)}) from None


# Ray workers run in another folder, often on another machine: a path is made absolute where it is typed.
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
# What a text must be like, in words for people, of the fields that have a pattern.
PATTERNS = {
    "run.name": "a name of letters, digits, _, . and -, which begins with a letter or digit",
    "checkpoints.mirror": "an address such as s3://BUCKET/FOLDER, without a password in it",
}
# The stages of METHOD "Stages".
StageName = Literal["warmup", "generation", "joint"]
STAGES: tuple[StageName, ...] = ("warmup", "generation", "joint")
# What every generator of random numbers takes.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is a union of, or the one that it is."""
    parts = get_args(annotation)
    return {annotation} | set(parts).union(*(_kinds(part) for part in parts))


class Section(BaseModel):
    """A frozen group of fields; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, field: ValidationInfo) -> Any:
        """What Python takes for a number or a path, and people do not."""
        kinds = _kinds(cls.model_fields[str(field.field_name)].annotation)
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise PydanticCustomError("number", "Input should be a number, not true or false")
        if value == "" and Path in kinds:
            raise PydanticCustomError("path", "Input should be a path; . is the folder that the command is given in")
        if isinstance(value, int | float) and not isinstance(value, bool) and Path in kinds:
            return str(value)
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _of_a_size(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > 2**32:
            raise PydanticCustomError("number", "Input should be at most 4,294,967,296")
        return value


class RunConfig(Section):
    name: str = Field("walkers", pattern=r"^[A-Za-z0-9][\w.-]*$", description="Name of the run's folder.")
    root: AbsolutePath = Field(Path("runs"), validate_default=True, description="Folder of all runs.")
    seed: Seed = Field(1, description="Seed of every random draw of the run.")
    stages: tuple[StageName, ...] = Field(
        ("warmup", "generation", "joint"),
        min_length=1,
        description="Stages to run, in this order; what is left out is taken from `init_from`.",
    )
    resume: AbsolutePath | Literal["auto", "never"] = Field(
        "auto",
        description="auto: go on from the run folder's newest readable checkpoint, if there is one; never: refuse a "
        "folder that has any; a path: go on from that checkpoint, or from the newest of "
        "that run folder.",
    )
    init_from: AbsolutePath | Literal["rendered"] | None = Field(
        None,
        description="Checkpoint whose networks a new run starts with, counters and memory afresh, or a run folder "
        "for its best; or the file encoder.safetensors of one, for the encoder alone, or a file that encoder."
        "weights_file takes; or rendered, the encoder that comes with the package, made of rendered people (python "
        "-m jgcl_ray.pretrain).",
    )
    log_every: int = Field(
        10,
        ge=1,
        description="Steps between records of the loss terms; an epoch without such a step has one at its end.",
    )
    deterministic: bool = Field(
        False, description="Only algorithms that repeat bit for bit on one machine; slower, above all on GPUs."
    )
    local: bool = Field(False, description="One plain process without Ray, for debugging.")

    @field_validator("stages", mode="before")
    @classmethod
    def _by_either_name(cls, stages: object) -> object:
        """`generator` is the second stage's other name."""
        if isinstance(stages, list | tuple):
            return tuple("generation" if stage == "generator" else stage for stage in stages)
        return stages

    @model_validator(mode="after")
    def _in_order(self) -> RunConfig:
        places = [STAGES.index(stage) for stage in self.stages]
        if places != sorted(set(places)):
            raise ValueError(f"stages run once each, in the order {', '.join(STAGES)}")
        return self


class ScalingConfig(Section):
    num_workers: int = Field(1, ge=1, description="Ray Train workers, each with its share of every batch.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where the Ray cluster has GPUs.")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs of each worker; Ray may overbook, it does not pin.")
    gpus_per_worker: float = Field(1, gt=0, description="GPUs of each worker where the device is CUDA.")
    threads_per_worker: int = Field(
        0, ge=0, description="Threads of each worker on CPUs; 0: the machine's cores divided among the workers."
    )
    sync_batch_norm: bool = Field(
        False,
        description="Batch-norm statistics over all workers: results do not depend on their number, for "
        "two small collectives a layer and pass.",
    )
    max_failures: int = Field(3, ge=0, description="Times that lost workers are replaced before the run gives up.")
    min_workers: int | None = Field(
        None,
        ge=1,
        description="Go on with as few workers as this while machines are missing, and with `num_workers` again when "
        "they are back; null: wait for `num_workers`.",
    )
    wait_seconds: float = Field(
        0,
        ge=0,
        description="Seconds to wait for machines that are still starting; an autoscaling cluster is asked for them "
        "(with device cuda for GPUs). 0: refuse at once what the cluster cannot give.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ScalingConfig:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers = {self.min_workers} is more than num_workers = {self.num_workers}")
        return self


class EvalConfig(Section):
    every: int = Field(5, ge=1, description="Epochs between evaluations; the last epoch of a stage is evaluated too.")
    select_on: Literal["validation", "test"] = Field(
        "validation",
        description="What chooses the best checkpoint: validation (the data set's own list; "
        "without one the last checkpoint is taken), or the test split, as the authors do.",
    )
    batch_size: int = Field(64, ge=1, description="Images at a time, on each worker, for features.")


class CheckpointConfig(Section):
    every_steps: int = Field(0, ge=0, description="Steps between checkpoints besides those at epoch ends; 0: none.")
    keep: int = Field(2, ge=1, description="Newest checkpoints to keep, besides the best.")
    mirror: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9+.-]*://[^@]*$",
        description="Address of a second place for checkpoints (s3://BUCKET/FOLDER, gs://..., file:///...), from "
        "where a run with an empty folder takes them; credentials from the environment, not in the address.",
    )


class DataConfig(Section):
    name: Annotated[str, one_of("data set", DATA_SETS)] = Field(
        "walkers",
        description="Which data set; `labelled` for your own crops with identity and camera in their names, `folder` "
        "for those without labels.",
    )
    root: AbsolutePath | None = Field(
        None, description="Folder of the data set; `walkers` renders into a cache when it is not given."
    )
    pattern: str | None = Field(
        None,
        description="File names of `labelled`, relative to `root`: '{identity}_c{camera}_*.jpg', or "
        "'{camera}/{identity}/*.png'; * is any text within a name, **/ any folders.",
    )
    train_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of people to train on, in sets that come without a division (labelled, cuhk01, viper, "
        "prid2011, pku_reid); 0: all are searched for, to evaluate alone; 1: nobody is.",
    )
    split: int = Field(
        0, ge=0, description="Which division into people to train on and to search for, in sets that come without."
    )
    variant: Literal["detected", "labeled", "single_shot", "multi_shot"] | None = Field(
        None,
        description="Which crops: cuhk03's detected or labeled, prid2011's single_shot or multi_shot; null: those "
        "that are there, of two the first.",
    )
    per_tracklet: int | None = Field(
        None,
        ge=1,
        description="At most so many images of each tracklet, evenly spread (mars, prid2011, folder); null: all.",
    )
    height: int = Field(256, ge=16, le=LARGEST_SIDE, description="Height in pixels to which images are resized.")
    width: int = Field(128, ge=8, le=LARGEST_SIDE, description="Width in pixels to which images are resized.")
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="Stop at images that cannot be read, all named at once, or leave them out."
    )
    cache: bool = Field(
        False,
        description="Keep resized uint8 images in memory after first use, 98 KB each at 256 x 128, on each worker.",
    )
    batch_size: int = Field(16, ge=1, description="Images in a batch of stages 2 and 3, over all workers together.")
    identities_per_batch: int = Field(
        16, ge=1, description="P: identities in a batch of the warm-up, over all workers together."
    )
    images_per_identity: int = Field(4, ge=1, description="K: images of each identity in a batch of the warm-up.")
    other_cameras_first: bool = Field(
        False,
        description="The K images of an identity are one and partners from other cameras, as far as there are any "
        "(Cluster-Contrast's sampler); false: any K of them.",
    )
    flip_probability: float = Field(0.5, ge=0, le=1, description="How often the warm-up mirrors an image.")
    crop_padding: int = Field(
        10,
        ge=0,
        le=LARGEST_SIDE,
        description="Pixels of black around an image out of which the warm-up crops it again; 0 for none.",
    )
    erasing_probability: float = Field(0.5, ge=0, le=1, description="How often the warm-up erases a rectangle.")
    stage_to: AbsolutePath | None = Field(
        None,
        description="Folder on a disk of each machine to which images and projections are copied before training, "
        "once for all its workers, with a checksum; null: read where they are.",
    )
    loader_workers: int = Field(
        2, ge=0, le=256, description="Loader processes of each Ray worker; 0 loads in the worker itself."
    )


class MeshesConfig(Section):
    source: Literal["estimated", "folders", "parameters", "upright", "walkers"] = Field(
        "walkers",
        description="Where mesh projections come from: bodies that the project's own estimator finds on the images, "
        "folders as the GCL authors hand them out, per-image body parameters, generic upright walkers seen from a "
        "drawn side (a guess), or the walkers' own. auto: folders where `root` is given, parameters where "
        "`parameters` is, else estimated.",
    )
    root: AbsolutePath | None = Field(
        None, description="Folder with train/render, train/render_45, ... (source `folders`)."
    )
    parameters: AbsolutePath | None = Field(
        None, description="npz with body parameters per image, of SMPL or Anny (source `parameters`)."
    )
    smpl: AbsolutePath | None = Field(None, description="SMPL model file, .npz or .pkl; without it the body is Anny.")
    renderer: Annotated[str, one_of("renderer", ("auto", *RENDERERS))] = Field(
        "auto", description="auto: PyTorch3D where there is a GPU and it is installed, else Embree."
    )
    weights: AbsolutePath | None = Field(
        None, description="Weights of the estimator, .safetensors (source `estimated`); null: the package's."
    )
    unsure_above: float = Field(
        45.0,
        gt=0,
        description="Standard deviation in degrees of an estimated direction above which its image counts as unsure.",
    )
    skip_unsure: bool = Field(False, description="Leave unsure images out of the generation stage.")

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: object) -> object:
        """`auto` becomes what it stands for: the record of a run says where its projections came from."""
        if isinstance(values, dict) and values.get("source") == "auto":
            given = "folders" if values.get("root") else "parameters" if values.get("parameters") else "estimated"
            return {**values, "source": given}
        return values


class WalkersConfig(Section):
    preset: Literal["tiny", "demo", "medium", "source", "full"] = Field(
        "demo", description="Size of the rendered set; `medium` has the people to tell recipes apart."
    )
    seed: Seed = Field(
        1,
        description="Seed of people, cameras and poses; settings are tuned on seed 1 and reported on seed 11.",
    )
    tracks: bool = Field(
        False, description="Training photos are frames of walks past the cameras, with tracklet and time of each."
    )


class TrackingConfig(Section):
    enabled: bool = Field(True, description="Mirror the run to MLflow; metrics.jsonl and pictures are kept anyway.")
    uri: str | None = Field(
        None, description="MLflow's tracking server or database; null: SQLite in the folder of all runs."
    )
    experiment: str = Field("jgcl_ray", min_length=1, description="Name of the MLflow experiment.")
    parent: str | None = Field(None, description="MLflow run under which this one is shown, as a sweep's trials are.")
    pictures_every: int = Field(1, ge=1, description="Epochs from pictures (generated views, curves) to the next.")

    @field_validator("uri")
    @classmethod
    def _usable_anywhere(cls, uri: str | None) -> str | None:
        scheme, separator, rest = (uri or "").partition("://")
        if uri is not None and (not separator or scheme == "file"):
            raise ValueError("MLflow no longer writes to folders; give http://HOST:PORT or sqlite:////PATH/mlflow.db")
        if scheme == "sqlite" and rest.startswith("/"):  # the path of a database begins after this slash
            return f"sqlite:///{_absolute(Path(rest[1:]))}"
        return uri
