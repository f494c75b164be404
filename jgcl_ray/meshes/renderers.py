"""Renderers by name: a mesh and cameras in, which triangle each pixel sees out (shading.Fragments)."""

from __future__ import annotations

import importlib.util
from pkgutil import resolve_name

import torch

from jgcl_ray.choices import RENDERERS, unknown_name
from jgcl_ray.errors import UserError
from jgcl_ray.meshes.shading import Renderer


def resolve_renderer(name: str) -> str:
    """`auto` becomes `pytorch3d` where there is a GPU and it is installed, else `embree`; other names stay."""
    if name != "auto":
        return name
    with_gpu = torch.cuda.is_available() and importlib.util.find_spec("pytorch3d") is not None
    return "pytorch3d" if with_gpu else "embree"


def open_renderer(name: str = "auto") -> Renderer:
    """The renderer of this name in jgcl_ray/choices.py, or `auto` (resolve_renderer)."""
    if name != "auto" and name not in RENDERERS:
        raise UserError(f"renderer {name!r}: {unknown_name('renderer', name, ['auto', *RENDERERS])}")
    renderer: Renderer = resolve_name(RENDERERS[resolve_renderer(name)])()
    return renderer
