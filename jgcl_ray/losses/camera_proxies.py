"""An image against the proxies of its cluster in other cameras (CAP, arXiv 2012.10674; ICE, arXiv 2103.16364)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from jgcl_ray.memories.proxies import CameraProxies


def camera_proxy_contrast(
    f: torch.Tensor,
    labels: torch.Tensor,
    cameras: torch.Tensor,
    proxies: CameraProxies,
    temperature: float,
    negatives: int,
    trust: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over the batch of the mean over p in P of -log(exp(f.p/t) / (exp(f.p/t) + sum_n exp(f.n/t))).

    P: the proxies of the image's cluster in the cameras other than its own; n: the `negatives` proxies of other
    clusters that are most like f. f (B, D): embeddings of any scale, normalised here, in the memory's precision;
    labels (B,) int64, cameras (B,). An outlier (-1), and an image whose cluster no other camera sees, counts as a
    loss of 0. trust (B,): factors on the loss of each image.
    """
    rows = proxies.memory.rows
    f = F.normalize(f.to(rows.dtype), dim=1)
    with torch.autocast(f.device.type, enabled=False):
        logits = f @ rows.T / temperature  # (B, R)
    if not len(proxies):
        return logits.sum()
    same = labels[:, None] == proxies.clusters
    positive = same & (cameras[:, None] != proxies.cameras)
    nothing = torch.finfo(logits.dtype).min / 2  # of one's own cluster; -inf would have no gradient where no other is
    hardest = logits.masked_fill(same, nothing).topk(min(negatives, len(proxies)), dim=1).values
    others = hardest.logsumexp(1, keepdim=True)
    of_each = F.softplus(others - logits).masked_fill(~positive, 0.0)
    losses = of_each.sum(1) / positive.sum(1).clamp(min=1)
    return (losses if trust is None else losses * trust).sum() / len(f)
