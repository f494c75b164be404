"""Crops that `python -m jgcl_ray.footage` has not cut to the end: CROPS/.footage/CAMERA.jsonl tells of them."""

from __future__ import annotations

from pathlib import Path

from jgcl_ray.errors import UserError

STATE = ".footage"  # in the folder of crops


def journal_of(crops: Path, camera: str) -> Path:
    """What there is of a camera while it is under way, and after its command was stopped or failed."""
    return crops / STATE / f"{camera}.jsonl"


def refuse_unfinished(folder: Path) -> None:
    """UserError where `folder` holds, or is below, a camera's crops that are not all cut yet."""
    for crops in (folder, *folder.parents[:2]):  # CROPS, CROPS/CAMERA, CROPS/CAMERA/TRACK
        inner = folder.relative_to(crops).parts
        for journal in sorted((crops / STATE).glob("*.jsonl")):
            camera = journal.stem
            if (not inner or inner[0] == camera) and (crops / camera).is_dir():
                raise UserError(
                    f"{crops / camera}: half of the crops only, python -m jgcl_ray.footage was stopped or is at "
                    f"work; give that command again, it goes on, or delete {journal} to take what is there"
                )
