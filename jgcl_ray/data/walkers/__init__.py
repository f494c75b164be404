"""The walkers: a re-identification benchmark that the project renders itself; nothing to download.

people.py who they are, gait.py how they walk, figure.py and paint.py their clothes, scenes.py the cameras,
photographer.py the picture, plan.py which pictures, tracks.py whole walks, rendering.py the files.
"""

from jgcl_ray.data.walkers.rendering import PRESETS, REPORTED_SEED, WalkersSize, ensure_rendered, render

__all__ = ["PRESETS", "REPORTED_SEED", "WalkersSize", "ensure_rendered", "render"]
