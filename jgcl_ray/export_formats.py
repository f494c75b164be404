"""The encoder as a file for others to run, read back and compared before it is kept.

Letters: n images, any number of them; H x W image size; D embedding width.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from jgcl_ray.atomic import replacing
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import UserError
from jgcl_ray.image_files import IMAGENET_MEAN, IMAGENET_STD
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.encoder_files import METADATA

TOLERANCE = 1e-4  # on entries of unit vectors
PREPROCESSING = "preprocessing"  # name of the JSON text in the file's metadata
_TRACED, _CHECKED = 2, (1, 3)  # images in a batch

Run = Callable[[torch.Tensor], torch.Tensor]


class PixelsToEmbeddings(nn.Module):
    """The encoder between plain pixels and unit vectors: nothing but resizing is left to do outside."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, encoder: IdentityEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (n, 3, H, W) float32, RGB in [0, 1] -> (n, D) float32, L2-normalised."""
        return F.normalize(self.encoder((images - self.mean) / self.std).embedding)


@dataclass(frozen=True)
class Format:
    """How a kind of file is written and run."""

    write: Callable[[PixelsToEmbeddings, torch.Tensor, dict[str, str], Path], None]  # example, metadata, path
    read: Callable[[Path], Run]
    suffix: str | None = None  # that the file's name must have for its readers


def preprocessing(encoder: Encoder, format_name: str) -> dict[str, Any]:
    """What to do with an image before the file, and what comes out of it: its metadata, ready for JSON."""
    height, width, graph = encoder.height, encoder.width, format_name != "safetensors"
    resampling = f"{encoder.resampling}, antialiased (as Pillow's)"
    mean, std = ", ".join(map(str, IMAGENET_MEAN)), ", ".join(map(str, IMAGENET_STD))
    return {
        "input": f"images: float32 (n, 3, {height}, {width}), RGB in this order, values in [0, 1]: 8 bits over 255",
        "resize": f"to {height} high, {width} wide, proportions not kept; {resampling}",
        "normalisation": f"{'inside the model' if graph else 'by Encoder'}: minus mean ({mean}), over std ({std})",
        "output": f"embeddings: float32 (n, {encoder.width_of_embedding}), L2-normalised: dot products are cosines",
        "use": "any runtime of this format" if graph else "jgcl_ray.Encoder.load(FILE).embed(IMAGES)",
        "fingerprint": encoder.fingerprint,
        **encoder.spec(),
    }


def export(encoder: Encoder, path: Path, format_name: str) -> float:
    """Write the encoder to `path`; the largest difference between the file's embeddings and the encoder's.

    The file is read back and run on random images, in batches of other sizes than it was traced with. RuntimeError,
    and no file, where an entry differs by more than TOLERANCE.
    """
    how = FORMATS[format_name]
    if how.suffix is not None and path.suffix != how.suffix:
        raise UserError(
            f"{path}: whoever reads a file of --format {format_name} knows it by its name; give --out a name that "
            f"ends in {how.suffix}"
        )
    module = PixelsToEmbeddings(copy.deepcopy(encoder.module).cpu().float().eval()).eval()
    metadata = {PREPROCESSING: json.dumps(preprocessing(encoder, format_name))}
    with replacing(path) as partial:
        how.write(module, _random_images(_TRACED, encoder), metadata, partial)
        difference = _difference(module, how.read(partial), encoder)
        if math.isnan(difference):
            raise UserError(f"{encoder.description}: gives embeddings that are no numbers, its training diverged")
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{path}: {format_name} differs from the encoder by {difference:.1e}; not kept")
    return difference


@torch.inference_mode()
def _difference(module: nn.Module, run: Run, encoder: Encoder) -> float:
    batches = [_random_images(count, encoder) for count in _CHECKED]
    return max(float((run(images) - module(images)).abs().max()) for images in batches)


def _random_images(count: int, encoder: Encoder) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, encoder.height, encoder.width, generator=generator)


def _batches_of_any_size() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("n")},)


def _write_onnx(module: PixelsToEmbeddings, example: torch.Tensor, metadata: dict[str, str], path: Path) -> None:
    _onnx_runtime()
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns of torchvision's operators, of which none is here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's exporter to itself
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=_batches_of_any_size(),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(path)


def _read_onnx(path: Path) -> Run:
    session = _onnx_runtime().InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _onnx_runtime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--format onnx needs {error.name}, which is not installed: pip install 'jgcl_ray[export]'"
        ) from None
    return onnxruntime


def _write_pt2(module: PixelsToEmbeddings, example: torch.Tensor, metadata: dict[str, str], path: Path) -> None:
    program = torch.export.export(module, (example,), dynamic_shapes=_batches_of_any_size())
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=metadata)
    path.write_bytes(content.getvalue())


def _read_pt2(path: Path) -> Run:
    return torch.export.load(path).module()


def _write_torchscript(
    module: PixelsToEmbeddings, example: torch.Tensor, metadata: dict[str, str], path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is; it is still what many servers load
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of padding by H and W, which the file fixes
        content = io.BytesIO()  # into a file torch ends the process where the disk is full
        torch.jit.save(torch.jit.trace(module, example), content, _extra_files=metadata)
    path.write_bytes(content.getvalue())


def _read_torchscript(path: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path)


def _write_safetensors(
    module: PixelsToEmbeddings, example: torch.Tensor, metadata: dict[str, str], path: Path
) -> None:
    state = {name: value.contiguous() for name, value in module.encoder.state_dict().items()}
    save_file(state, path, {METADATA: metadata[PREPROCESSING], **metadata})


def _read_safetensors(path: Path) -> Run:
    return PixelsToEmbeddings(Encoder.load(path, device="cpu").module)


FORMATS = {
    "onnx": Format(_write_onnx, _read_onnx),
    "pt2": Format(_write_pt2, _read_pt2, ".pt2"),
    "torchscript": Format(_write_torchscript, _read_torchscript),
    "safetensors": Format(_write_safetensors, _read_safetensors, ".safetensors"),
}
