"""Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015)."""

from __future__ import annotations

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.market_layout import FileNames, MarketLayout
from jgcl_ray.data.datasets.reid_dataset import Published, ReidDataset, check_disjoint

PUBLISHED = Published(12_936, 3_368, 15_913, train_identities=751, test_identities=750, cameras=6)

# Only identity and camera are asked for, so that one's own sets in the same style are read too.
FILE_NAMES = FileNames(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)", "0002_c1s1_000451_03.jpg")

LAYOUT = MarketLayout(
    name="market1501",
    title="Market-1501",
    names=FILE_NAMES,
    inner=("Market-1501-v15.09.15", "Market-1501", "Market1501", "market_1501"),
)


def read_market1501(data: DataConfig) -> ReidDataset:
    """Market-1501, or a set of one's own in its style, below `data.root`; counts that differ are warned about."""
    dataset = LAYOUT.read(data.root)
    check_disjoint(dataset)
    PUBLISHED.compare(dataset)
    return dataset
