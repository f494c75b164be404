"""Small sets of two cameras, usually scored across them: VIPeR, CUHK01 and PKU-Reid.

Their authors draw people at random into halves; here the rule of jgcl_ray.data.datasets.division does, by
`data.train_share` and `data.split`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.division import Division, divided
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.data.datasets.market_layout import FileNames, parse_names
from jgcl_ray.data.datasets.reid_dataset import (
    NamedImage,
    ReidDataset,
    existing_root,
    image_names,
    is_image,
    locate,
    visible,
    warn_of_counts,
)
from jgcl_ray.errors import UserError


@dataclass(frozen=True)
class TwoCameras:
    """How a set is found and read; people are numbered as by its authors."""

    name: str
    title: str
    people: int  # as published, like images
    images: int
    read: Callable[[Path], tuple[Path, list[NamedImage]]]  # data.root -> the set's own folder, and what lies in it

    def open(self, data: DataConfig) -> ReidDataset:
        """The set below `data.root`; counts that differ are warned about."""
        root, images = self.read(existing_root(data.root, self.title))
        people = {image.identity for image in images}
        division = Division.of(data)
        training = division.training(people)
        counts = {"images": (len(images), self.images), "identities": (len(people), self.people)}
        warn_of_counts(self.name, root, counts | {"cameras": (len({image.camera for image in images}), 2)})
        summary = division.summary(len(training), len(people) - len(training))
        return divided(self.name, root, images, training, protocol="cross_camera", division=summary)


def _viper(root: Path) -> tuple[Path, list[NamedImage]]:
    """`cam_a/PERSON_ANGLE.bmp` and `cam_b/` (Gray, Brennan and Tao, PETS 2007)."""
    cameras = ("cam_a", "cam_b")
    found = locate(root, "VIPeR", ("VIPeR",), [cameras])
    names = FileNames(r"(?P<identity>\d+)_", "cam_a/000_45.bmp")
    images = []
    for camera, folder in enumerate(cameras, start=1):
        paths = [f"{folder}/{name}" for name in image_names(found / folder)]
        # From 1: identity 0 is Market-1501's distractor, and VIPeR's first person.
        photos = parse_names(paths, names, found, "VIPeR")
        images += [NamedImage(photo.path, photo.identity + 1, camera) for photo in photos]
    return found, images


def _cuhk01(root: Path) -> tuple[Path, list[NamedImage]]:
    """`campus/PPPPNNN.png`: photos 1 and 2 of a person are of the first camera (Li, Zhao and Wang, ACCV 2012)."""
    folder = next(
        (root / name for name in ("campus", "CUHK01/campus", "cuhk01/campus") if (root / name).is_dir()), root
    )
    found = [entry.name for entry in visible(folder) if is_image(entry.name)]
    if not found:
        raise UserError(f"data.root={root}: no CUHK01 here; expected the folder that holds campus/0001001.png")
    names = FileNames(r"(?P<identity>\d{4})(?P<camera>\d{3})\.", "campus/0001001.png")
    photos = parse_names(found, names, folder, "CUHK01")
    return folder, [NamedImage(photo.path, photo.identity, 1 + (photo.camera > 2)) for photo in photos]


def _pku_reid(root: Path) -> tuple[Path, list[NamedImage]]:
    """`PPP_CC_O.png`, or `PPP/CC_O.png`: person, camera, direction of eight (Ma et al., arXiv 1605.02464).

    The same photo goes round in several folders at once (train, val/all_imgs, val/query): it is taken once, from the
    first folder by path.
    """
    pattern = r"(?:.*/)?(?P<identity>\d+)[_/](?P<camera>\d+)_\d+\.\w+$"
    names = FileNames(pattern, "001_01_1.png or 001/01_1.png", with_folders=True)
    paths: dict[str, str] = {}
    for path in image_tree(root):
        folder, _, name = path.rpartition("/")
        tail = name if name.count("_") > 1 else f"{folder.rpartition('/')[2]}/{name}"
        paths.setdefault(tail.replace("/", "_").rpartition(".")[0], path)
    return root, parse_names(sorted(paths.values()), names, root, "PKU-Reid")


VIPER = TwoCameras("viper", "VIPeR", 632, 1_264, _viper)
CUHK01 = TwoCameras("cuhk01", "CUHK01", 971, 3_884, _cuhk01)
PKU_REID = TwoCameras("pku_reid", "PKU-Reid", 114, 1_824, _pku_reid)
