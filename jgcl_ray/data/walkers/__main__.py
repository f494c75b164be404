"""`python -m jgcl_ray.data.walkers --out DIR`: render a set of walkers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jgcl_ray.arguments import LARGEST_SEED, LARGEST_SIDE, MOST_WORKERS, Parser, whole
from jgcl_ray.batches import NOVEL_VIEWS
from jgcl_ray.config import WalkersConfig
from jgcl_ray.contact_sheet import check_sheet
from jgcl_ray.data.walkers.plan import TRAIN_SHARE
from jgcl_ray.data.walkers.rendering import PRESETS, REPORTED_SEED, WalkersSize, check_room, ensure_rendered, render
from jgcl_ray.data.walkers.sheet import contact_sheet
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.image_files import write_picture
from jgcl_ray.places import absolute

_PRESETS = f"""
presets, identities for training + test:
  tiny    16 + 8         for trying things out
  demo    60 + 40        the default configuration's
  medium  200 + 300      to tell recipes apart: the standard error of mAP over its people is about 1.3 points. 30 % of
                         its training people are seen by two cameras from opposite sides only; of its test photos only
                         40, of 40 people, have projections and true views
  source  120 + 4        photos alone, for learning from labels before a run
  full    1,000 + 500    Market-1501's size

Settings are tuned on --seed 1 and results reported on --seed {REPORTED_SEED}: other people, other cameras.
"""

MOST_PHOTOS = 1_000_000
LARGEST_TRUTH = 2**35  # bytes of the true views, which one file holds


def main(given: Sequence[str] | None = None) -> None:
    """Parse, render, draw the sheet."""
    parser = Parser(
        prog="python -m jgcl_ray.data.walkers",
        description="Render people walking before six cameras: a re-identification data set in Market-1501's layout, "
        "with mesh projections (meshes/) and the truth about every photo (views.npz).",
        epilog=_PRESETS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder to write; the cache when not given")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo", help="size of the set (default: demo)")
    parser.add_argument("--identities", type=int, help="people in train and test together, 60 %% of them in train")
    parser.add_argument("--images", type=int, help="photos of each identity")
    parser.add_argument("--true-views", type=int, help="photos that are also taken from the seven other views")
    parser.add_argument(
        "--tracks",
        action="store_true",
        help="training photos are frames of walks: six for every second photo, with tracklets in tracks.csv",
    )
    parser.add_argument("--height", type=int, help="height of projections and true views in pixels")
    parser.add_argument(
        "--seed", type=whole(0, LARGEST_SEED), default=1, help="another seed, other people and cameras (default: 1)"
    )
    parser.add_argument("--workers", type=whole(1, MOST_WORKERS), help="processes (default: one for each core)")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet (PNG) of the set")
    arguments = parser.parse_args(given)
    with exit_on_user_error():
        size = _size(arguments)
        if arguments.sheet is not None:
            check_sheet(arguments.sheet, "--sheet")
        if arguments.out is None:
            if replace(size, tracks=False) != PRESETS[arguments.preset]:
                raise UserError("--out is needed for a set of your own size; the cache holds presets only")
            walkers = WalkersConfig(preset=arguments.preset, seed=arguments.seed, tracks=arguments.tracks)
            out = ensure_rendered(walkers)
        else:
            out = absolute(arguments.out)
            check_room(out, "--out")
            render(out, size, arguments.seed, arguments.workers)
        print(f"walkers: {out}")
        if arguments.sheet is not None:
            write_picture(contact_sheet(out), arguments.sheet)
            print(f"sheet: {arguments.sheet}")


def _size(arguments: argparse.Namespace) -> WalkersSize:
    size = replace(PRESETS[arguments.preset], tracks=arguments.tracks)
    for name, least, most in (
        ("identities", 4, 9_999),  # file names have four digits
        ("images", 4, 9_999),
        ("true_views", 0, MOST_PHOTOS),
        ("height", 32, LARGEST_SIDE),
    ):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {least} and at most {most:,}")
    if arguments.height is not None and arguments.height % 2:
        raise UserError(f"--height {arguments.height}: must be even, the width is half of it")
    if arguments.identities is not None:
        train = round(TRAIN_SHARE * arguments.identities)
        size = replace(size, train=train, test=arguments.identities - train)
    size = _with(size, arguments)
    photos = (size.train + size.test) * size.images
    if photos > MOST_PHOTOS:
        raise UserError(f"{photos:,} photos, a set has at most {MOST_PHOTOS:,}; lower --identities or --images")
    if arguments.true_views is not None and arguments.true_views > photos:
        raise UserError(f"--true-views {arguments.true_views}: the set has {photos:,} photos, give at most as many")
    taken = size.true_views * len(NOVEL_VIEWS) * 3 * size.height * size.height // 2
    if taken > LARGEST_TRUTH:
        raise UserError(
            f"--true-views {size.true_views} --height {size.height}: {taken / 2**30:,.0f} GiB of pictures in one "
            f"file, at most {LARGEST_TRUTH // 2**30} are made; lower one of the two"
        )
    return size


def _with(size: WalkersSize, arguments: argparse.Namespace) -> WalkersSize:
    changes = {name: getattr(arguments, name) for name in ("images", "true_views", "height")}
    return replace(size, **{name: value for name, value in changes.items() if value is not None})


if __name__ == "__main__":
    main()
