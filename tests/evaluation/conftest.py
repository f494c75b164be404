"""Photos on disk, an encoder that has learnt nothing, and what both give: shared by the tests of a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import evaluation_data
import pytest
import torch

from jgcl_ray.data.datasets import ReidDataset
from jgcl_ray.encoder import Encoder
from jgcl_ray.evaluation.assessment import Assessment, assess
from jgcl_ray.evaluation.report import write_report


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation_data.write_photos(tmp_path_factory.mktemp("data") / "market")


@pytest.fixture(scope="session")
def dataset(photos: Path) -> ReidDataset:
    return evaluation_data.opened(photos)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return evaluation_data.untrained()


@pytest.fixture(scope="session")
def found(encoder: Encoder, dataset: ReidDataset) -> Assessment:
    return assess(encoder, dataset, reranked=True, camera_pairs=True)


@pytest.fixture(scope="session")
def written(found: Assessment, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    named = replace(found, dataset=replace(found.dataset, root=Path("/data/<b>&by\udcffte")))
    return write_report(folder, named, encoder, evaluation_data.LABELLING, found.document())
