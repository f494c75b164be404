"""Where what can be computed again is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from jgcl_ray.errors import UserError
from jgcl_ray.places import absolute


def cache_folder() -> Path:
    """$JGCL_RAY_CACHE, else jgcl_ray under $XDG_CACHE_HOME (~/.cache); it need not exist.

    UserError where there is no home, as of a user with a number and no name.
    """
    if own := os.environ.get("JGCL_RAY_CACHE"):
        return absolute(Path(own))
    if common := os.environ.get("XDG_CACHE_HOME"):
        return absolute(Path(common)) / "jgcl_ray"
    try:
        return Path.home() / ".cache" / "jgcl_ray"
    except RuntimeError:
        raise UserError("this user has no home folder to keep a cache in; name a folder by JGCL_RAY_CACHE") from None
