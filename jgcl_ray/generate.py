"""Generate: `python -m jgcl_ray.generate --checkpoint PATH --images DIR --out DIR [section.field=value ...]`.

`--surface` in place of `--checkpoint`: without a run, by the photos' own pixels and the package's generator.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from jgcl_ray.arguments import MOST_WORKERS, Parser, whole
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.wording import counted

_WRITTEN = """
written to --out:
  grid.png                      up to twelve photos, spread over the folder, and their views, a row each
  train/render_45/NAME.png ...  every view as a file, in the layout of mesh projections (render: the photo's own view)
  turntables/NAME.gif           with --gif
  mix.png, mix.gif              with --mix A B
  scores.json                   with --score

Views need the projections of the people's bodies. They come from where the run's came from (section `meshes` of its
configuration); walkers find theirs beside the image folder. Others are given at the end of the command:
  meshes.source=folders meshes.root=DIR     drawn ahead, in the layout of the GCL authors
  meshes.source=parameters meshes.parameters=FILE.npz
  meshes.source=estimated                   bodies that the project's own estimator finds on the photos
  meshes.source=upright                     a generic walker, seen from a drawn side: shows colours, not the true side
"""


def main(arguments: list[str] | None = None) -> None:
    """Parse, generate, print the scores."""
    given = vars(_parser().parse_intermixed_args(arguments))
    with exit_on_user_error():
        if given["inception"] and not given["score"]:
            raise UserError("--inception is for --score, which is not wanted")
        surface = given.pop("surface")
        if surface and (given["score"] or given["mix"]):
            raise UserError("--score and --mix need a run's generator: give --checkpoint instead of --surface")
        if given["drafts"] and given["views_from"]:
            raise UserError("--drafts are not refined: give either that or --views-from")
        if not surface and (given["drafts"] or given["views_from"]):
            raise UserError("--drafts and --views-from are for --surface")
        if not surface and given["workers"] is not None:
            raise UserError("--workers is for --surface")
        if given["views_from"] is None:
            del given["views_from"]

        from jgcl_ray.generation.request import Request, generate_views

        scores = generate_views(Request(**given | {"overrides": tuple(given["overrides"])}))
        sheets = {"grid.png": given["first"] != 0, "mix.png": given["mix"] is not None}
        at = " and ".join(str(given["out"] / name) for name, written in sheets.items() if written)
        print(f"views: in the folder {given['out']}" + (f"; look at {at}" if at else ""))
        if scores is not None:
            print(
                f"{counted(scores.pictures, 'view')} of {counted(scores.images, 'photo')}; FID by {scores.features}"
            )
            for name, likeness in (("generated", scores.generated), ("copy of the photo", scores.copy)):
                body = f"PSNR {likeness.psnr:.2f} dB, {likeness.psnr_body:.2f} dB within the body"
                print(f"{name:18} {body}, SSIM {likeness.ssim:.3f}, FID {likeness.fid:.1f}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.generate",
        description="Draw the people on photos from other sides, by a trained generator or by their own pixels.",
        epilog=_WRITTEN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    by = parser.add_mutually_exclusive_group(required=True)
    by.add_argument(
        "--surface",
        action="store_true",
        help="the photos' own pixels, moved along the surface of the bodies that the package's estimator finds (or "
        "meshes.source=walkers, parameters, upright) and refined by the package's generator; size by data.height=96 "
        "data.width=48",
    )
    by.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="a run folder or a checkpoint, from the stage `generation` on; or a folder with id_*.pt and gen_*.pt of "
        "the GCL authors",
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder with photos of people")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--drafts", action="store_true", help="with --surface: moved pixels alone, nothing learnt")
    parser.add_argument(
        "--views-from",
        type=Path,
        metavar="FILE",
        help="with --surface: weights of `python -m jgcl_ray.pretrain generator` (the package's)",
    )
    parser.add_argument("--views", type=int, choices=(1, 2, 4, 8), default=8, help="how many, round the person (8)")
    parser.add_argument("--first", type=whole(0), metavar="N", help="only the first N photos; 0 for none (all)")
    parser.add_argument("--gif", action="store_true", help="turning people as animations, too")
    parser.add_argument(
        "--mix", nargs=2, metavar=("A", "B"), help="two of the photos: A's body in colours from A's to B's"
    )
    parser.add_argument(
        "--score", action="store_true", help="on walkers: PSNR, SSIM and FID to their true views, and of a mere copy"
    )
    parser.add_argument(
        "--inception", type=Path, metavar="FILE", help="TorchScript Inception for the FID (the encoder's features)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument(
        "--workers",
        type=whole(0, MOST_WORKERS),
        metavar="N",
        help="with --surface, on CPUs: Ray workers; 0 for this process alone (one a CPU; up to 200 photos 0)",
    )
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes to the configuration")
    return parser


if __name__ == "__main__":
    main()
