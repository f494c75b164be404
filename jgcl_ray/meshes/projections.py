"""The projection of image i at view v: one interface, and where projections come from.

`python -m jgcl_ray.meshes.projections` draws the projections of per-image body parameters ahead, into folders.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jgcl_ray.arguments import MOST_WORKERS, Parser, whole
from jgcl_ray.choices import RENDERERS
from jgcl_ray.config import DataConfig, MeshesConfig
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.meshes.projection_folders import TRUTH, FolderProjections, SplitName
from jgcl_ray.places import absolute
from jgcl_ray.wording import counted


class ProjectionSource(Protocol):
    """Where projections come from."""

    @property
    def knows_bodies(self) -> bool:
        """Whether `coordinates` can tell; pictures of bodies in folders cannot."""
        ...

    def load(self, row: int, view: int) -> np.ndarray:
        """The mesh of the person in image `row` turned by `view` degrees (one of VIEWS): uint8 (h, w), grey.

        It covers the image's field exactly, whatever h and w are.
        """
        ...

    def coordinates(self, row: int, view: int) -> np.ndarray:
        """Which point of the body of reference each pixel sees, for the image in `row` turned by `view` degrees.

        float16 (H, W, 3) of the images' size, metres, axes as in BodyModel.reference; NaN where it sees no body.
        UserError where bodies are not known (`knows_bodies`).
        """
        ...


def drawn_by_view(
    draw: Callable[[int, int], np.ndarray], rows: Sequence[int], views: Iterable[int]
) -> dict[int, np.ndarray]:
    """By view, `draw(row, view)` of all rows, stacked. Row after row: a source keeps but its last body ready."""
    columns = list(views)
    drawn = [[draw(row, view) for view in columns] for row in rows]
    return {view: np.stack(of_rows) for view, of_rows in zip(columns, zip(*drawn, strict=True), strict=True)}


def open_projections(
    meshes: MeshesConfig,
    data: DataConfig,
    names: Sequence[str],
    split: SplitName,
    images: Path | None = None,
) -> ProjectionSource:
    """The projections that the configuration names, for the rows of a split.

    `names`: the split's images, relative to its folder `images`; without that, data.root must not be a folder of
    projections. Everything is checked up front; UserError where a projection is missing.
    """
    if meshes.source == "parameters":
        from jgcl_ray.meshes.drawing import ParameterProjections

        if meshes.parameters is None:
            raise UserError("meshes.parameters is not set: give the npz with body parameters per image")
        return ParameterProjections(
            meshes.parameters, meshes.smpl, names, data.height, data.width, renderer=meshes.renderer
        )
    if meshes.source == "estimated":
        from jgcl_ray.meshes.drawing import ParameterProjections

        if meshes.parameters is None:
            raise ValueError("estimated bodies are kept in a file (estimated_bodies.ensure_estimated): none is given")
        return ParameterProjections(
            meshes.parameters, None, names, data.height, data.width, renderer=meshes.renderer, light=True
        )
    if meshes.source == "upright":
        from jgcl_ray.meshes.upright import UprightProjections

        return UprightProjections(names, data.height, data.width)
    root = meshes.root
    if root is None and meshes.source == "walkers":
        if data.root is None:
            raise UserError("data.root is not set: the walkers' projections lie in data.root/meshes")
        root = data.root / "meshes"
    if root is None:
        raise UserError(
            "meshes.root is not set: give the folder that holds train/render, train/render_45, ..., or have the "
            "bodies estimated by meshes.source=estimated"
        )
    if meshes.source == "walkers" and (root.parent / TRUTH).is_file():
        from jgcl_ray.meshes.walker_bodies import WalkersProjections

        return WalkersProjections(root, names, split, data.height, data.width, images or data.root)
    return FolderProjections(root, names, split, data.height / data.width, images or data.root)


def _size_argument(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and 16 <= int(height) <= 4096 and 8 <= int(width) <= 4096):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, such as 256x128")
    return int(height), int(width)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.meshes.projections",
        description="Draw the projections of per-image body parameters at eight views. "
        "Running it again goes on where it stopped.",
    )
    parser.add_argument("--parameters", type=Path, required=True, help="npz: names, pose, betas, camera")
    parser.add_argument("--smpl", type=Path, help="SMPL file, .npz or .pkl; not needed for Anny's parameters")
    parser.add_argument("--out", type=Path, required=True, help="folder for SPLIT/render, SPLIT/render_45, ...")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="which split the images are of")
    parser.add_argument("--size", type=_size_argument, default=(256, 128), metavar="HxW", help="default 256x128")
    parser.add_argument("--renderer", choices=("auto", *RENDERERS), default="auto")
    parser.add_argument(
        "--workers",
        type=whole(0, MOST_WORKERS),
        help="processes on the Ray cluster; 0: this alone; default: all CPUs",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits 2 on bad input, 130 on Ctrl-C."""
    from jgcl_ray.meshes.drawing import DrawJob, draw_ahead

    given = _parser().parse_args(arguments)
    height, width = given.size
    with exit_on_user_error():
        smpl = given.smpl and absolute(given.smpl)
        files = absolute(given.parameters), smpl, absolute(given.out)
        job = DrawJob(*files, given.split, height, width, given.renderer)
        try:
            drawn, kept = draw_ahead(job, given.workers)
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
        print(f"{counted(drawn, 'picture')} drawn, {kept} kept: {given.out / given.split}")


if __name__ == "__main__":
    main()
