"""What a rendered set of walkers says of its photos, in views.npz and walkers.json: read here and nowhere else.

Letters: N photos, M of them with true views, V views of each, H x W their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.gait import ARMS
from jgcl_ray.stored_files import read_arrays, read_json

MANIFEST = "walkers.json"
ARRAYS = {  # of views.npz: kinds and shapes, as read_arrays has them
    "names": "U N",  # relative to the set's folder
    "identity": "iu N",
    "person": "iu N",
    "camera": "iu N",
    "yaw": "f N",  # degrees, relative to the camera
    "shape": "f N 6",  # phenotypes
    "gait": "f N 8",  # phase, stride, row of ARMS, lean, head_turn, head_nod, elbow, spread
    "rotation": "f N 3 3",  # this one and the next four: fields of Camera
    "position": "f N 3",
    "focal": "f N",
    "center": "f N 2",
    "stretch": "f N",
    "photo_rows": "iu M",  # which photos have true views
    "photo_views": "iu V",  # degrees
    "photos": "u M V H W 3",
}


@dataclass(frozen=True)
class _Size:
    height: Annotated[int, Field(ge=2)]


def remedy(folder: Path) -> str:
    """What to do about a damaged file of the set in a folder."""
    return f"remove {folder} and render the walkers again"


def read_views(file: Path, *names: str, otherwise: str = "") -> dict[str, np.ndarray]:
    """Some of the ARRAYS in a views.npz, `names` always among them; UserError where it is damaged.

    otherwise: what the user can do besides, the end of the error's line.
    """
    wanted = {name: ARRAYS[name] for name in ("names", *names)}
    advice = remedy(file.parent) + otherwise
    arrays = read_arrays(file, wanted, advice)
    limits = {"photo_rows": (arrays.get("photo_rows"), len(arrays["names"]))}
    if "gait" in arrays:
        limits["gait"] = (arrays["gait"][:, 2], len(ARMS))
    for name, (rows, limit) in limits.items():
        if rows is not None and not ((rows >= 0) & (rows < limit)).all():
            raise UserError(f"{file}: damaged (a row in {name} is not below {limit}); {advice}")
    return arrays


def read_height(folder: Path) -> int:
    """Height of the projections and true views in a set's folder, pixels; they are half as wide."""
    return read_json(folder / MANIFEST, _Size, remedy(folder)).height
