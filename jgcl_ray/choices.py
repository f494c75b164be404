"""Data sets, backbones and renderers by the name that the configuration takes, each with where it is.

A new one is a file and a line here. `module:attribute` is imported when the name is used: the configuration checks
names by these tables, and imports no part that it configures.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

# Functions of a DataConfig that give a ReidDataset.
DATA_SETS = {
    "market1501": "jgcl_ray.data.datasets.market1501:read_market1501",
    "dukemtmc_reid": "jgcl_ray.data.datasets.dukemtmc_reid:read_dukemtmc_reid",
    "msmt17": "jgcl_ray.data.datasets.msmt17:read_msmt17",
    "cuhk03": "jgcl_ray.data.datasets.cuhk03:read_cuhk03",
    "mars": "jgcl_ray.data.datasets.mars:read_mars",
    "cuhk01": "jgcl_ray.data.datasets.two_cameras:CUHK01.open",
    "viper": "jgcl_ray.data.datasets.two_cameras:VIPER.open",
    "prid2011": "jgcl_ray.data.datasets.prid2011:read_prid2011",
    "pku_reid": "jgcl_ray.data.datasets.two_cameras:PKU_REID.open",
    "labelled": "jgcl_ray.data.datasets.labelled:read_labelled",
    "folder": "jgcl_ray.data.datasets.folder:read_folder",
    "walkers": "jgcl_ray.data.datasets.walkers:read_walkers",
}

# Dicts in which a models.backbone.Backbone has this name.
BACKBONES = {
    "resnet18": "jgcl_ray.models.resnet:BACKBONES",
    "resnet34": "jgcl_ray.models.resnet:BACKBONES",
    "resnet50": "jgcl_ray.models.resnet:BACKBONES",
    "resnet18_ibn_a": "jgcl_ray.models.resnet:BACKBONES",
    "resnet34_ibn_a": "jgcl_ray.models.resnet:BACKBONES",
    "resnet50_ibn_a": "jgcl_ray.models.resnet:BACKBONES",
    "osnet_x1_0": "jgcl_ray.models.osnet:BACKBONES",
    "osnet_x0_75": "jgcl_ray.models.osnet:BACKBONES",
    "osnet_x0_5": "jgcl_ray.models.osnet:BACKBONES",
    "osnet_x0_25": "jgcl_ray.models.osnet:BACKBONES",
    "osnet_ibn_x1_0": "jgcl_ray.models.osnet:BACKBONES",
    "osnet_ain_x1_0": "jgcl_ray.models.osnet:BACKBONES",
    "efficientnet_lite0": "jgcl_ray.models.efficientnet:BACKBONES",
    "efficientnet_lite0_symmetric": "jgcl_ray.models.efficientnet:BACKBONES",
}

# Classes that are a meshes.shading.Renderer, made without arguments.
RENDERERS = {
    "embree": "jgcl_ray.meshes.embree_renderer:EmbreeRenderer",
    "pytorch3d": "jgcl_ray.meshes.pytorch3d_renderer:PyTorch3DRenderer",
}


def one_of(what: str, names: Iterable[str]) -> AfterValidator:
    """For a field that takes one of these names; another is refused with the nearest one and all that are known."""
    known = list(names)

    def check(name: str) -> str:
        if name not in known:
            raise PydanticCustomError("unknown_name", unknown_name(what, name, known))
        return name

    return AfterValidator(check)


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of the known ones."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"no such {what}; {f'did you mean {close[0]}? ' if close else ''}known: {', '.join(names)}"
