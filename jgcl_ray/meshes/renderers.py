"""Renderers by name: a mesh and cameras in, which triangle each pixel sees out (shading.Fragments)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch

from jgcl_ray.errors import UserError
from jgcl_ray.meshes.embree_renderer import EmbreeRenderer
from jgcl_ray.meshes.shading import Renderer


def _pytorch3d() -> Renderer:
    from jgcl_ray.meshes.pytorch3d_renderer import PyTorch3DRenderer

    return PyTorch3DRenderer()


RENDERERS: dict[str, Callable[[], Renderer]] = {"embree": EmbreeRenderer, "pytorch3d": _pytorch3d}


def resolve_renderer(name: str) -> str:
    """`auto` becomes `pytorch3d` where there is a GPU and it is installed, else `embree`; other names stay."""
    if name != "auto":
        return name
    with_gpu = torch.cuda.is_available() and importlib.util.find_spec("pytorch3d") is not None
    return "pytorch3d" if with_gpu else "embree"


def open_renderer(name: str = "auto") -> Renderer:
    """The renderer of this name: `embree`, `pytorch3d`, or `auto` (resolve_renderer)."""
    if name != "auto" and name not in RENDERERS:
        raise UserError(f"no renderer {name!r}: known are auto, {', '.join(RENDERERS)}")
    return RENDERERS[resolve_renderer(name)]()
