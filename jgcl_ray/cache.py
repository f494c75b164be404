"""Where what can be computed again is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$JGCL_RAY_CACHE, else jgcl_ray under $XDG_CACHE_HOME (~/.cache); it need not exist."""
    if own := os.environ.get("JGCL_RAY_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jgcl_ray"
