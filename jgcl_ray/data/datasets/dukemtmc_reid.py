"""DukeMTMC-reID (Ristani et al., ECCV-W 2016; Zheng et al., ICCV 2017).

Its authors withdrew the data set in 2019. The layout is read for those who may still use a copy; nothing is ever
downloaded.
"""

from __future__ import annotations

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.market_layout import FileNames, MarketLayout
from jgcl_ray.data.datasets.reid_dataset import Published, ReidDataset, check_disjoint

PUBLISHED = Published(16_522, 2_228, 17_661, train_identities=702, test_identities=702, cameras=8)

LAYOUT = MarketLayout(
    name="dukemtmc_reid",
    title="DukeMTMC-reID",
    names=FileNames(r"(?P<identity>\d+)_c(?P<camera>\d+)_f\d+", "0001_c2_f0046182.jpg"),
    inner=("DukeMTMC-reID", "DukeMTMC", "dukemtmc_reid", "dukemtmcreid"),
)


def read_dukemtmc_reid(data: DataConfig) -> ReidDataset:
    """DukeMTMC-reID below `data.root`; counts that differ are warned about."""
    dataset = LAYOUT.read(data.root)
    check_disjoint(dataset)
    PUBLISHED.compare(dataset)
    return dataset
