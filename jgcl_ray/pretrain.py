"""Pre-train: `python -m jgcl_ray.pretrain encoder --out FILE.safetensors [--minutes M]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jgcl_ray.arguments import LARGEST_SEED, positive, whole
from jgcl_ray.errors import UserError, exit_on_user_error

DESCRIPTION = """\
Make an identity encoder from rendered people alone: nobody's photos, no labels, nothing to download. People are
rendered once, into the cache, from eight sides each; then they are pasted before ever other backgrounds, spoilt as
cameras spoil them, and classified. Running the same command again goes on where it stopped.

The file is for --checkpoint of every command, for jgcl_ray.Encoder.load, and for run.init_from. The one that comes
with the package goes by the name `rendered`."""

EXAMPLES = """\
examples:
  python -m jgcl_ray.pretrain encoder --out mine.safetensors --minutes 30 --figures 1200 --threads 1
  python -m jgcl_ray.pretrain encoder --out wide.safetensors --device cuda --figures 20000 --steps 60000 \\
      --people 64 --backbone resnet50_ibn_a --height 256 --width 128 --drawers 8"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits 2 on bad input."""
    given = _parser().parse_args(arguments)
    with exit_on_user_error():
        import torch

        from jgcl_ray.pretraining.command import train_encoder

        if given.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: there is no GPU that torch can use; take --device cpu")
        train_encoder(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jgcl_ray.pretrain", description="Make the weights that the package ships, or others."
    )
    commands = parser.add_subparsers(required=True, metavar="encoder")
    encoder = commands.add_parser(
        "encoder",
        help="an identity encoder, from rendered people",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    encoder.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors to write")
    encoder.add_argument("--minutes", type=positive, help="of training, rendering not counted (60)")
    encoder.add_argument("--steps", type=whole(1), help="in the place of --minutes: results that can be repeated")
    encoder.add_argument("--figures", type=whole(2), help="people to render (3000), in shards of sixty")
    encoder.add_argument("--people", type=whole(2), help="in a batch (16)")
    encoder.add_argument("--images", type=whole(2), help="of each of them in a batch (4)")
    encoder.add_argument("--backbone", metavar="NAME", help="as encoder.backbone (resnet18)")
    encoder.add_argument("--init", metavar="FILE", help="an encoder to go on from, or `rendered` (random weights)")
    encoder.add_argument("--height", type=whole(16, 4096), help="of the input, pixels (96)")
    encoder.add_argument("--width", type=whole(16, 4096), help="of the input, pixels (48)")
    encoder.add_argument("--seed", type=whole(0, LARGEST_SEED), help="of people, pictures and weights (0)")
    encoder.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    encoder.add_argument(
        "--workers", type=whole(1), default=1, help="Ray workers, each on a GPU with --device cuda (1); with --steps"
    )
    encoder.add_argument("--drawers", type=whole(1), default=1, help="processes of each worker that draw (1)")
    encoder.add_argument("--threads", type=whole(1), help="of the CPU, to learn with (all cores)")
    return parser


if __name__ == "__main__":
    main()
