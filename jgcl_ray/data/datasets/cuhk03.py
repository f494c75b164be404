"""CUHK03 (Li et al., "DeepReID", CVPR 2014) in the protocol of 767 / 700 people (Zhong et al., CVPR 2017).

Read as it is held: Market-1501's folders (CUHK03-NP), the released cuhk-03.mat, images taken out of that under
torchreid's names (`images_detected/1_001_1_01.png`: pair of cameras, person, view, number), and folders of
`0001_c1_...png` or `0000_00.jpg` (person, number: the first five images are the first camera's), alone or as
`train/` and `val/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.cuhk03_mat import MAT_NAMES, write_images
from jgcl_ray.data.datasets.division import Division, divided
from jgcl_ray.data.datasets.market_layout import FOLDERS, FileNames, MarketLayout
from jgcl_ray.data.datasets.matlab import matrix, strings
from jgcl_ray.data.datasets.reid_dataset import (
    NamedImage,
    Published,
    ReidDataset,
    check_disjoint,
    existing_root,
    is_image,
    labelled_split,
    visible,
    warn_of_counts,
)
from jgcl_ray.errors import UserError

TITLE = "CUHK03"
VARIANTS = ("detected", "labeled")  # boxes of a detector, or drawn by hand
PUBLISHED = {
    "detected": Published(7_365, 1_400, 5_332, train_identities=767, test_identities=700, cameras=2),
    "labeled": Published(7_368, 1_400, 5_328, train_identities=767, test_identities=700, cameras=2),
}
TRAIN, PEOPLE = 767, 1_467  # people of the new protocol
INNER = ("cuhk03-np", "CUHK03-NP", "cuhk03", "CUHK03", "cuhk03_release", "archive")
NEW_PARTS = ("train", "query", "gallery")

NEW_PROTOCOL = MarketLayout(
    name="cuhk03",
    title="CUHK03-NP",
    names=FileNames(r"(?P<identity>\d+)_c(?P<camera>\d+)", "0001_c1_1.png"),
    inner=(),
)

# How single images are named -> identity, from 1 (0 is Market-1501's distractor), and camera.
Read = Callable[[re.Match[str]], tuple[int, int]]
NAMES: tuple[tuple[re.Pattern[str], Read], ...] = (
    (re.compile(r"(\d)_(\d{3})_([12])_(\d{2})\."), lambda name: (1_000 * int(name[1]) + int(name[2]), int(name[3]))),
    (re.compile(r"(\d+)_c([12])[_.]"), lambda name: (int(name[1]) + 1, int(name[2]))),
    (re.compile(r"(\d+)_(\d\d?)\."), lambda name: (int(name[1]) + 1, 1 + (int(name[2]) >= 5))),
)
EXAMPLES = "1_001_1_01.png, 0001_c1_1.png or 0000_00.jpg"
_VALIDATION = 10_000  # added to the numbers of val/, which begin at 0 again


def read_cuhk03(data: DataConfig) -> ReidDataset:
    """CUHK03 below `data.root`, of `data.variant`; counts that differ are warned about.

    Images under torchreid's names are divided by the official index where `cuhk03_new_protocol_config_*.mat` or
    torchreid's `splits_new_*.json` lies beside their folder, others by the fixed rule of
    jgcl_ray.data.datasets.division into 767 people and the rest. From cuhk-03.mat the images are written beside it
    once, which needs the extra `cuhk03`. The pairs of cameras count as one: view 1 and view 2.
    """
    if data.variant not in (None, *VARIANTS):
        raise UserError(f"data.variant={data.variant}: cuhk03 has {' and '.join(VARIANTS)}")
    root = existing_root(data.root, TITLE)
    for at in _places(root):
        for variant in VARIANTS if data.variant is None else (data.variant,):
            dataset = _read(at, variant, data)
            if dataset is not None:
                check_disjoint(dataset)
                return dataset
    others = [v for v in VARIANTS if v != data.variant and any(_folder(at, v) for at in _places(root))]
    if data.variant is not None and others:
        raise UserError(f"data.root={root}: holds the {others[0]} images alone; data.variant={others[0]} reads them")
    raise UserError(
        f"data.root={root}: no {TITLE} here; expected the folder that holds cuhk-03.mat, images_detected/ or "
        f"images_labeled/, detected/ or labeled/, {', '.join(f'{folder}/' for folder in FOLDERS)}, or images like "
        f"{EXAMPLES}"
    )


def _places(root: Path) -> list[Path]:
    """`root`, and the usual folders in it and in those."""
    usual = {name.lower() for name in INNER}
    inside = sorted(Path(entry.path) for entry in visible(root) if entry.is_dir() and entry.name.lower() in usual)
    return [root, *(place for folder in inside for place in _places(folder))]


def _folder(at: Path, variant: str) -> Path | None:
    """The folder of a variant's images, in whatever arrangement."""
    names = (f"images_{variant}", variant)
    return next((at / name for name in names if (at / name).is_dir() and any(visible(at / name))), None)


def _read(at: Path, variant: str, data: DataConfig) -> ReidDataset | None:
    folder = _folder(at, variant)
    if folder is None:
        mat = next((at / name for name in MAT_NAMES if (at / name).is_file()), None)
        if mat is not None:
            folder = write_images(mat, variant, at / f"images_{variant}")
        elif (at / FOLDERS[0]).is_dir() or _images(at) or _images(at / "train"):
            folder = at
            variant = next((name for name in VARIANTS if name in at.name.lower()), variant)
    if folder is None:
        return None
    if (folder / FOLDERS[0]).is_dir():
        dataset = NEW_PROTOCOL.read(folder)
        PUBLISHED[variant].compare(dataset)
        return dataset
    if _images(folder / "train"):
        return _train_and_val(folder)
    images = _named(folder)
    index = _official(folder, variant)
    if index is None:
        return _by_rule(folder, images, data)
    dataset = _by_index(folder, images, *index)
    PUBLISHED[variant].compare(dataset)
    return dataset


def _images(folder: Path) -> list[str]:
    return [entry.name for entry in visible(folder) if is_image(entry.name)] if folder.is_dir() else []


def _named(folder: Path, prefix: str = "", add: int = 0) -> list[NamedImage]:
    """The images of a folder, or of `prefix` in it, by the one way of naming that all of them follow."""
    names = sorted(_images(folder / prefix))
    if not names:
        raise UserError(f"{folder / prefix}: holds no image; unpack {TITLE} again")
    pattern, read = next(((pattern, read) for pattern, read in NAMES if pattern.match(names[0])), NAMES[0])
    images, strange = [], []
    for name in names:
        match = pattern.match(name)
        if match is None:
            strange.append(name)
        else:
            identity, camera = read(match)
            images.append(NamedImage(prefix + name, identity + add, camera))
    if strange:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        raise UserError(
            f"{folder / prefix / strange[0]}{more}: not a file name of {TITLE}, which look like {EXAMPLES}, all of "
            "them alike; rename or remove it, or choose another data.name"
        )
    return images


def _train_and_val(folder: Path) -> ReidDataset:
    """`train/` and `val/` (or `test/`), as they were divided by whoever took them out; numbers begin at 0 in each."""
    test = next((name for name in ("val", "test") if _images(folder / name)), None)
    if test is None:
        raise UserError(
            f"{folder}: images in train/ but none in val/ or test/; give both, or all of them in one folder"
        )
    train = _named(folder, "train/")
    images = [*train, *_named(folder, f"{test}/", add=_VALIDATION)]
    people = frozenset(image.identity for image in train)
    summary = (
        f"{len(people):,} people of train/ train, those of {test}/ are searched for; not the protocol of 767 / 700"
    )
    return divided("cuhk03", folder, images, people, protocol="market", division=summary)


def _by_rule(folder: Path, images: list[NamedImage], data: DataConfig) -> ReidDataset:
    people = {image.identity for image in images}
    warn_of_counts("cuhk03", folder, {"people": (len(people), PEOPLE)})
    division = Division.of(data)
    training = division.training(people, round(len(people) * TRAIN / PEOPLE))
    summary = f"no official index; {division.summary(len(training), len(people) - len(training))}"
    return divided("cuhk03", folder, images, training, protocol="market", division=summary)


def _official(folder: Path, variant: str) -> tuple[Path, dict[str, list[str]]] | None:
    """The file names of train, query and gallery in the new protocol, and the file that tells them."""
    for at in (folder.parent, folder):
        mat = at / f"cuhk03_new_protocol_config_{variant}.mat"
        if mat.is_file():
            names = strings(mat, "filelist")
            rows = {part: matrix(mat, f"{part}_idx").ravel() for part in NEW_PARTS}
            for part, numbers in rows.items():
                if not numbers.size or numbers.min() < 1 or numbers.max() > len(names):
                    raise UserError(f"{mat}: {part}_idx is not of its {len(names):,} files; restore it")
            return mat, {part: [names[row - 1] for row in numbers] for part, numbers in rows.items()}
        listed = at / f"splits_new_{variant}.json"
        if listed.is_file():
            return listed, _listed(listed)
    return None


def _listed(path: Path) -> dict[str, list[str]]:
    """torchreid's file: a list of one {"train": [[PATH, person, camera], ...], ...}, paths of elsewhere."""
    try:
        splits: Any = json.loads(path.read_text(encoding="utf-8"))
        # Of a Windows path too: it takes both kinds of slash.
        return {part: [PureWindowsPath(row[0]).name for row in splits[0][part]] for part in NEW_PARTS}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not torchreid's division ({error!r}); restore it or move it away") from None


def _by_index(folder: Path, images: list[NamedImage], index: Path, parts: dict[str, list[str]]) -> ReidDataset:
    by_name = {image.path.rpartition(".")[0]: image for image in images}  # the suffix may have been changed
    listed = {name.rpartition(".")[0] for names in parts.values() for name in names}
    missing = sorted(listed - by_name.keys())
    if missing:
        raise UserError(
            f"{index}: {len(missing):,} of {len(listed):,} images are not in {folder}, first {missing[0]}; is it the "
            "index of these images?"
        )
    train, query, gallery = (
        labelled_split(folder, [by_name[name] for name in sorted({name.rpartition(".")[0] for name in parts[part]})])
        for part in NEW_PARTS
    )
    return ReidDataset(name="cuhk03", root=folder, train=train, query=query, gallery=gallery)
