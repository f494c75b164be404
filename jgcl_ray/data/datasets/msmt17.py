"""MSMT17 (Wei et al., "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018).

V1 and V2 (faces masked) come with four list files; V1 also goes round repacked in Market-1501's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.market_layout import FOLDERS, FileNames, MarketLayout, parse_names
from jgcl_ray.data.datasets.reid_dataset import (
    NamedImage,
    Published,
    ReidDataset,
    Split,
    is_image,
    labelled_split,
    locate,
    visible,
)
from jgcl_ray.errors import UserError
from jgcl_ray.stored_files import read_lines
from jgcl_ray.wording import counted

TITLE = "MSMT17"
PUBLISHED = Published(32_621, 11_659, 82_161, train_identities=1_041, test_identities=3_060, cameras=15)
INNER = ("MSMT17_V1", "MSMT17_V2", "MSMT17")
LIST_NAMES = FileNames(r"(?P<identity>\d+)_\d+_(?P<camera>\d+)_", "0000/0000_000_01_0303morning_0015_0.jpg")


@dataclass(frozen=True)
class Version:
    """A version with list files, by its folders of images."""

    title: str
    train: str
    test: str


VERSIONS = (Version("MSMT17 V1", "train", "test"), Version("MSMT17 V2", "mask_train_v2", "mask_test_v2"))

REPACKED = MarketLayout(
    name="msmt17",
    title="MSMT17 repacked in Market-1501's layout",
    names=FileNames(r"(?P<identity>\d+)_c(?P<camera>\d+)", "0001_c01_0000.jpg"),
    inner=INNER,
)


def read_msmt17(data: DataConfig) -> ReidDataset:
    """MSMT17 V1, V2, or V1 repacked, below `data.root` (or its inner folder).

    The authors number people from 0 in train and from 0 again in test; here they are 1 to 1,041 and 1,042 to 4,101,
    so that nobody is a distractor (0) and nobody is in both. train = list_train + list_val; validation = list_val.
    """
    root = locate(data.root, TITLE, INNER, [FOLDERS, *((version.train, version.test) for version in VERSIONS)])
    version = _version(root)
    if version is None:
        dataset = REPACKED.read(root, train_identity=_train_identity, test_identity=_test_identity)
    else:
        dataset = _read_lists(root, version)
    PUBLISHED.compare(dataset)
    return dataset


def _train_identity(label: int) -> int:
    return label + 1


def _test_identity(label: int) -> int:
    return label + 1 + PUBLISHED.train_identities


def _version(root: Path) -> Version | None:
    there = [version for version in VERSIONS if (root / version.train).is_dir() or (root / version.test).is_dir()]
    if len(there) > 1:
        raise UserError(
            f"{root}: folders of both V1 (train, test) and V2 (mask_train_v2, mask_test_v2); move one version, with "
            "its list files, into a folder of its own"
        )
    return there[0] if there else None


def _read_lists(root: Path, version: Version) -> ReidDataset:
    train_folder, test_folder = root / version.train, root / version.test
    train_there, test_there = _images_below(train_folder, version), _images_below(test_folder, version)
    train = _read_list(root / "list_train.txt", train_folder, train_there, version)
    validation = _read_list(root / "list_val.txt", train_folder, train_there, version)
    repeated = {image.path for image in train} & {image.path for image in validation}
    if repeated:
        raise UserError(
            f"{root / 'list_val.txt'}: {counted(len(repeated), 'image')} of it in list_train.txt too, "
            f"first {min(repeated)}; "
            "take the lists from the authors' archive"
        )
    query = _read_list(root / "list_query.txt", test_folder, test_there, version)
    gallery = _read_list(root / "list_gallery.txt", test_folder, test_there, version)
    return ReidDataset(
        name="msmt17",
        root=root,
        train=_split(train_folder, [*train, *validation], _train_identity),
        query=_split(test_folder, query, _test_identity),
        gallery=_split(test_folder, gallery, _test_identity),
        validation=_split(train_folder, validation, _train_identity),
    )


def _split(folder: Path, images: Sequence[NamedImage], renumber: Callable[[int], int]) -> Split:
    return labelled_split(folder, [replace(image, identity=renumber(image.identity)) for image in images])


def _images_below(folder: Path, version: Version) -> frozenset[str]:
    # One listing of each person's folder: a stat for each of 126,441 files takes minutes on network disks.
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {version.title} has {version.train}/ and {version.test}/")
    people = [entry.name for entry in visible(folder) if entry.is_dir()]
    images = frozenset(
        f"{person}/{entry.name}" for person in people for entry in visible(folder / person) if is_image(entry.name)
    )
    if not images:
        raise UserError(f"{folder}: holds no PERSON/NAME.jpg; unpack {version.title} again")
    return images


def _read_list(path: Path, folder: Path, there: frozenset[str], version: Version) -> list[NamedImage]:
    """The images of one list file; lines are `0000/0000_000_01_0303morning_0015_0.jpg 0`."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such list file; {version.title} comes with four, copy them beside {folder.name}/"
        )
    labels: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, "restore it from the authors' archive"), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal() or len(label) > 18:  # an int64 has as many
            raise UserError(f"{path}:{number}: {line!r} is not of the form {LIST_NAMES.example} 0; restore the list")
        if name in labels:
            raise UserError(f"{path}:{number}: {name} is listed twice; restore the list from the authors' archive")
        labels[name] = int(label)
    if not labels:
        raise UserError(f"{path}: lists no image; restore it from the authors' archive")
    missing = labels.keys() - there
    if missing:
        raise UserError(
            f"{path}: {len(missing):,} of {len(labels):,} images are not in {folder}, first {min(missing)}; are list "
            f"and images of one version ({version.title} by its folders) and unpacked in full?"
        )
    images = parse_names(list(labels), LIST_NAMES, folder, version.title)
    return [replace(image, identity=labels[image.path]) for image in images]
