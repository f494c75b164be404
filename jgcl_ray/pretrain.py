"""Pre-train: `python -m jgcl_ray.pretrain encoder|generator|estimator --out FILE.safetensors`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jgcl_ray.arguments import LARGEST_SEED, MOST_WORKERS, Parser, positive, whole
from jgcl_ray.errors import UserError, exit_on_user_error

MOST_FIGURES = 1_000_000
LARGEST_BATCH = 10_000

ENCODER = """\
Make an identity encoder from rendered people alone: nobody's photos, no labels, nothing to download. People are
rendered once, into the cache, from eight sides each; then they are pasted before ever other backgrounds, spoilt as
cameras spoil them, and told apart. Running the same command again goes on where it stopped.

The file is for --checkpoint of every command, for jgcl_ray.Encoder.load, and for run.init_from. The one that comes
with the package goes by the name `rendered`."""

ENCODER_EXAMPLES = """\
examples:
  python -m jgcl_ray.pretrain encoder --out mine.safetensors --minutes 30 --figures 1200 --threads 1
  python -m jgcl_ray.pretrain encoder --out wide.safetensors --device cuda --figures 20000 --steps 60000 \\
      --people 64 --backbone resnet50_ibn_a --height 256 --width 128 --drawers 8"""

GENERATOR = """\
Make a generator of views from rendered people alone. It refines drafts, photos' pixels moved along the surface of the
body, and learns from true views of the same people in the same pose: by the difference of pixels and of a frozen
encoder's maps, then by a discriminator, too. Half of the bodies are spoilt, as estimated ones are. Running the same
command again goes on where it stopped.

The file is for `python -m jgcl_ray.generate --surface --views-from FILE`. One comes with the package."""

GENERATOR_EXAMPLES = """\
examples:
  python -m jgcl_ray.pretrain generator --out views.safetensors --minutes 40 --figures 3600 --threads 1
  python -m jgcl_ray.pretrain generator --out views.safetensors --device cuda --figures 20000 --steps 60000 \\
      --photos 64 --drawers 12"""


ESTIMATOR = """\
Make an estimator of bodies from rendered people alone. Running the same command again goes on where it stopped. The
file is for meshes.weights. With a GPU: --device cuda --figures 20000 --steps 40000 --batch 512 --drawers 12."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits 2 on bad input."""
    given = _parser().parse_args(arguments)
    with exit_on_user_error():
        import torch

        from jgcl_ray.estimator_training.command import train_weights
        from jgcl_ray.pretraining import command

        if given.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: there is no GPU that torch can use; take --device cpu")
        train = {
            "encoder": command.train_encoder,
            "generator": command.train_generator,
            "estimator": train_weights,
        }
        train[given.kind](given)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jgcl_ray.pretrain", description="Make the weights that the package ships, or others."
    )
    commands = parser.add_subparsers(required=True, metavar="encoder|generator|estimator", dest="kind")
    encoder = _kind(commands, "encoder", "an identity encoder, from rendered people", ENCODER, ENCODER_EXAMPLES)
    encoder.add_argument("--people", type=whole(2, LARGEST_BATCH), help="in a batch (16)")
    encoder.add_argument("--images", type=whole(2), help="of each of them in a batch (4)")
    encoder.add_argument("--backbone", metavar="NAME", help="as encoder.backbone (resnet18_ibn_a)")
    encoder.add_argument("--init", metavar="FILE", help="an encoder to go on from, or `rendered` (random weights)")
    about = "a generator that refines views along the surface, from rendered people"
    generator = _kind(commands, "generator", about, GENERATOR, GENERATOR_EXAMPLES)
    generator.add_argument("--init", metavar="FILE", help="weights to start from, judged from the first step on")
    generator.add_argument("--photos", type=whole(1, LARGEST_BATCH), help="in a batch (6)")
    generator.add_argument("--views", type=whole(1), help="of each of them in a batch, at most 3 (3)")
    generator.add_argument("--learning-rate", type=positive, metavar="R", help="the greatest (0.001)")
    generator.add_argument(
        "--adversarial-weight", type=positive, metavar="W", help="of the discriminator: sharper, less exact (0.005)"
    )
    about = "the estimator of bodies, from rendered people"
    estimator = commands.add_parser("estimator", help=about, description=ESTIMATOR)
    estimator.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors to write")
    estimator.add_argument(
        "--figures", type=whole(1, MOST_FIGURES), help="people to render (3600), in shards of sixty"
    )
    estimator.add_argument("--steps", type=whole(1), help="steps (6800: half an hour on two cores)")
    estimator.add_argument("--batch", type=whole(1, LARGEST_BATCH), help="pictures in a step (64)")
    estimator.add_argument("--seed", type=whole(0, LARGEST_SEED), help="of people, pictures and weights (0)")
    estimator.add_argument("--init", type=Path, metavar="FILE", help="an estimator to go on from (random weights)")
    _where(estimator)
    return parser


def _kind(commands: Any, name: str, about: str, description: str, examples: str) -> Parser:
    """A command with the options that all have."""
    parser: Parser = commands.add_parser(
        name,
        help=about,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors to write")
    parser.add_argument("--minutes", type=positive, help="of training, rendering not counted (60)")
    parser.add_argument("--steps", type=whole(1), help="in the place of --minutes: results that can be repeated")
    parser.add_argument("--figures", type=whole(2, MOST_FIGURES), help="people to render (3000), in shards of sixty")
    parser.add_argument("--height", type=whole(16, 4096), help="of the pictures, pixels (96)")
    parser.add_argument("--width", type=whole(16, 4096), help="of the pictures, pixels (48)")
    parser.add_argument("--seed", type=whole(0, LARGEST_SEED), help="of people, pictures and weights (0)")
    _where(parser)
    return parser


def _where(parser: Parser) -> None:
    """The options of the machine."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--workers",
        type=whole(1, MOST_WORKERS),
        default=1,
        help="Ray workers, each on a GPU with --device cuda (1); with --steps",
    )
    parser.add_argument(
        "--drawers", type=whole(1, MOST_WORKERS), default=1, help="processes of each worker that draw (1)"
    )
    parser.add_argument("--threads", type=whole(1, MOST_WORKERS), help="of the CPU, to learn with (all cores)")


if __name__ == "__main__":
    main()
