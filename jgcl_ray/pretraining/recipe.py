"""What an encoder's weights follow from."""

from __future__ import annotations

from dataclasses import dataclass

from jgcl_ray.config import EncoderConfig
from jgcl_ray.estimator_training.cutouts import FIGURES


@dataclass(frozen=True)
class EncoderRecipe:
    """Everything but the minutes' worth of the machine, where the length is given in minutes."""

    backbone: str = "resnet18"
    init: str | None = None  # the encoder to go on from, by its file or its name; none: random weights
    height: int = 96  # pixels of the input
    width: int = 48
    figures: int = 3000  # people, in shards of sixty
    steps: int | None = None  # this many,
    minutes: float | None = None  # or as many as fit
    people: int = 16  # P of a batch
    images: int = 4  # K, each before a camera of its own
    learning_rate: float = 7e-4  # Adam's; rises over the first twentieth, falls to zero by a cosine
    weight_decay: float = 5e-4
    easy: int = 300  # steps over which pictures become as hard as they get; with `init` they are from the start
    scale: float = 20.0  # of the cosines in the softmax
    smoothing: float = 0.1  # of the labels
    triplet_weight: float = 0.33
    triplet_scale: float = 10.0
    seed: int = 0

    def hardness(self, step: int) -> float:
        """Of the pictures of a step, in [0, 1]."""
        return 1.0 if self.init is not None else min(1.0, step / self.easy)

    @property
    def identities(self) -> int:
        """People of the shards that `figures` take."""
        return -(-self.figures // FIGURES) * FIGURES

    @property
    def architecture(self) -> EncoderConfig:
        """As the package's own recipes have it, without statistics for generated images, which a run adds."""
        return EncoderConfig.model_validate(
            {"backbone": self.backbone, "weights": "random", "separate_batch_norm": False}
        )

    def share(self, step: int, seconds: float) -> float:
        """Of the training that is done after so many steps and seconds, in [0, 1]."""
        done = step / self.steps if self.steps is not None else seconds / (60 * (self.minutes or 0))
        return min(done, 1.0)
