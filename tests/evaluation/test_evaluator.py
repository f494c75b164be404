"""What training calls to score its encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jgcl_ray.data.datasets import Split
from jgcl_ray.evaluation import evaluator
from jgcl_ray.evaluation.evaluator import evaluate


@pytest.mark.parametrize(("protocol", "mAP"), [("market", 0.5), ("cross_camera", 1.0)])
def test_protocol_is_the_one_given(monkeypatch: pytest.MonkeyPatch, protocol: str, mAP: float) -> None:
    """A stranger by the query's own camera is nearer than the match."""
    features = {1: torch.tensor([[0.0, 1.0]]), 2: torch.tensor([[0.1, 1.0], [0.2, 1.0]])}
    monkeypatch.setattr(evaluator, "extract_features", lambda encoder, batches, images: features[images])
    query = Split(Path("/"), ("a",), np.array([1]), np.array([1]))
    gallery = Split(Path("/"), ("b", "c"), np.array([2, 1]), np.array([1, 2]))
    scores = evaluate(torch.nn.Identity(), query, gallery, [], [], protocol)  # type: ignore[arg-type]
    assert (scores.mAP, scores.rank1, scores.queries) == (mAP, float(mAP == 1), 1)
