"""Embeddings of all training images, in the order of the data set, by all workers.

Letters: B images in a batch, N training images, D embedding width, Q width of the appearance code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from jgcl_ray.batches import ImageBatch
from jgcl_ray.distributed import gather_rows, row_counts, sum_over_workers


@torch.no_grad()
def extract_features(
    encoder: nn.Module,
    batches: Iterable[ImageBatch],
    num_rows: int,
    codes: CodeMoments | None = None,
    mirrored: bool = False,
) -> torch.Tensor:
    """L2-normalised embeddings of all N = num_rows images, (N, D) float32 on the CPU, the same on every worker.

    encoder: its output has `embedding` (B, D); it runs in eval mode on its own device and is left in the modes it was
    in. batches: this worker's shard; the shards of all workers hold every row once, in any order. codes: takes the
    appearance codes of the shard. mirrored: each row is the mean of the embeddings of image and mirror image, all
    three of unit length. A collective. Raises RuntimeError where a row is missing or came twice.
    """
    device = next(encoder.parameters()).device
    embeddings, rows = [], []
    with in_eval_mode(encoder):
        for batch in batches:
            image = batch.image.to(device, non_blocking=True)
            output = encoder(image)
            embedding = F.normalize(output.embedding.float(), dim=1)
            if mirrored:
                embedding = embedding + F.normalize(encoder(image.flip(3)).embedding.float(), dim=1)
                embedding = F.normalize(embedding, dim=1)
            embeddings.append(embedding)
            if codes is not None:
                codes.add(output.code)
            rows.append(batch.index.to(device))
    # A worker without rows learns the width from the others.
    width = max(row_counts(embeddings[0][0] if embeddings else torch.empty(0)))
    joined = torch.cat([torch.empty(0, width, device=device), *embeddings])
    order = torch.cat([torch.empty(0, dtype=torch.int64, device=device), *rows])
    return _in_order(gather_rows(joined).cpu(), gather_rows(order).cpu(), num_rows)


class CodeMoments:
    """Mean and deviation of the appearance codes of all images, gathered while their embeddings are extracted."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._moments = torch.zeros(3, width, dtype=torch.float64, device=device)  # how many, sum, sum of squares

    def add(self, code: torch.Tensor) -> None:
        """code (B, Q)."""
        code = code.double()
        self._moments += torch.stack([torch.ones_like(code), code, code.square()]).sum(1)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation over the rows of all workers, (Q,) float32 each. A collective."""
        count, total, squares = sum_over_workers(self._moments)
        mean = total / count
        return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """While it lasts; afterwards every part is in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


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
