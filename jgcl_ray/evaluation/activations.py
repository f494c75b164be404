"""Where the encoder finds two photos alike: the cosine of their embeddings, cell by cell of the last map.

Letters: B pairs of images, H x W image size, h x w size of the last map.
"""

from __future__ import annotations

import torch
from torch import nn

from jgcl_ray.models.encoder import IdentityEncoder


def similarity_maps(encoder: IdentityEncoder, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What each cell of each image adds to the cosine similarity of a pair: (2, B, h, w) float32 on the CPU.

    first, second: (B, 3, H, W), ImageNet mean/std normalised, moved to the encoder's device. With average pooling
    everything after the last map is affine, and the mean of a map over its cells is the cosine: class activation
    mapping with the other image's embedding in place of a class (Stylianou et al., WACV 2019). With GeM it is the
    first-order part of that. An encoder in eval mode; its parameters get no gradient.
    """
    maps: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        maps.append(output.detach().requires_grad_())
        return maps[-1]

    device = next(encoder.parameters()).device
    hook = encoder.backbone.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            embedding = encoder(torch.cat([first, second]).to(device)).embedding
    finally:
        hook.remove()
    other = embedding.detach().roll(len(first), dims=0)
    dot = (embedding * other).sum(1)
    (gradient,) = torch.autograd.grad(dot.sum(), maps)
    cells = gradient.shape[2] * gradient.shape[3]
    added = cells * (gradient * maps[0].detach()).sum(1)
    # What the head adds by itself belongs to all cells alike.
    added += (dot.detach() - added.mean((1, 2)))[:, None, None]
    norms = embedding.detach().norm(dim=1) * other.norm(dim=1)
    return (added / norms[:, None, None]).float().unflatten(0, (2, len(first))).cpu()
