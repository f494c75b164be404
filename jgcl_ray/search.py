"""Search: `python -m jgcl_ray.search --checkpoint PATH --index FILE [--gallery DIR] [--query IMAGE]`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from jgcl_ray.arguments import LARGEST_SIDE, Parser, finite, whole
from jgcl_ray.errors import UserError, exit_on_user_error, legible

_EXAMPLES = """
An index is one file; it holds the embeddings of the gallery's images and where they lie.

  build it         python -m jgcl_ray.search --checkpoint runs/walkers --index people.idx --gallery crops/
  ask it           python -m jgcl_ray.search --checkpoint runs/walkers --index people.idx --query someone.jpg
  put more in      python -m jgcl_ray.search --checkpoint runs/walkers --index people.idx --add crops/monday
  ask for tracks  python -m jgcl_ray.search ... --query someone.jpg --by track --in-camera door --until 600
  take some out    python -m jgcl_ray.search --index people.idx --remove crops/sunday

With --camera-means the folders in the --gallery are cameras, and the mean embedding of each is taken off its images
and off the queries (--camera NAME says whose they are); a mean is that of the images by which its camera came into
the index, until it is built anew.

Answers go to standard output, one a line: rank, Euclidean distance of the L2-normalised embeddings (0 to 2), path;
of tracks CAMERA/TRACK and first and last time before the path.
"""


def main(arguments: list[str] | None = None) -> None:
    """Parse, change the index, answer."""
    given = vars(_parser().parse_args(arguments))
    sheet, file = given.pop("sheet"), given.pop("json")
    with exit_on_user_error():
        if (sheet or file) and not given["query"]:
            raise UserError("--sheet and --json show the answers to a --query, and there is none")

        from jgcl_ray.atomic import write_json
        from jgcl_ray.contact_sheet import check_sheet
        from jgcl_ray.ownership import is_answers
        from jgcl_ray.places import check_apart, check_file
        from jgcl_ray.retrieval.answers import write_sheet
        from jgcl_ray.retrieval.request import Request, search_gallery

        check_apart({"--index": given["index"], "--sheet": sheet, "--json": file})
        for query in given["query"]:
            check_apart({"--query": query, "--sheet": sheet})
        if sheet is not None:
            check_sheet(sheet, "--sheet")
        if file is not None:
            check_file(file, "--json", is_answers)
        answers = search_gallery(Request(**given))
        try:
            if sheet is not None:
                write_sheet(answers, sheet)
            if file is not None:
                write_json(file, [asdict(answer) for answer in answers])
        finally:  # a disk may be full: the answers are there
            for answer in answers:
                print("\n".join([legible(answer.query), *answer.lines()] if len(answers) > 1 else answer.lines()))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.search",
        description="Find a person's images in a gallery: embed the gallery once into an index, then ask it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--index", type=Path, required=True, metavar="FILE", help="the index, read and written")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="the encoder: rendered, the package's own; or a run folder, a checkpoint, an exported .safetensors, an "
        "official id_*.pt, a ResNet file",
    )
    parser.add_argument("--gallery", type=Path, metavar="DIR", help="build the index anew from all images below DIR")
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="PATH", help="images or folders to put in")
    parser.add_argument(
        "--remove", type=Path, nargs="+", default=[], metavar="PATH", help="images or folders to take out"
    )
    parser.add_argument("--query", type=Path, nargs="+", default=[], metavar="IMAGE", help="images to look for")
    parser.add_argument("-k", type=whole(1), default=10, help="answers to each query (10)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the queries and their answers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers")
    parser.add_argument(
        "--kind",
        choices=("auto", "flat", "hnsw", "ivf"),
        default="auto",
        help="of a new index: flat compares with every image; hnsw and ivf are approximate and quick on millions; "
        "auto: flat up to 200,000 images, then ivf",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="of a new index: embed the mean of image and mirror image, of queries, too; takes twice the time",
    )
    parser.add_argument(
        "--multi-scale",
        action=argparse.BooleanOptionalAction,
        help="of a new index: embed the mean of images read at the encoder's size, 5/6 and 4/3 of it, of queries, "
        "too; takes 3.5 times the time (rendered: yes; others: no)",
    )
    parser.add_argument(
        "--camera-means",
        action="store_true",
        help="of a new index: take each camera's mean embedding off; a camera is a folder in the --gallery",
    )
    parser.add_argument(
        "--camera",
        metavar="NAME",
        help="whose images --query and --add name, in an index with --camera-means; without it the mean of all "
        "cameras is taken off queries, and added images go by their folders",
    )
    parser.add_argument(
        "--by",
        choices=("image", "track"),
        default="image",
        help="an answer is an image, or a track (DIR/CAMERA/TRACK/NAME), by its nearest crop and with its time span",
    )
    parser.add_argument(
        "--in-camera", nargs="+", default=[], metavar="NAME", help="answers from these cameras alone (CAMERA/TRACK)"
    )
    parser.add_argument(
        "--since", type=finite, metavar="SECONDS", help="answers from this time on, of tracks.csv (or frame numbers)"
    )
    parser.add_argument("--until", type=finite, metavar="SECONDS", help="answers up to this time")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out, with a warning, what is no readable image"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument("--batch-size", type=whole(1), default=64, metavar="N", help="images at a time (64)")
    parser.add_argument(
        "--height", type=whole(1, LARGEST_SIDE), help="pixels to which images are resized (the training's)"
    )
    parser.add_argument("--width", type=whole(1, LARGEST_SIDE), help="likewise")
    return parser


if __name__ == "__main__":
    main()
