"""The losses against slow versions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from jgcl_ray.pretraining.losses import batch_hard, identity_losses
from jgcl_ray.pretraining.recipe import EncoderRecipe


def _unit(rows: int) -> torch.Tensor:
    return functional.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(2)), dim=1)


def test_batch_hard_takes_the_least_similar_own_and_the_most_similar_other() -> None:
    unit, identities = _unit(6), torch.tensor([0, 0, 0, 1, 1, 2])
    expected = 0.0
    for row in range(6):
        own = min(float(unit[row] @ unit[k]) for k in range(6) if identities[k] == identities[row])
        other = max(float(unit[row] @ unit[k]) for k in range(6) if identities[k] != identities[row])
        expected += math.log1p(math.exp(10 * (other - own))) / 6
    assert float(batch_hard(unit, identities, 10.0)) == pytest.approx(expected, rel=1e-5)


def test_the_softmax_is_over_cosines_with_smoothed_labels() -> None:
    recipe = EncoderRecipe(scale=7.0, smoothing=0.2, triplet_weight=0.5)
    embeddings, classifier, identities = 3 * _unit(4), 0.1 * torch.randn(6, 5), torch.tensor([5, 0, 0, 2])
    terms = identity_losses(embeddings, identities, classifier, recipe)
    expected = 0.0
    for embedding, identity in zip(embeddings, identities, strict=True):
        logits = 7.0 * torch.stack([functional.cosine_similarity(embedding, row, dim=0) for row in classifier])
        wanted = torch.full((6,), 0.2 / 6)
        wanted[identity] += 0.8
        expected -= float((wanted * logits.log_softmax(0)).sum()) / 4
    assert float(terms["identity"]) == pytest.approx(expected, rel=1e-5)
    unit = functional.normalize(embeddings, dim=1)
    assert float(terms["triplet"]) == pytest.approx(0.5 * float(batch_hard(unit, identities, recipe.triplet_scale)))
