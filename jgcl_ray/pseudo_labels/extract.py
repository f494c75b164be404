"""Embeddings of all training images, in the order of the data set, by all workers.

Letters: B images in a batch, N training images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from jgcl_ray.batches import ImageBatch
from jgcl_ray.distributed import gather_rows, row_counts


@torch.no_grad()
def extract_features(encoder: nn.Module, batches: Iterable[ImageBatch], num_rows: int) -> torch.Tensor:
    """L2-normalised embeddings of all N = num_rows images, (N, D) float32 on the CPU, the same on every worker.

    encoder: its output has `embedding` (B, D); it runs in eval mode on its own device and is left in the modes it was
    in. batches: this worker's shard; the shards of all workers hold every row once, in whatever order. A collective.
    Raises RuntimeError where a row is missing or came twice.
    """
    device = next(encoder.parameters()).device
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        embeddings, rows = [], []
        for batch in batches:
            embedding = encoder(batch.image.to(device, non_blocking=True)).embedding
            embeddings.append(F.normalize(embedding.float(), dim=1))
            rows.append(batch.index.to(device))
    finally:
        for module in training:
            module.training = True
    # A worker without rows learns the width from the others.
    width = max(row_counts(embeddings[0][0] if embeddings else torch.empty(0)))
    joined = torch.cat([torch.empty(0, width, device=device), *embeddings])
    order = torch.cat([torch.empty(0, dtype=torch.int64, device=device), *rows])
    return _in_order(gather_rows(joined).cpu(), gather_rows(order).cpu(), num_rows)


def _in_order(embeddings: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    seen = torch.bincount(rows, minlength=num_rows)
    wrong = torch.nonzero(seen != 1).flatten()
    if len(seen) > num_rows or len(wrong):
        raise RuntimeError(
            f"feature extraction: {len(wrong)} of {num_rows} rows did not arrive exactly once, the first is row "
            f"{int(wrong[0])}, {int(seen[wrong[0]])} times; the shards of the workers overlap or leave rows out"
        )
    features = torch.empty_like(embeddings)
    features[rows] = embeddings
    return features
