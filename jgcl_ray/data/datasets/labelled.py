"""A user's own labelled crops: identity and camera stand in their paths, by a pattern."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace

from jgcl_ray.config import DataConfig
from jgcl_ray.data.datasets.division import Division, divided, thinned
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.data.datasets.reid_dataset import NO_TRACKLET, NamedImage, ReidDataset, existing_root, natural_order
from jgcl_ray.errors import UserError
from jgcl_ray.wording import counted

FIELDS = ("identity", "camera", "tracklet")
JUNK = "-1"  # identity of bad detections, as in Market-1501; they are left out
EXAMPLE = "data.pattern='{identity}_c{camera}_*.jpg'"


def read_labelled(data: DataConfig) -> ReidDataset:
    """Images below `data.root` whose relative paths match `data.pattern`.

    People are numbered from 1 in the natural order of what the pattern calls identity, and so are cameras, unless all
    of them are numbers already. Images that do not match are left out and counted in a warning. The protocol is
    `cross_camera` where there are two cameras, else `market`. A field {tracklet} tells tracklets of one person and
    camera from each other.
    """
    root = existing_root(data.root, "your labelled images")
    if data.pattern is None:
        raise UserError(
            f"data.pattern is not set: say how data.name=labelled reads file names, for example {EXAMPLE}"
        )
    pattern = compiled(data.pattern)
    paths = image_tree(root)
    matches = {path: match for path in paths if (match := pattern.fullmatch(path))}
    others = [path for path in paths if path not in matches]
    if not matches:
        raise UserError(
            f"data.pattern={data.pattern!r}: none of the {counted(len(paths), 'image')} below {root} matches, first "
            f"{paths[0]}; the pattern is of the whole path below data.root"
        )
    if others:
        warnings.warn(
            f"{root}: {len(others):,} of {len(paths):,} images do not match data.pattern and are left out, first "
            f"{others[0]}",
            stacklevel=2,
        )
    labels = {path: match.groupdict() for path, match in matches.items() if match["identity"] != JUNK}
    if not labels:
        raise UserError(
            f"{root}: all {len(matches):,} images that match are junk (identity -1); correct data.pattern"
        )
    people = _numbered([fields["identity"] for fields in labels.values()])
    cameras = _numbered([fields["camera"] for fields in labels.values()], keep_numbers=True)
    tracklets = _tracklets(list(labels.values()))
    images = [
        NamedImage(path, people[fields["identity"]], cameras[fields["camera"]], tracklet)
        for (path, fields), tracklet in zip(labels.items(), tracklets, strict=True)
    ]
    division = Division.of(data)
    training = division.training(set(people.values()))
    dataset = divided(
        "labelled",
        root,
        images,
        training,
        protocol="cross_camera" if len(cameras) == 2 else "market",
        division=division.summary(len(training), len(people) - len(training)),
    )
    named = {number: name for name, number in cameras.items() if name != str(number)}
    return thinned(replace(dataset, camera_names=named), data.per_tracklet)


def compiled(pattern: str) -> re.Pattern[str]:
    """`{identity}_c{camera}_*.jpg` as a regular expression of whole paths; UserError where it makes no sense.

    A field takes all digits that stand there, or else as little text as fits; * any text within a name, ? one
    character, **/ any folders or none.
    """
    parts, seen = [], set()
    for part in re.findall(r"\{\w*\}|\*\*/|\*|\?|[^{*?]+|.", pattern):
        if part == "**/":
            parts.append("(?:.*/)?")
        elif part in "*?":
            parts.append("[^/]*" if part == "*" else "[^/]")
        elif not part.startswith("{"):
            parts.append(re.escape(part))
        elif (name := part.strip("{}")) not in FIELDS:
            raise UserError(
                f"data.pattern={pattern!r}: {part} is no field; there are {', '.join(f'{{{f}}}' for f in FIELDS)}"
            )
        else:
            parts.append(f"(?P={name})" if name in seen else rf"(?P<{name}>-?\d+|[^/]+?)")
            seen.add(name)
    for name in ("identity", "camera"):
        if name not in seen:
            raise UserError(f"data.pattern={pattern!r}: {{{name}}} is missing; give one like {EXAMPLE}")
    return re.compile("".join(parts))


def _numbered(names: Sequence[str], keep_numbers: bool = False) -> dict[str, int]:
    distinct = sorted(set(names), key=natural_order)
    if keep_numbers and all(name.isdecimal() for name in distinct):
        return {name: int(name) for name in distinct}
    return {name: number for number, name in enumerate(distinct, start=1)}


def _tracklets(labels: Sequence[dict[str, str]]) -> list[int]:
    if not labels or "tracklet" not in labels[0]:
        return [NO_TRACKLET] * len(labels)
    keys = [tuple(fields[name] for name in FIELDS) for fields in labels]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return [numbers[key] for key in keys]
