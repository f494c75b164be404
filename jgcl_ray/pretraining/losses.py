"""What tells known people apart: softmax over all of them, and the hardest pairs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from jgcl_ray.pretraining.recipe import EncoderRecipe


def identity_losses(
    embeddings: Tensor, identities: Tensor, classifier: Tensor, recipe: EncoderRecipe
) -> dict[str, Tensor]:
    """The terms, each a mean over the batch.

    embeddings: (B, D), of any length; identities: (B,) int64; classifier: (N, D), a direction for each person.
    """
    unit = functional.normalize(embeddings, dim=1)
    logits = recipe.scale * unit @ functional.normalize(classifier, dim=1).T
    return {
        "identity": functional.cross_entropy(logits, identities, label_smoothing=recipe.smoothing),
        "triplet": recipe.triplet_weight * batch_hard(unit, identities, recipe.triplet_scale),
    }


def batch_hard(unit: Tensor, identities: Tensor, scale: float) -> Tensor:
    """Soft margin between each picture's least similar one of the same person and the most similar one of another.

    log(1 + exp(scale (s_other - s_own))) by cosines s, a mean over the batch (Hermans et al. 2017, eq. 5, with
    cosines in the place of distances). unit: (B, D), rows of length 1; identities: (B,).
    """
    similarity = unit @ unit.T
    same = identities[:, None] == identities[None]
    own = similarity.masked_fill(~same, torch.inf).amin(1)
    other = similarity.masked_fill(same, -torch.inf).amax(1)
    return functional.softplus(scale * (other - own)).mean()
