"""The walkers: people rendered by the project itself, written in Market-1501's layout (jgcl_ray.data.walkers)."""

from __future__ import annotations

from pathlib import Path

from jgcl_ray.config import WalkersConfig
from jgcl_ray.data.datasets.market1501 import FILE_NAMES
from jgcl_ray.data.datasets.market_layout import MarketLayout
from jgcl_ray.data.datasets.reid_dataset import ReidDataset, check_disjoint

LAYOUT = MarketLayout(
    name="walkers",
    title="the walkers (python -m jgcl_ray.data.walkers --out FOLDER renders them)",
    names=FILE_NAMES,
    inner=("walkers",),
)


def read_walkers(root: Path | None, walkers: WalkersConfig) -> ReidDataset:
    """The walkers below `root`; without one, those of the cache, which are rendered on first use."""
    if root is None:
        # The renderer brings bodies and a ray tracer, which reading images does not need.
        from jgcl_ray.data.walkers import ensure_rendered

        root = ensure_rendered(walkers)
    dataset = LAYOUT.read(root)
    check_disjoint(dataset)
    return dataset
