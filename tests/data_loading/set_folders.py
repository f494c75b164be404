"""Data sets of empty images in folders, opened and looked at."""

import warnings
from pathlib import Path

import pytest

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets import ReidDataset, open_dataset
from jgcl_ray.data.datasets.reid_dataset import Split
from jgcl_ray.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(name: str, root: Path, **fields) -> ReidDataset:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*as published")
        return open_dataset(DataConfig(name=name, root=root, **fields))


def refused(name: str, root: Path, **fields) -> str:
    with pytest.raises(UserError) as caught:
        read(name, root, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def people(split: Split) -> set[int]:
    return set(split.identities.tolist())


def check_divided(dataset: ReidDataset, total: int, share: float = 0.5) -> None:
    assert len(people(dataset.train)) == int(total * share)
    assert not people(dataset.train) & people(dataset.gallery)
    assert people(dataset.query) == people(dataset.gallery)
    assert len(people(dataset.train) | people(dataset.query)) == total
    assert "SHA-256" in dataset.description
