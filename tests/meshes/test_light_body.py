"""The light body: few triangles, nearly the same picture."""

from __future__ import annotations

import numpy as np

from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.gait import ARMS, draw_gait, joint_rotations
from jgcl_ray.meshes.light_body import VERTICES, light_body
from jgcl_ray.meshes.shading import render_grey


def test_the_light_body_looks_like_the_full_one(anny: AnnyBody) -> None:
    light, rng = light_body(), np.random.default_rng(0)
    assert len(light.faces) < len(anny.faces) / 8
    shape = rng.uniform(0.3, 0.8, (6, 6)).astype(np.float32)
    pose = np.stack([joint_rotations(draw_gait(rng, ARMS[row % 4]), anny) for row in range(6)]).astype(np.float32)
    full, few = anny.vertices(shape, pose), light.vertices(shape, pose)
    assert few.shape == (6, VERTICES, 3)
    ahead = Camera.look_at(np.array([0, -9.0, 1.5]), np.zeros(3), focal=1150.0, center=(64.0, 128.0))
    cameras = [ahead.turned(view, np.zeros(3)) for view in (0, 90, 200)]
    for row in range(6):
        one = render_grey(EmbreeMesh(Mesh(full[row], anny.faces)), cameras, 256, 128)
        other = render_grey(EmbreeMesh(Mesh(few[row], light.faces)), cameras, 256, 128)
        assert (one.mask & other.mask).sum() > 0.965 * (one.mask | other.mask).sum()
        both = one.mask & other.mask
        assert np.abs(one.grey - other.grey)[both].mean() < 0.03  # no hole shows the body's dark inside
    np.testing.assert_allclose(light.joint_positions(shape, pose), anny.joint_positions(shape, pose), atol=1e-5)
