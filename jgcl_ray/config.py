"""The configuration: one root, a section per part, every field with a sentence.

A run's YAML holds only what differs from the defaults here; `section.field=value` on the command line comes last.
`python -m jgcl_ray.config` prints every field with its default and its sentence (configs/base.yaml).
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from jgcl_ray.errors import UserError, exit_on_user_error

# Ray workers run in another folder, often on another machine: a path is made absolute where it is typed.
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
# Where the GCL paper and its authors' implementation compute different things.
Formulation = Literal["paper", "official"]


class Section(BaseModel):
    """A frozen group of fields; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


class RunConfig(Section):
    name: str = Field("walkers", pattern=r"^[A-Za-z0-9][\w.-]*$", description="Name of the run's folder.")
    root: AbsolutePath = Field(Path("runs"), validate_default=True, description="Folder of all runs.")
    seed: int = Field(1, ge=0, description="Seed of every random draw of the run.")


class DataConfig(Section):
    name: Literal["market1501", "dukemtmc_reid", "msmt17", "folder", "walkers"] = Field(
        "walkers", description="Which data set, or `folder` for your own crops without labels."
    )
    root: AbsolutePath | None = Field(
        None, description="Folder of the data set; `walkers` renders into a cache when it is not given."
    )
    height: int = Field(256, ge=16, description="Height in pixels to which images are resized.")
    width: int = Field(128, ge=8, description="Width in pixels to which images are resized.")
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
    flip_probability: float = Field(0.5, ge=0, le=1, description="How often the warm-up mirrors an image.")
    crop_padding: int = Field(
        10, ge=0, description="Pixels of black around an image out of which the warm-up crops it again; 0 for none."
    )
    erasing_probability: float = Field(0.5, ge=0, le=1, description="How often the warm-up erases a rectangle.")
    loader_workers: int = Field(
        2, ge=0, description="Loader processes of each Ray worker; 0 loads in the worker itself."
    )


class MeshesConfig(Section):
    source: Literal["folders", "parameters", "walkers"] = Field(
        "walkers",
        description="Where mesh projections come from: folders as the GCL authors hand them out, per-image SMPL "
        "parameters, or the walkers' own.",
    )
    root: AbsolutePath | None = Field(
        None, description="Folder with train/render, train/render_45, ... (source `folders`)."
    )
    parameters: AbsolutePath | None = Field(
        None, description="npz with SMPL parameters per image (source `parameters`)."
    )
    smpl: AbsolutePath | None = Field(None, description="SMPL model file, .npz or .pkl; without it the body is Anny.")
    renderer: Literal["auto", "embree", "pytorch3d"] = Field(
        "auto", description="auto: PyTorch3D where there is a GPU and it is installed, else Embree."
    )


class WalkersConfig(Section):
    preset: Literal["demo", "full"] = Field("demo", description="Size of the rendered set.")
    seed: int = Field(1, ge=0, description="Seed of people, cameras and poses.")


class MemoryBankConfig(Section):
    temperature: float = Field(0.04, gt=0, description="Temperature of the contrast between views and memory.")
    negatives: int = Field(
        8192, ge=1, description="Negatives drawn for each image, all there are if fewer have another label."
    )
    momentum: float = Field(0.2, ge=0, lt=1, description="Share of a row that stays when its image is seen.")
    sharded: bool = Field(False, description="Spread the rows over the workers instead of a copy on each.")


class CentroidMemoryConfig(Section):
    temperature: float = Field(0.05, gt=0, description="Temperature of the contrast against cluster centroids.")
    momentum: float = Field(0.1, ge=0, lt=1, description="Share of a centroid that stays at each update.")
    query: Literal["each", "hardest", "mean"] = Field(
        "each",
        description="What a centroid takes from its images in a batch: one after the other, the least similar one, "
        "or their mean.",
    )


class EncoderConfig(Section):
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet50_ibn_a"] = Field(
        "resnet50", description="Backbone of the identity encoder; stride of its last stage 1."
    )
    head: Literal["linear", "pool"] = Field(
        "linear",
        description="Embedding: pool, Linear, batch norm (width below), or pool, batch norm (backbone's width).",
    )
    embedding: int = Field(512, ge=1, description="Width D of the embedding, for the head `linear`.")
    pooling: Literal["average", "gem"] = Field("average", description="Pooling of the last map for the embedding.")
    weights: Literal["imagenet", "random"] = Field("imagenet", description="What the backbone starts from.")
    weights_file: AbsolutePath | None = Field(
        None, description="File with ImageNet weights under torchvision's names; null: downloaded once."
    )
    separate_batch_norm: bool = Field(
        True,
        description="Running statistics of their own for generated images; false mixes them with the real ones'.",
    )


class GeneratorConfig(Section):
    width: int = Field(
        16, ge=1, description="Channels of the structure encoder's first layer; all others scale with it."
    )
    style_width: int = Field(512, ge=1, description="Hidden width of the networks that give the AdaIN parameters.")
    fold_upsampling: bool = Field(
        True, description="Fold up-sampling into the convolution after it: the same but for rounding, in less time."
    )


class DiscriminatorConfig(Section):
    width: int = Field(32, ge=1, description="Channels of the discriminator's first layers.")
    scales: int = Field(3, ge=1, description="How many times the image is judged, each time at half the size.")


class LossesConfig(Section):
    """Weights under the names of the terms in the log; a term of weight 0 is not computed."""

    formulation: Formulation = Field(
        "paper", description="Of feature and contrast losses: the paper's, or that of its authors' implementation."
    )
    image_reconstruction: float = Field(5.0, ge=0, description="Weight of |x_rec - x|.")
    image_cycle: float = Field(5.0, ge=0, description="Weight of |x_cyc - x|.")
    feature_reconstruction: float = Field(5.0, ge=0, description="Weight of |code(x_rec) - code(x)| (`official`).")
    feature_novel: float = Field(5.0, ge=0, description="Weight of |code(x_nv) - code(x)| (`paper`).")
    feature_cycle: float = Field(5.0, ge=0, description="Weight of |code(x_cyc) - code(x)|.")
    adversarial_reconstruction: float = Field(1.0, ge=0, description="Weight of the generator's LSGAN loss on x_rec.")
    adversarial_novel: float = Field(1.0, ge=0, description="Weight of the generator's LSGAN loss on x_nv.")
    adversarial_cycle: float = Field(1.0, ge=0, description="Weight of the generator's LSGAN loss on x_cyc.")
    contrast_image: float = Field(1.0, ge=0, description="Weight of L_vi (joint stage).")
    contrast_views: float = Field(1.0, ge=0, description="Weight of L_vi' (joint stage).")
    contrast_novel: float = Field(1.0, ge=0, description="Weight of L_vi'' (joint stage).")
    discriminator_reconstruction: float = Field(
        1.0, ge=0, description="Weight of the discriminator's loss on x_rec and x, penalty included."
    )
    discriminator_novel: float = Field(1.0, ge=0, description="Weight of the discriminator's loss on x_nv and x.")
    discriminator_cycle: float = Field(1.0, ge=0, description="Weight of the discriminator's loss on x_cyc and x.")
    gradient_penalty: float = Field(
        0.01, ge=0, description="Weight, inside each discriminator loss, of the squared gradient on real images."
    )


class OptimConfig(Section):
    generator_lr: float = Field(1e-4, gt=0, description="Adam, of structure encoder and generator.")
    discriminator_lr: float = Field(1e-4, gt=0, description="Adam, of the discriminator.")
    adam_betas: tuple[float, float] = Field((0.0, 0.999), description="Adam's betas.")
    encoder_lr: float = Field(
        3.5e-4, gt=0, description="SGD with Nesterov momentum, of the encoder in the joint stage."
    )
    encoder_momentum: float = Field(0.9, gt=0, lt=1, description="Nesterov momentum of the encoder's SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty in all optimisers.")


class PrecisionConfig(Section):
    dtype: Literal["float32", "bf16"] = Field(
        "float32", description="bf16: convolutions and matrix products by autocast; norms and losses stay in float32."
    )
    channels_last: bool = Field(True, description="Keep channels innermost in memory.")
    compile: bool = Field(False, description="Compile the networks by torch.compile on first use.")


class PseudoLabelsConfig(Section):
    method: Literal["dbscan", "hdbscan"] = Field(
        "dbscan", description="How the graph of distances is cut in clusters."
    )
    distance: Literal["jaccard", "camera_aware_jaccard"] = Field(
        "jaccard", description="k-reciprocal Jaccard distance, or CA-Jaccard, which corrects it for the camera."
    )
    k1: int = Field(30, ge=1, description="Nearest rows whose reciprocity counts, the row itself included.")
    k2: int = Field(6, ge=1, description="Nearest rows over which a row's weights are averaged, itself included.")
    k1_intra: int = Field(5, ge=1, description="CA-Jaccard: other rows of the same camera whose reciprocity counts.")
    k1_inter: int = Field(20, ge=1, description="CA-Jaccard: rows of other cameras whose reciprocity counts.")
    k2_intra: int = Field(3, ge=1, description="CA-Jaccard: rows of the same camera, itself included, averaged over.")
    k2_inter: int = Field(3, ge=0, description="CA-Jaccard: rows of other cameras averaged over.")
    rho: float = Field(
        0.002, gt=0, le=1, description="DBSCAN's eps is the mean of this share of all pairs, the nearest ones."
    )
    eps: float | None = Field(None, gt=0, lt=1, description="Fixed eps of DBSCAN instead of the one that rho gives.")
    min_samples: int = Field(
        4, ge=1, description="Rows within eps, itself included, that make a core row; smallest cluster of HDBSCAN."
    )
    single_camera: Literal["keep", "drop", "weigh"] = Field(
        "keep", description="Clusters of low camera entropy: keep, make outliers, or weigh by that entropy."
    )
    min_camera_entropy: float = Field(
        0.0, ge=0, description="`drop` makes outliers of clusters up to this entropy in nats; 0: one camera only."
    )
    neighbours: Literal["auto", "exact", "hnsw", "ivf"] = Field(
        "auto", description="Search for nearest rows; auto: exact up to 250,000 rows, else ivf."
    )
    min_recall: float = Field(
        0.98, gt=0, le=1, description="Share of true neighbours that an approximate search must find in a sample."
    )
    num_cpus: float = Field(1, ge=0, description="CPUs of the clustering actor; 0: every core of its node.")
    num_gpus: float = Field(0, ge=0, description="GPUs of the clustering actor, or a fraction of one.")
    background: bool = Field(
        False,
        validation_alias=AliasChoices("async", "background"),
        description="Also spelled `async`: cluster while an epoch trains on the labels before.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> PseudoLabelsConfig:
        if self.k2 > self.k1:
            raise ValueError(f"k2 = {self.k2} is more than k1 = {self.k1}; lower k2")
        if self.k2_intra > self.k1_intra + 1 or self.k2_inter > self.k1_inter:
            raise ValueError("CA-Jaccard averages over more rows (k2_*) than it looks at (k1_*); lower k2_*")
        return self


class Config(Section):
    """The root: one section per part."""

    run: RunConfig = Field(default_factory=RunConfig, description="The run itself.")
    data: DataConfig = Field(default_factory=DataConfig, description="Images.")
    meshes: MeshesConfig = Field(default_factory=MeshesConfig, description="Bodies and their projections.")
    walkers: WalkersConfig = Field(default_factory=WalkersConfig, description="The rendered benchmark.")
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


def configs_folder() -> Path:
    """Folder of the shipped YAML files: inside the installed package, or the top level of a checkout."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "configs"


def find_config(source: str | Path) -> Path:
    """Path of a YAML file given by path, or by name (`walkers`, `configs/walkers.yaml`) among the shipped ones."""
    given = Path(source).expanduser()
    if given.is_file():
        return given
    shipped = configs_folder() / f"{given.name.removesuffix('.yaml')}.yaml"
    if given.parent in (Path(), Path("configs")) and shipped.is_file():
        return shipped
    known = ", ".join(sorted(path.stem for path in configs_folder().glob("*.yaml")))
    raise UserError(f"no config file {str(source)!r}: give a path, or the name of a shipped one ({known})")


def load_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, then the YAML file `source` (path or shipped name), then `section.field=value` overrides.

    Raises UserError, in one line that names the key, the value and what is allowed.
    """
    tree: dict[str, Any] = _read_yaml(find_config(source)) if source is not None else {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{override!r} is not of the form section.field=value")
        _set(tree, key.strip().split("."), _parse_value(key, text))
    return validate(tree)


def validate(tree: Mapping[str, Any]) -> Config:
    """A nested mapping as a Config; UserError in one line otherwise."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(_one_line(first) + more) from None


def to_yaml(config: Config) -> str:
    """The whole merged configuration as YAML that `load_config` reads back to an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds a {type(tree).__name__}, expected sections with fields")
    return tree


def _parse_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{key}={text}: the value is not YAML; quote it") from None


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for depth, name in enumerate(path[:-1]):
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UserError(f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is a field, not a section")
        tree = inner
    tree[path[-1]] = value


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
        return f"{key}={error['input']!r}: no such field; {meant}known: {', '.join(known)}"
    return f"{key}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


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
    with exit_on_user_error():
        sys.stdout.write(describe())
