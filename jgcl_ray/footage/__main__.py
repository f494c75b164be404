"""From footage to crops: `python -m jgcl_ray.footage --camera NAME --video FILE --tracks FILE --out CROPS`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jgcl_ray.arguments import MOST_WORKERS, Parser, whole
from jgcl_ray.errors import UserError, exit_on_user_error

_EXAMPLES = """
The crops are CROPS/CAMERA/TRACK/FRAME.jpg, which `data.name=folder` reads; tracks.csv says of each its box, time,
quality and overlap, spans.csv of each track when it was there, summary.json how many there are.

  a video            python -m jgcl_ray.footage --camera door --video door.mp4 --tracks door.txt --out crops
  frames             python -m jgcl_ray.footage --camera door --frames door/ --fps 10 --tracks door.csv --out crops
  two cameras        ... --camera door --video door.mp4 --tracks door.txt --camera hall --frames hall --tracks h.txt
  MOTChallenge       python -m jgcl_ray.footage --sequence PETS09-S2L1 --out crops
  many cameras       python -m jgcl_ray.footage --sources cameras.yaml --out crops
                     cameras: [{camera: door, video: door.mp4, tracks: door.txt, start: 12.5}, ...]
  no tracks          python -m jgcl_ray.footage --camera door --video door.mp4 --detect --out crops

Track files: MOTChallenge and what ByteTrack, OC-SORT, DeepSORT, FairMOT, boxmot and Norfair make of it; the folder
labels/ of ultralytics; CSV and JSON with names (supervision, ultralytics' to_json); NVIDIA's MTMC text; KITTI and
DeepStream. The same command goes on with what was stopped; finished cameras are not done again.
Other settings cut a camera anew; other footage is refused without --replace.

exit codes: 0 done; 2 bad input of a camera, named in one line, after the others are done; 130 stopped by Ctrl-C,
143 by SIGTERM
"""

_OF_A_CAMERA = {
    "video": ("FILE", "its video"),
    "frames": ("DIR", "or its frames, images in the order of their names, or a MOTChallenge sequence"),
    "tracks": ("FILE", "what a tracker wrote: a file, or a folder with a file a frame"),
    "format": ("NAME", "auto, mot, ultralytics, csv, json, nvidia or kitti (auto)"),
    "first-frame": (
        "N",
        "number of the first frame in the track file: 0, 1, names (as in file names) or auto (auto)",
    ),
    "tracks-camera": ("NAME", "whose rows to take where the track file holds several cameras'"),
    "fps": ("RATE", "frames a second, of frames (25) or in place of the video's own"),
    "start": ("SECONDS", "from a common zero of all cameras to the first frame (0)"),
}


class _OfCamera(argparse.Action):
    """Kept with the others in the order given: each belongs to the --camera before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        namespace.options = [*(getattr(namespace, "options", None) or []), (self.dest, values)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, go through the footage, tell what came of it."""
    given = _parser().parse_args(arguments)
    with exit_on_user_error():
        from jgcl_ray.footage.command import Request, extract_crops
        from jgcl_ray.footage.sampling import Sampling
        from jgcl_ray.footage.sources import read_sources, sequences
        from jgcl_ray.footage.tracks import Filters

        sources = _sources_of_options(getattr(given, "options", None) or [], given.detect)
        sources += [source for path in given.sources for source in read_sources(path)]
        sources += [source for path in given.sequence for source in sequences(path)]
        lines = extract_crops(
            Request(
                sources=tuple(sources),
                out=given.out,
                filters=Filters("auto", tuple(given.classes), given.min_confidence, given.min_visibility),
                sampling=Sampling(
                    per_track=given.per_track,
                    every=given.every,
                    min_height=given.min_height,
                    max_overlap=given.max_overlap,
                    min_inside=given.min_inside,
                    min_boxes=given.min_boxes,
                    views=given.views,
                ),
                detector_weights=given.detector_weights,
                workers=given.workers,
                sheet=given.sheet,
                replace=given.replace,
            )
        )
        print("\n".join(lines))


def _sources_of_options(options: Sequence[tuple[str, str]], detect: str | None) -> list[Any]:
    """A Source for each --camera, of the options after it; with one camera their order does not matter."""
    from jgcl_ray.footage.sources import Source

    names = [value for name, value in options if name == "camera"]
    if options and not names:
        raise UserError("--camera NAME is missing: whose footage is it?")
    groups: list[dict[str, Any]] = [{"camera": name, "detect": detect} for name in names]
    place = 0 if len(names) == 1 else -1
    for name, value in options:
        if name == "camera":
            place += len(names) > 1
            continue
        if place < 0:
            raise UserError(f"--{name.replace('_', '-')} stands before the first --camera: give it after its camera")
        if name in groups[place]:
            raise UserError(f"camera {groups[place]['camera']}: --{name.replace('_', '-')} is given twice")
        groups[place][name] = _converted(name, value)
    return [Source(**group) for group in groups]


def _converted(name: str, value: str) -> Any:
    if name in ("video", "frames", "tracks"):
        if not value:
            raise UserError(f"--{name}: an empty path; . is the folder that the command is given in")
        return Path(value)
    if name in ("fps", "start"):
        try:
            return float(value)
        except ValueError:
            raise UserError(f"--{name} {value}: no number") from None
    return value


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.footage",
        description="Cut people out of footage along their tracks: the best few crops of each, a folder per track.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="CROPS", help="folder for the crops")
    cameras = parser.add_argument_group("cameras (repeat --camera and what follows it)")
    cameras.add_argument("--camera", action=_OfCamera, metavar="NAME", help="name of a camera")
    for name, (metavar, text) in _OF_A_CAMERA.items():
        cameras.add_argument(f"--{name}", action=_OfCamera, metavar=metavar, help=text)
    cameras.add_argument(
        "--sources", type=Path, nargs="+", default=[], metavar="YAML", help="many cameras, from a file"
    )
    cameras.add_argument(
        "--sequence",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="MOTChallenge sequences, or folders of them",
    )
    cameras.add_argument(
        "--detect",
        nargs="?",
        const="auto",
        metavar="NAME",
        help="find people where there are no tracks: ultralytics or torchvision, whichever is installed, then "
        "ByteTrack of the package trackers",
    )
    cameras.add_argument("--detector-weights", type=Path, metavar="FILE", help="of the detector (its own default)")
    boxes = parser.add_argument_group("which boxes count")
    boxes.add_argument(
        "--classes", nargs="+", default=[], metavar="CLASS", help="classes by name or number as in the file (persons)"
    )
    boxes.add_argument("--min-boxes", type=whole(1), default=3, metavar="N", help="of a track, else left out (3)")
    boxes.add_argument("--min-height", type=whole(1), default=24, metavar="PIXELS", help="in the frame (24)")
    shares = {
        "--min-confidence": (0.0, "where the file has confidences (0)"),
        "--min-visibility": (0.3, "where the file has visibilities (0.3)"),
        "--max-overlap": (0.7, "share that another box covers (0.7)"),
        "--min-inside": (0.6, "share of a box within the frame (0.6)"),
    }
    for name, (usual, meaning) in shares.items():
        boxes.add_argument(name, type=_share, default=usual, metavar="0..1", help=meaning)
    choice = parser.add_argument_group("which of them become crops")
    choice.add_argument("--per-track", type=whole(1), default=12, metavar="N", help="crops of a track at most (12)")
    choice.add_argument(
        "--every", type=_seconds, default=0.5, metavar="SECONDS", help="between crops of a track, about (0.5)"
    )
    choice.add_argument(
        "--no-views",
        dest="views",
        action="store_false",
        help="choose by time and quality alone, not by the side seen",
    )
    parser.add_argument(
        "--workers",
        type=whole(0, MOST_WORKERS),
        metavar="N",
        help="cameras at once over Ray; 0: one after the other, without Ray",
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="contact sheet (CROPS/.footage/sheet.png)")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="cut a camera anew whose crops are of other footage",
    )
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1e-3 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0.001 or more")
    return value


if __name__ == "__main__":
    main()
