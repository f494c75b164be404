"""Body models, and how a file of body parameters is known to be for one. A new one: its class, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jgcl_ray.meshes.body_models import AnnyBody, BodyModel, anny_body, smpl_body
from jgcl_ray.meshes.light_body import light_body


@dataclass(frozen=True)
class BodyKind:
    """A body model, and what its parameters look like."""

    title: str
    shape_key: str  # name of the shapes (N, S) in a file of body parameters, by which it is known
    shapes: int | None  # S; None: any number that the model takes
    joints: int  # J
    needs_file: bool  # of the user's (meshes.smpl)
    load: Callable[[Path | None, bool], BodyModel]  # of that file, or None; true: few triangles will do


def _smpl(file: Path | None, light: bool) -> BodyModel:
    assert file is not None
    return smpl_body(file)


def _anny(file: Path | None, light: bool) -> BodyModel:
    return light_body() if light else anny_body()


BODY_KINDS = {
    "smpl": BodyKind("SMPL", "betas", shapes=None, joints=24, needs_file=True, load=_smpl),
    "anny": BodyKind("Anny", "phenotypes", len(AnnyBody.PHENOTYPES), joints=104, needs_file=False, load=_anny),
}
