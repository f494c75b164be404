"""The layout of Market-1501, in which many labelled sets come: three folders, identity and camera in file names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jgcl_ray.data.datasets.reid_dataset import (
    UNKNOWN_CAMERA,
    NamedImage,
    ReidDataset,
    Split,
    image_names,
    labelled_split,
    locate,
)
from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")  # train, query, gallery
JUNK = -1  # a bad detection, left out of every split
DISTRACTOR = 0


@dataclass(frozen=True)
class FileNames:
    """How a data set names its files."""

    pattern: str  # from the start of the name, with the group `identity` and, unless folders tell it, `camera`
    example: str
    with_folders: bool = False  # whether the pattern is of the path rather than the name alone


@dataclass(frozen=True)
class MarketLayout:
    """A data set in Market-1501's layout."""

    name: str
    title: str
    names: FileNames
    inner: Sequence[str]  # folders into which its archives unpack

    def read(
        self,
        root: Path | None,
        train_identity: Callable[[int], int] = int,
        test_identity: Callable[[int], int] = int,
    ) -> ReidDataset:
        """The splits below `root` (or its inner folder); junk is left out; identities may be renumbered.

        Without a training folder that split is empty: an encoder can still be scored.
        """
        found = locate(root, self.title, self.inner, [FOLDERS])
        train, query, gallery = (found / folder for folder in FOLDERS)
        return ReidDataset(
            name=self.name,
            root=found,
            train=self._split(train, train_identity) if train.is_dir() else labelled_split(train, []),
            query=self._split(query, test_identity),
            gallery=self._split(gallery, test_identity),
        )

    def _split(self, folder: Path, renumber: Callable[[int], int]) -> Split:
        names = image_names(folder)
        parsed = parse_names(names, self.names, folder, self.title)
        images = [
            NamedImage(image.path, renumber(image.identity), image.camera)
            for image in parsed
            if image.identity != JUNK
        ]
        if not images:
            raise UserError(
                f"{folder}: {counted(len(names), 'image')}, all junk (identity -1); unpack {self.title} again"
            )
        return labelled_split(folder, images)


def parse_names(names: Sequence[str], style: FileNames, folder: Path, title: str) -> list[NamedImage]:
    """Identity and camera of each file name; one UserError for all that have none."""
    pattern = re.compile(style.pattern)
    images, strange = [], []
    for name in names:
        match = pattern.match(name if style.with_folders else name.rpartition("/")[2])
        if match is None:
            strange.append(name)
        else:
            camera = int(match["camera"]) if "camera" in pattern.groupindex else UNKNOWN_CAMERA
            images.append(NamedImage(name, int(match["identity"]), camera))
    if strange:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        raise UserError(
            f"{folder / min(strange)}{more}: not a file name of {title}, which look like {style.example}; rename or "
            "remove it, or choose another data.name"
        )
    return images
