"""What a frozen E_id says of the photos: the same whenever they are seen, as stage 2 does not augment them."""

from __future__ import annotations

import torch

from jgcl_ray.models.encoder import EncoderOutput

LARGEST = 2**30  # bytes of memory on each worker


class SeenPhotos:
    """Appearance codes and embeddings of the N training images that one worker has seen, on the CPU.

    Only whole batches come from here: parts of one would have E_id see batches of other sizes than a run that is
    resumed does, with other rounding. Sets of which all rows take more than LARGEST bytes are not kept at all.
    """

    def __init__(self, images: int) -> None:
        self._known = torch.zeros(images, dtype=torch.bool)
        self._rows: EncoderOutput | None = None  # (N, 4C) and (N, D); made when the first batch comes

    def of(self, index: torch.Tensor) -> EncoderOutput | None:
        """Of rows `index` (B,), on their device; None unless all of them were seen."""
        rows = index.cpu()
        if self._rows is None or not self._known[rows].all():
            return None
        return EncoderOutput(self._rows.code[rows].to(index.device), self._rows.embedding[rows].to(index.device))

    def keep(self, index: torch.Tensor, output: EncoderOutput) -> None:
        """`output` of rows `index` (B,), without its graph."""
        code, embedding = output.code.detach().cpu(), output.embedding.detach().cpu()
        if self._rows is None:
            row = code[0].numel() * code.element_size() + embedding[0].numel() * embedding.element_size()
            if len(self._known) * row > LARGEST:
                return
            made = (each.new_empty(len(self._known), each.shape[1]) for each in (code, embedding))
            self._rows = EncoderOutput(*made)
        rows = index.cpu()
        self._rows.code[rows], self._rows.embedding[rows] = code, embedding
        self._known[rows] = True
