"""`python -m jgcl_ray.meshes.estimator estimate`: the bodies on images."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from jgcl_ray.arguments import Parser
from jgcl_ray.contact_sheet import check_sheet
from jgcl_ray.data.datasets.image_tree import image_tree
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.image_files import write_picture
from jgcl_ray.meshes.body_parameters import check_parameters_file, write_body_parameters
from jgcl_ray.meshes.estimator import UNSURE_ABOVE, BodyEstimator
from jgcl_ray.places import absolute
from jgcl_ray.progress import tracked


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits 2 on bad input."""
    given = _parser().parse_args(arguments)
    with exit_on_user_error():
        if given.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: there is no GPU that torch can use; take --device cpu")
        given.run(given)


def _estimate(given: argparse.Namespace) -> None:
    images, out = absolute(given.images), absolute(given.out)
    if given.smpl is not None and given.checkpoint is None:
        raise UserError("--smpl is for SPIN's bodies (--checkpoint); those of the package's estimator need none")
    if given.checkpoint is not None and given.sheet is not None and given.smpl is None:
        raise UserError("--sheet of SPIN's bodies (--checkpoint) needs their model: give it by --smpl FILE")
    if given.checkpoint is not None and given.checkpoint.suffix == ".safetensors":
        raise UserError(f"--checkpoint {given.checkpoint}: SPIN's is a file of torch.save, .pt; or is it --weights?")
    check_parameters_file(out, "--out")
    if given.sheet is not None:
        check_sheet(given.sheet, "--sheet")
    names = image_tree(images)
    if given.checkpoint is not None:
        from jgcl_ray.meshes.spin import SpinEstimator

        parameters = SpinEstimator(given.checkpoint, given.device).estimate(images, names, _tracked)
        write_body_parameters(parameters, out)
        said = "SMPL parameters"
    else:
        estimates = BodyEstimator(given.weights, given.device).estimate(images, names, _tracked)
        parameters = estimates.to_parameters()
        write_body_parameters(parameters, out, yaw=estimates.yaw, deviation=estimates.deviation)
        said = f"bodies, {int(estimates.unsure().sum()):,} of them unsure of the side (deviation > {UNSURE_ABOVE:g}°)"
    print(f"{out}: {len(names):,} {said}")
    if given.sheet is not None:
        from jgcl_ray.meshes.estimate_sheet import estimate_sheet

        write_picture(estimate_sheet(images, out, given.smpl), given.sheet)
        print(f"sheet: {given.sheet}")


def _tracked(batches: Iterable[range]) -> Iterable[range]:
    return tracked(batches, "bodies")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.meshes.estimator",
        description="The bodies of the people on images, for mesh projections (meshes.source=parameters).",
    )
    commands = parser.add_subparsers(required=True, metavar="estimate")
    estimate = commands.add_parser("estimate", help="write the body parameters of all images below a folder")
    estimate.set_defaults(run=_estimate)
    estimate.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with crops of people")
    estimate.add_argument("--out", type=Path, required=True, metavar="NPZ", help="file to write")
    estimate.add_argument("--weights", type=Path, metavar="FILE", help="other weights than the package's")
    estimate.add_argument("--checkpoint", type=Path, metavar="FILE", help="SPIN's checkpoint: SMPL, not Anny")
    estimate.add_argument("--smpl", type=Path, metavar="FILE", help="SMPL file, to draw the sheet of a --checkpoint")
    estimate.add_argument("--sheet", type=Path, metavar="PNG", help="picture of 60 images with their projections")
    estimate.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


if __name__ == "__main__":
    main()
