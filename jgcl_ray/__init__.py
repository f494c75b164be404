"""Joint generative and contrastive learning for unsupervised person re-identification, on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jgcl_ray.camera_means import CameraMeans
    from jgcl_ray.encoder import Encoder

__all__ = ["CameraMeans", "Encoder", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`jgcl_ray.Encoder`, imported on first use, as it brings torch; and `jgcl_ray.CameraMeans`."""
    if name == "CameraMeans":
        from jgcl_ray.camera_means import CameraMeans

        return CameraMeans
    if name == "Encoder":
        from jgcl_ray.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
