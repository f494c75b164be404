"""Export: `python -m jgcl_ray.export --checkpoint PATH --format onnx|pt2|torchscript|safetensors --out FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jgcl_ray.arguments import LARGEST_SIDE, Parser, whole
from jgcl_ray.errors import exit_on_user_error

_FORMATS = """
formats:
  onnx         for ONNX Runtime, TensorRT, OpenVINO and others (needs pip install 'jgcl_ray[export]')
  pt2          torch.export's, for torch.export.load and AOTInductor
  torchscript  for torch.jit.load in Python and C++; deprecated by PyTorch
  safetensors  the weights alone, for jgcl_ray.Encoder.load and every command's --checkpoint

The first three take float32 RGB images (n, 3, H, W) with values in [0, 1], n of any size, and give L2-normalised
embeddings (n, D); the normalisation by ImageNet's mean and deviation is inside. What to do with an image before is
printed, and kept in the file under the name "preprocessing".
"""


def main(arguments: list[str] | None = None) -> None:
    """Parse, load the encoder, export."""
    parser = Parser(
        prog="python -m jgcl_ray.export",
        description="Write the encoder of a checkpoint as one file for others to run.\n"
        "The file is read back and compared with the encoder before it is kept.",
        epilog=_FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="rendered, the package's own; or a run folder, a checkpoint, an official id_*.pt, or a file of a "
        "backbone (ResNet, OSNet, ...)",
    )
    parser.add_argument("--format", choices=("onnx", "pt2", "torchscript", "safetensors"), required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, or export to replace")
    parser.add_argument(
        "--height", type=whole(1, LARGEST_SIDE), help="of the images, pixels (the training's, or 256)"
    )
    parser.add_argument("--width", type=whole(1, LARGEST_SIDE), help="of the images, pixels (the training's, or 128)")
    given = parser.parse_args(arguments)
    with exit_on_user_error():
        from jgcl_ray.ownership import is_export
        from jgcl_ray.places import check_file

        check_file(given.out, "--out", is_export)

        from jgcl_ray.encoder import Encoder
        from jgcl_ray.export_formats import export, preprocessing

        scales = None if given.format == "safetensors" else False  # a graph takes images of one size
        encoder = Encoder.load(given.checkpoint, "cpu", given.height, given.width, multi_scale=scales)
        difference = export(encoder, given.out, given.format)
        print(f"{given.out}: {given.format} of {encoder.description}")
        for name in ("input", "resize", "normalisation", "output", "use"):
            print(f"  {name}: {preprocessing(encoder, given.format)[name]}")
        print(f"read back, it differs from the encoder by at most {difference:.1e}")


if __name__ == "__main__":
    main()
