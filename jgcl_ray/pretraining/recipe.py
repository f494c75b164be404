"""What pre-trained weights follow from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jgcl_ray.config import EncoderConfig
from jgcl_ray.estimator_training.cutouts import FIGURES


@dataclass(frozen=True)
class Recipe(ABC):
    """Everything but the minutes' worth of the machine, where the length is given in minutes."""

    SCORE: ClassVar[str]  # what is told of a batch
    height: int = 96  # pixels of the pictures
    width: int = 48
    figures: int = 3000  # people, in shards of sixty
    steps: int | None = None  # this many,
    minutes: float | None = None  # or as many as fit
    seed: int = 0

    @property
    def identities(self) -> int:
        """People of the shards that `figures` take."""
        return -(-self.figures // FIGURES) * FIGURES

    @property
    @abstractmethod
    def pictures(self) -> int:
        """That a step learns from."""

    def share(self, step: int, seconds: float) -> float:
        """Of the training that is done after so many steps and seconds, in [0, 1]."""
        done = step / self.steps if self.steps is not None else seconds / (60 * (self.minutes or 0))
        return min(done, 1.0)


@dataclass(frozen=True)
class EncoderRecipe(Recipe):
    """Of an identity encoder."""

    SCORE: ClassVar[str] = "rank-1 of the batch"
    backbone: str = "resnet18_ibn_a"
    init: str | None = None  # the encoder to go on from, by its file or its name; none: random weights
    people: int = 16  # P of a batch
    images: int = 4  # K, each before a camera of its own
    learning_rate: float = 7e-4  # Adam's; rises over the first twentieth, falls to zero by a cosine
    weight_decay: float = 5e-4
    easy: int = 300  # steps over which pictures become as hard as they get; with `init` they are from the start
    scale: float = 20.0  # of the cosines in the softmax
    smoothing: float = 0.1  # of the labels
    triplet_weight: float = 0.33
    triplet_scale: float = 10.0

    def hardness(self, step: int) -> float:
        """Of the pictures of a step, in [0, 1]."""
        return 1.0 if self.init is not None else min(1.0, step / self.easy)

    @property
    def pictures(self) -> int:
        """That a step learns from."""
        return self.people * self.images

    @property
    def architecture(self) -> EncoderConfig:
        """As the package's own recipes have it, without statistics for generated images, which a run adds."""
        return EncoderConfig.model_validate(
            {"backbone": self.backbone, "weights": "random", "separate_batch_norm": False}
        )


@dataclass(frozen=True)
class GeneratorRecipe(Recipe):
    """Of a generator that refines views along the surface."""

    SCORE: ClassVar[str] = "dB over the drafts"
    init: str | None = None  # file of a generator to start from
    photos: int = 6  # of a batch,
    views: int = 3  # and true views of each
    learning_rate: float = 1e-3  # Adam's; rises over the first twentieth, falls to zero by a cosine
    averaging: float = 0.998  # of the weights that are kept
    on_person: float = 2.0  # weight of a pixel of the person, over that of the backdrop
    feature_weight: float = 0.1  # of the difference between maps of a frozen encoder
    features: str = "rendered"  # that encoder, a ResNet
    adversarial_from: float = 0.35  # share of the training after which views are judged
    adversarial_weight: float = 0.005
    judge_width: int = 24  # channels of the discriminator's first layers
    judge_scales: int = 2
    judge_rate: float = 4e-4
    penalty_weight: float = 0.3  # of the judge's squared gradient at true views,
    penalty_every: int = 16  # steps

    @property
    def pictures(self) -> int:
        """That a step learns from."""
        return self.photos * self.views
