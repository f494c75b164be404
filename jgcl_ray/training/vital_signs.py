"""Vital signs of a run, once an epoch: whether its parts do anything, in numbers and in lines of advice.

Views and discriminator are looked at on a sample of training images that is the same in every epoch, each turned to
the same side. Letters: M rows of the sample, N training images, D width of the embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from jgcl_ray.batches import PairedBatch
from jgcl_ray.config import Config
from jgcl_ray.data.loaders import Loader, paired_loader
from jgcl_ray.data.samplers import Draw
from jgcl_ray.data.surface_views import ViewedImages
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.distributed import gather_rows, rank, sum_over_workers
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.networks import Networks
from jgcl_ray.pseudo_labels.extract import in_eval_mode
from jgcl_ray.training.precision import autocast, laid_out
from jgcl_ray.training.session import Session

logger = logging.getLogger(__name__)

SAMPLED = 128  # images: a tenth of a second on a GPU, about two seconds on a CPU core at 96 x 48
USUAL = 10  # batches of an epoch over which LEAST_MOVE is asked for; of fewer, as much less
LEAST_MARGIN, LEAST_MOVE, LEAST_RANK1 = 0.05, 0.003, 0.5  # below which a part sleeps; the last one times the photos'


@dataclass(frozen=True, eq=False)
class ViewSigns:
    """Of a batch of images and the views that were generated of them, on one worker."""

    embedding: torch.Tensor  # (B, D) of the views, L2-normalised
    moments: torch.Tensor  # (2, 3) float64: how many, sum, sum of squares of horizontal differences; photos, views
    verdicts: torch.Tensor  # (2, 2) float64: how many images, sum of the discriminator's scores; photos, views; or 0


class VitalSigns:
    """Of one run, on one worker; all workers measure at the same time and get the same numbers."""

    def __init__(self, session: Session) -> None:
        self.session, self.config = session, session.config
        self._before: torch.Tensor | None = None  # the encoder's weights as the epoch began
        self._advised: set[tuple[str, str]] = set()
        self._loader: Loader[PairedBatch] | None = None

    def epoch_begins(self) -> None:
        """Keep the encoder's weights, to see how far they move."""
        self._before = weights_of(self.session.networks.encoder)

    def state(self) -> torch.Tensor | None:
        """What a checkpoint inside an epoch needs."""
        return self._before

    def load_state(self, state: torch.Tensor | None) -> None:
        """What `state` gave."""
        self._before = None if state is None else state.to(self.session.device)

    def measure(
        self,
        stage: str,
        step: int,
        *,
        trains_encoder: bool,
        uses_generator: bool,
        surface_views: ViewedImages | None = None,
        decay: float = 1.0,
        batches: int = USUAL,
    ) -> dict[str, float]:
        """Numbers of the epoch that ends, by their names in the run log; advice goes to the log. A collective.

        uses_generator: whether the generator works in the stage; surface_views: what else it learns views from;
        decay: the encoder's learning rate over that of the stage's first epoch; batches: of the epoch.
        """
        numbers: dict[str, float] = {}
        if trains_encoder and self._before is not None:
            numbers["encoder_moved"] = relative_change(self._before, weights_of(self.session.networks.encoder))
        self._before = None
        if uses_generator or surface_views is not None:
            with self.session.timed("vital_signs"):
                numbers |= self._of_views(step, surface_views)
        for part, words in advice(numbers, decay * min(1.0, batches / USUAL)).items():
            if rank() == 0 and (stage, part) not in self._advised:
                logger.warning("%s: %s", stage, words)
            self._advised.add((stage, part))
        return numbers

    def _of_views(self, step: int, surface_views: ViewedImages | None) -> dict[str, float]:
        rows, networks = sampled_rows(len(self.session.data.images)), self.session.networks
        mine = rows[self.session.shard.index :: self.session.shard.count]
        if surface_views is None:
            found = [view_signs(networks, batch, self.config) for batch in self._batches(mine)]
        else:
            draws = self._draws(mine)
            found = [surface_view_signs(networks.encoder, surface_views, part, self.config) for part in draws]
        width = self.session.networks.encoder.embedding_width
        empty = torch.empty(0, width, device=self.session.device)
        views = gather_rows(torch.cat([empty, *(each.embedding for each in found)])).cpu()
        order = gather_rows(torch.from_numpy(mine)).numpy()
        sums = torch.zeros(10, dtype=torch.float64)
        for each in found:
            sums += torch.cat([each.moments.flatten(), each.verdicts.flatten()]).cpu()
        sums = sum_over_workers(sums)
        moments, verdicts = sums[:6].view(2, 3), sums[6:].view(2, 2)
        numbers = {"view_sharpness": sharpness_ratio(moments)}
        if surface_views is None:
            photo, view = (verdicts[:, 1] / verdicts[:, 0]).tolist()
            numbers["discriminator_margin"] = photo - view
        labels = self.session.labels
        if labels is not None:
            numbers |= rank1(views, order, self.session.features(step), labels.labels)
        return numbers

    def _batches(self, rows: np.ndarray) -> Iterator[PairedBatch]:
        if self._loader is None:
            data, projections = self.session.data, self.session.data.projections
            assert projections is not None
            in_process = self.config.data.model_copy(update={"loader_workers": 0})
            self._loader = paired_loader(data.images, projections, in_process, self.config.run.seed)
        for draws in self._draws(rows):
            yield self._loader.source.batch(draws)

    def _draws(self, rows: np.ndarray) -> Iterator[list[Draw]]:
        size = self.config.eval.batch_size
        for start in range(0, len(rows), size):
            yield [Draw(int(row)) for row in rows[start : start + size]]


@torch.no_grad()
def view_signs(networks: Networks, batch: PairedBatch, config: Config) -> ViewSigns:
    """The views that the generator makes of a batch, as encoder and discriminator see them."""
    device = next(networks.encoder.parameters()).device
    E_id, E_str, G, D = networks.encoder, networks.structure_encoder, networks.generator, networks.discriminator
    with in_eval_mode(E_id), autocast(config.precision, device):
        photo = laid_out(batch.image.to(device), config.precision)
        view = G(E_str(laid_out(batch.mesh_novel.to(device), config.precision)), E_id(photo).code)
        embedding = F.normalize(E_id(view, "generated").embedding.float(), dim=1)
        maps = D(torch.cat([photo, view.to(photo.dtype)]))
    verdicts = torch.stack([each.double().mean((1, 2, 3)) for each in maps]).mean(0)  # (2B,), scales alike
    moments = torch.stack([_moments(photo), _moments(view)])
    per_kind = torch.stack([torch.stack([torch.full_like(v.sum(), len(v)), v.sum()]) for v in verdicts.chunk(2)])
    return ViewSigns(embedding, moments, per_kind)


@torch.no_grad()
def surface_view_signs(
    encoder: IdentityEncoder, views: ViewedImages, draws: Sequence[Draw], config: Config
) -> ViewSigns:
    """The views along the surface of some draws, not augmented, as the encoder sees them; nobody judges them."""
    device = next(encoder.parameters()).device
    photo = normalise_images([views.images.load(draw.row) for draw in draws]).to(device)
    view = normalise_images(views.views(draws)[0]).to(device)
    with in_eval_mode(encoder), autocast(config.precision, device):
        seen = encoder(laid_out(view, config.precision), "generated").embedding
    moments = torch.stack([_moments(photo), _moments(view)])
    return ViewSigns(F.normalize(seen.float(), dim=1), moments, torch.zeros(2, 2, dtype=torch.float64))


def sampled_rows(images: int, most: int = SAMPLED) -> np.ndarray:
    """Rows of the sample, (M,) int64: spread evenly over the data set, whose order is by person or camera."""
    return np.unique(np.linspace(0, images - 1, min(most, images)).round().astype(np.int64))


def rank1(views: torch.Tensor, rows: np.ndarray, features: torch.Tensor, labels: np.ndarray) -> dict[str, float]:
    """`view_rank1` and `photo_rank1`: how often the nearest row of another image bears the image's pseudo label.

    views (M, D): embeddings of the views of rows (M,); features (N, D), labels (N,) of all images; all normalised.
    Images without a label, or alone under theirs, are left out; empty where none remains.
    """
    shared = np.flatnonzero(np.bincount(labels[labels >= 0], minlength=1) > 1)
    kept = np.isin(labels[rows], shared)
    if not kept.any():
        return {}
    rows, index = rows[kept], torch.from_numpy(rows[kept])
    found = {}
    for name, query in (("view_rank1", views[torch.from_numpy(kept)]), ("photo_rank1", features[index])):
        similarity = query @ features.T
        similarity[torch.arange(len(index)), index] = -torch.inf
        nearest = similarity.argmax(1).numpy()
        found[name] = float((labels[nearest] == labels[rows]).mean())
    return found


def sharpness_ratio(moments: torch.Tensor) -> float:
    """Standard deviation of the views' horizontal differences over that of the photos'; moments as of ViewSigns."""
    count, total, squares = moments.unbind(1)
    photos, views = (squares / count - (total / count).square()).clamp(min=0).sqrt().tolist()
    return views / photos if photos > 0 else float("nan")


def weights_of(module: nn.Module) -> torch.Tensor:
    """All parameters in one row, a copy."""
    return torch.cat([parameter.detach().float().flatten() for parameter in module.parameters()])


def relative_change(before: torch.Tensor, after: torch.Tensor) -> float:
    """L2 length of the difference over that of `before`."""
    return float((after - before).norm() / before.norm())


def advice(numbers: Mapping[str, float], usual: float = 1.0) -> dict[str, str]:
    """By part that sleeps, one line: what was seen, what it means, what to try. Of the numbers that are there.

    usual: share of the usual steps times rate that the epoch had: at a tenth of its rate an encoder that moves a
    tenth as far is awake.
    """
    lines = {}
    margin = numbers.get("discriminator_margin")
    if margin is not None and margin < LEAST_MARGIN:
        lines["discriminator"] = (
            f"the discriminator judges nothing (it scores photos {margin:.3f} above views; less than {LEAST_MARGIN} "
            "is chance): set discriminator.initialisation=kaiming, or raise optim.discriminator_lr or "
            "discriminator.width"
        )
    moved = numbers.get("encoder_moved")
    if moved is not None and moved < LEAST_MOVE * usual:
        lines["encoder"] = (
            f"the encoder learns nothing (its weights moved by {moved:.2%} in the epoch, less than "
            f"{LEAST_MOVE * usual:.2%}): raise its learning rate"
        )
    views, photos = numbers.get("view_rank1"), numbers.get("photo_rank1")
    if views is not None and photos is not None and views < LEAST_RANK1 * photos:
        lines["views"] = (
            f"the views lose the person (the nearest other image bears the same pseudo label for {views:.0%} of "
            f"them, for {photos:.0%} of the photos): give the generator more epochs before views teach the encoder"
        )
    return lines


def _moments(images: torch.Tensor) -> torch.Tensor:
    steps = images[..., 1:].double() - images[..., :-1].double()
    return torch.stack([torch.full_like(steps.sum(), steps.numel()), steps.sum(), steps.square().sum()])
