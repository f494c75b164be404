"""PRID2011 (Hirzer et al., "Person Re-Identification by Descriptive and Discriminative ...", SCIA 2011)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.division import Division, middle_of_each_tracklet, thinned
from jgcl_ray.data.datasets.reid_dataset import (
    NamedImage,
    ReidDataset,
    image_names,
    is_image,
    labelled_split,
    locate,
    visible,
    warn_of_counts,
)
from jgcl_ray.errors import UserError

TITLE = "PRID2011"
CAMERAS = ("cam_a", "cam_b")
VARIANTS = ("single_shot", "multi_shot")
SHARED = 200  # people up to this number are the same ones in both cameras; above it, numbers are of one camera
PERSON = re.compile(r"person_(\d+)")
LONG_ENOUGH = 27  # images that each tracklet must have in multi_shot, as is usual
SPLITS = "splits_prid2011.json"  # torchreid's, of multi_shot


def read_prid2011(data: DataConfig) -> ReidDataset:
    """PRID2011 below `data.root`: `single_shot/` (one image a person and camera) or `multi_shot/` (tracklets).

    The usual division: half of the people in both cameras train, the others' images (or the middle images of their
    tracklets) of camera a are searched for in camera b, in single_shot among the 549 that only b saw. multi_shot
    takes the people with 27 images and more in both cameras, divided by splits_prid2011.json where that lies there.
    """
    if data.variant not in (None, *VARIANTS):
        raise UserError(f"data.variant={data.variant}: prid2011 has {' and '.join(VARIANTS)}")
    found = locate(data.root, TITLE, ("prid_2011", "prid2011"), [VARIANTS])
    variant: str = data.variant or next(name for name in VARIANTS if (found / name).is_dir())
    root = found / variant
    for camera in CAMERAS:
        if not (root / camera).is_dir():
            raise UserError(f"{root / camera}: no such folder; unpack {TITLE} again, or correct data.variant")
    multi = variant == "multi_shot"
    images = _tracklets(root) if multi else _single(root)
    if not images:
        raise UserError(f"{root}: no person is in both cameras; unpack {TITLE} again")
    people = frozenset(image.identity for image in images if image.identity <= SHARED)
    division = Division.of(data)
    training = division.training(people)
    summary = division.summary(len(training), len(people) - len(training))
    if multi and (splits := next((at / SPLITS for at in (found, found.parent) if (at / SPLITS).is_file()), None)):
        training, test = _listed(splits, data.split, people)
        people, summary = training | test, f"{splits.name}, split {data.split}"
    warn_of_counts("prid2011", root, {"people in both cameras": (len(people), 178 if multi else SHARED)})
    searched = [image for image in images if image.identity not in training]
    query = [image for image in searched if image.camera == 1 and image.identity in people]
    gallery = [image for image in searched if image.camera == 2]
    nobody = training == people
    dataset = ReidDataset(
        name="prid2011",
        root=root,
        train=labelled_split(root, [image for image in images if image.identity in training]),
        query=None if nobody else labelled_split(root, middle_of_each_tracklet(query) if multi else query),
        gallery=None if nobody else labelled_split(root, gallery),
        protocol="cross_camera",
        division=summary,
    )
    return thinned(dataset, data.per_tracklet)


def _single(root: Path) -> list[NamedImage]:
    """`cam_a/person_0001.png`; who is above 200 in camera a is left out, as is usual."""
    images = []
    for camera, folder in enumerate(CAMERAS, start=1):
        for name in image_names(root / folder):
            person = _person(name, root / folder)
            if camera == 2 or person <= SHARED:
                images.append(NamedImage(f"{folder}/{name}", person, camera))
    seen = [{image.identity for image in images if image.camera == camera} for camera in (1, 2)]
    both = seen[0] & seen[1]
    return [image for image in images if image.identity in both or image.identity > SHARED] if both else []


def _tracklets(root: Path) -> list[NamedImage]:
    """`cam_a/person_0001/0001.png` of the people whose tracklets are long enough in both cameras."""
    found: dict[tuple[int, int], list[str]] = {}
    for camera, folder in enumerate(CAMERAS, start=1):
        for entry in visible(root / folder):
            if entry.is_dir():
                person = _person(entry.name, root / folder)
                paths = [f"{folder}/{entry.name}/{image.name}" for image in visible(Path(entry.path))]
                found[person, camera] = [path for path in paths if is_image(path)]
    chosen = [
        person
        for person in range(1, SHARED + 1)
        if all(len(found.get((person, camera), ())) >= LONG_ENOUGH for camera in (1, 2))
    ]
    return [
        NamedImage(path, person, camera, 2 * person + camera)
        for person in chosen
        for camera in (1, 2)
        for path in found[person, camera]
    ]


def _person(name: str, folder: Path) -> int:
    match = PERSON.match(name)
    if match is None:
        raise UserError(f"{folder / name}: not a name of {TITLE}, which look like person_0001; rename or remove it")
    return int(match[1])


def _listed(path: Path, number: int, people: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Train and test people of a division in torchreid's file: a list of {"train": ["person_0001"], "test": []}."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        halves = [[int(name.rpartition("_")[2]) for name in splits[number][part]] for part in ("train", "test")]
    except IndexError:
        raise UserError(f"data.split={number}: {path} holds {len(splits)} divisions, from 0 on") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not torchreid's list of divisions ({error}); restore it or move it away") from None
    missing = set().union(*halves) - people
    if missing:
        raise UserError(f"{path}: {len(missing)} of its people are not in the folders, first {min(missing)}")
    return frozenset(halves[0]), frozenset(halves[1])
