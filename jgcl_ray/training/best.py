"""Which checkpoint of a run is the best: every candidate compared by one score, which no pseudo label enters.

Candidates are the encoder after each evaluated epoch of a stage that trains it, and the encoder as it was before the
first such stage, unless it was random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jgcl_ray.config import Config


@dataclass
class Best:
    """The best checkpoint so far."""

    by: str | None  # name of the score that is compared; None: there is none worth trusting, the last one stays
    score: float = float("-inf")
    name: str = ""  # of the checkpoint's folder

    def offer(self, scores: Mapping[str, float], name: str) -> bool:
        """Whether the candidate `name` takes the place of the best."""
        value = float("-inf") if self.by is None else scores.get(self.by)
        if value is None or (self.by is not None and not value > self.score):
            return False
        self.score, self.name = value, name
        return True


def chooser(config: Config, has_validation_list: bool) -> str | None:
    """Name of the score that chooses the best checkpoint; None, without labels: the last one is taken.

    No score without labels that was tried follows the truth well enough (benchmarks/bm_validation.py), split-half of
    tracklets among them: it rose where mAP fell (benchmarks/README.md, "Tracklets").
    """
    if config.eval.select_on == "test":
        return "mAP"
    return "validation_mAP" if has_validation_list else None


def starts_trained(config: Config, stage: int) -> bool:
    """Whether the encoder comes to a stage (its index in run.stages) trained, but by no stage of this run."""
    trained_here = any(name != "generation" and config.epochs_of(name) for name in config.run.stages[:stage])
    return not trained_here and (config.run.init_from is not None or config.encoder.weights != "random")
