"""View contrast: an image, its novel view and the memory bank (GCL, arXiv 2012.09071, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from jgcl_ray.config import Formulation
from jgcl_ray.memories.instances import ContrastDraw, MemoryBank


def view_contrast(
    f: torch.Tensor,
    f_novel: torch.Tensor,
    bank: MemoryBank,
    draw: ContrastDraw,
    temperature: float,
    formulation: Formulation = "paper",
    trust: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """L_vi, L_vi', L_vi'' as `contrast_image`, `contrast_views`, `contrast_novel`, each the mean over the batch.

    With nce(a, v) = -log(exp(a.v/t) / (exp(a.v/t) + sum_k exp(a.v_k/t))), v_p and v_k drawn from the bank and v_i the
    row of the image itself:

        paper:     nce(f, v_p), nce(f, f_novel), nce(f_novel, v_p)
        official:  nce(f, v_p') with f_novel in place of f in the sum, nce(f_novel, v_i), nce(f_novel, v_p)

    f, f_novel (B, D): embeddings of the real images and of their novel views, of any scale: they are normalised here,
    in the bank's precision. draw: `bank.draw(index, seed=, step=, formulation=)`, for the rows `index` of the batch.
    trust (B,): factors on the losses of each image, as of labels that are not trusted alike (3C).
    An anchor without negatives has a loss of 0. With a sharded bank this is a collective, the backward pass too.
    """
    f, f_novel = (F.normalize(x.to(bank.rows.dtype), dim=1) for x in (f, f_novel))
    positive = bank.rows_of(draw.positive)
    if formulation == "paper":
        negative = bank.negative_logsumexp(torch.stack([f, f_novel], dim=1), draw, temperature)
        of_image, of_novel = negative.unbind(1)
        pairs = {
            "contrast_image": (f, positive, of_image),
            "contrast_views": (f, f_novel, of_image),
            "contrast_novel": (f_novel, positive, of_novel),
        }
    else:
        of_novel = bank.negative_logsumexp(f_novel[:, None], draw, temperature)[:, 0]
        pairs = {
            "contrast_image": (f, bank.rows_of(draw.positive_of_image), of_novel),
            "contrast_views": (f_novel, bank.rows_of(draw.index), of_novel),
            "contrast_novel": (f_novel, positive, of_novel),
        }
    losses = {
        name: F.softplus(negative - (anchor * match).sum(1) / temperature)
        for name, (anchor, match, negative) in pairs.items()
    }
    return {name: (loss if trust is None else loss * trust).mean() for name, loss in losses.items()}
