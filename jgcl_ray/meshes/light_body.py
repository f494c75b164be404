"""Anny with a ninth of its triangles: for drawing many small pictures."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import dijkstra

from jgcl_ray.meshes.body_models import AnnyBody
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeMesh

VERTICES = 1600
_SHAPE = np.array([[0.5, 0.6, 0.5, 0.5, 0.5, 0.5]], np.float32)  # on which vertices are chosen


class LightBody(AnnyBody):
    """Anny on VERTICES of its vertices, evenly spread; parameters, axes and joints as AnnyBody's.

    Its silhouette overlaps the full body's by more than 0.97 (intersection over union, test_light_body.py); it is
    skinned and drawn some seven times faster.
    """

    def __init__(self) -> None:
        super().__init__()
        pose = np.tile(np.eye(3, dtype=np.float32), (1, self.num_joints, 1, 1))
        reference = Mesh(self.vertices(_SHAPE, pose)[0], self.faces)
        kept, faces = simplified(reference, VERTICES)
        model = self._model
        model.template_vertices = model.template_vertices[kept].clone()
        model.blendshapes = model.blendshapes[:, kept].clone()
        model.dense_vertex_bone_weights = model.dense_vertex_bone_weights[kept].clone()
        model.vertex_bone_weights = model.vertex_bone_weights[kept].clone()
        model.vertex_bone_indices = model.vertex_bone_indices[kept].clone()
        self.faces = faces


def simplified(mesh: Mesh, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `count` evenly spread vertices on the outside, and the triangles between them, (F', 3) int32.

    Every other vertex joins the nearest of them along the surface, which closes the mouth; a triangle stays where its
    corners joined three different ones.
    """
    vertices, faces = mesh.vertices, mesh.faces
    edges = np.concatenate([faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    lengths = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    graph = scipy.sparse.coo_array((np.maximum(lengths, 1e-9), edges.T), shape=(len(vertices),) * 2).tocsr()
    outside = _outside(mesh)
    kept = outside[_spread(vertices[outside], count)]
    _, _, nearest = dijkstra(graph, directed=False, indices=kept, min_only=True, return_predecessors=True)
    new_row = np.zeros(len(vertices), np.int32)
    new_row[kept] = np.arange(len(kept), dtype=np.int32)
    joined = new_row[nearest][faces]
    first, second, third = joined.T
    joined = joined[(first != second) & (second != third) & (third != first)]
    _, once = np.unique(np.sort(joined, axis=1), axis=0, return_index=True)
    return kept, np.ascontiguousarray(joined[np.sort(once)])


def _outside(mesh: Mesh) -> np.ndarray:
    """Rows of the vertices that are seen from somewhere around the mesh: not the inside of the mouth."""
    seen = []
    tree, middle = EmbreeMesh(mesh), mesh.vertices.mean(axis=0)
    for height in (-4.0, 0.3, 6.0):
        ahead = Camera.look_at(middle + np.array([0, -8.0, height]), middle, focal=1700.0, center=(200.0, 256.0))
        cameras = [ahead.turned(degrees, middle) for degrees in range(0, 360, 30)]
        faces = tree.fragments(cameras, 512, 400).face
        seen.append(np.unique(faces[faces >= 0]))
    return np.unique(mesh.faces[np.concatenate(seen)])


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    """Farthest-point sampling: each next row is the one farthest from those chosen before."""
    chosen = np.zeros(count, np.int64)
    distance = np.full(len(points), np.inf)
    for place in range(1, count):
        distance = np.minimum(distance, ((points - points[chosen[place - 1]]) ** 2).sum(axis=1))
        chosen[place] = distance.argmax()
    return chosen


@lru_cache(maxsize=1)
def light_body() -> LightBody:
    """The process's light body; loading takes seconds."""
    return LightBody()
