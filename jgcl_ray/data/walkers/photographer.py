"""A walker before a camera: the photo, as a detector would have cut it out, and the mesh projections that fit it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from jgcl_ray.data.walkers.figure import Figure
from jgcl_ray.data.walkers.paint import albedo
from jgcl_ray.data.walkers.people import Appearance
from jgcl_ray.data.walkers.scenes import PERSON, Scene
from jgcl_ray.meshes.cameras import Camera, Mesh
from jgcl_ray.meshes.embree_renderer import EmbreeMesh
from jgcl_ray.meshes.shading import interpolate, render_grey

_SUPERSAMPLING = 2
_TALL = 1.7  # metres, of a walker who is PERSON pixels tall on the background
_ORIGIN = np.zeros(3)


@dataclass(frozen=True)
class Shot:
    """One photo's geometry: everything but the picture."""

    camera: Camera  # for the crop's own size, turned so that the walker at yaw 0 is seen at `yaw`
    height: int  # pixels
    width: int  # pixels
    yaw: float  # degrees; 0 faces the camera, counter-clockwise seen from above

    def at_size(self, height: int, width: int) -> Camera:
        """The same view for the picture stretched to another size, as an encoder sees it."""
        return self.camera.resized(height / self.height, width / self.width)


@dataclass(frozen=True)
class Layer:
    """A picture with an alpha channel."""

    color: np.ndarray  # (H, W, 3) float32, premultiplied
    alpha: np.ndarray  # (H, W, 1) float32


def frame(
    figure: Figure,
    scene: Scene,
    rng: np.random.Generator,
    yaw: float,
    jitter: np.random.Generator | None = None,
    approached: float = 0.0,
) -> Shot:
    """Where a person detector would put its box: around the walker, with jitter, now and then without the feet.

    jitter: draws the box's edges, where `rng` is the same for all frames of a walk. approached: by how many metres
    the walker has come nearer since that began.
    """
    jitter = rng if jitter is None else jitter
    tall = figure.dressed.vertices[:, 2].max()
    distance = scene.distance * rng.uniform(0.8, 1.25)
    near = max(distance - approached, 0.5 * distance)
    eye = np.array([rng.normal(0, 0.4), -near, scene.height])
    camera = Camera.look_at(eye, np.array([0, 0, 0.5 * tall]), focal=1.0, center=(0.0, 0.0)).turned(yaw, _ORIGIN)
    seen = camera.project(figure.dressed.vertices)[:, :2]
    (left, top), (right, bottom) = seen.min(axis=0), seen.max(axis=0)
    extent = bottom - top
    if rng.random() < 0.12:
        bottom -= extent * rng.uniform(0.06, 0.2)
    top -= extent * jitter.uniform(0.0, 0.05)
    bottom += extent * jitter.uniform(-0.01, 0.05)
    middle = (left + right) / 2 + extent * jitter.normal(0, 0.015)
    broad = np.clip((right - left) * jitter.uniform(1.02, 1.2), 0.34 * (bottom - top), 0.62 * (bottom - top))
    height = round(int(rng.integers(scene.pixels[0], scene.pixels[1] + 1)) * distance / near)
    focal = height / (bottom - top)
    center = ((broad / 2 - middle) * focal, -top * focal)
    return Shot(replace(camera, focal=focal, center=center), height, round(broad * focal), yaw)


def projections(figure: Figure, shot: Shot, views: tuple[int, ...], height: int) -> np.ndarray:
    """Grey pictures (len(views), height, height / 2) uint8 of the bare body turned by each view, in degrees."""
    camera = shot.at_size(height, height // 2)
    cameras = [camera.turned(view, _ORIGIN) for view in views]
    grey = render_grey(EmbreeMesh(figure.body), cameras, height, height // 2).grey
    return np.round(grey * 255).astype(np.uint8)


def cut_out(prepared: EmbreeMesh, figure: Figure, person: Appearance, scene: Scene, shot: Shot) -> Layer:
    """The lit walker alone, as the shot's camera sees it, with soft edges; `prepared` is of the dressed figure."""
    factor, height, width = _SUPERSAMPLING, shot.height, shot.width
    camera = shot.camera.resized(factor, factor)
    fragments = prepared.fragments([camera], height * factor, width * factor)
    mask = fragments.mask[0]
    fields = interpolate(fragments, figure.dressed, figure.fields)
    colors = albedo(person, fields, figure.part[fragments.face[fragments.mask]])
    normals = interpolate(fragments, figure.dressed, figure.dressed.normals) @ camera.rotation.T.astype(np.float32)
    picture = np.zeros((height * factor, width * factor, 4), np.float32)
    picture[mask, :3] = np.clip(colors * _light(scene, normals), 0, 1)
    picture[mask, 3] = 1
    picture = picture.reshape(height, factor, width, factor, 4).mean(axis=(1, 3))
    return Layer(picture[..., :3], picture[..., 3:])


def _light(scene: Scene, normals: np.ndarray) -> np.ndarray:
    """Light (P, 3) on surfaces with normals (P, 3) in the camera's axes: a lamp, sky, and a darker ground."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    towards = np.array(scene.light_direction) / np.linalg.norm(scene.light_direction)
    lamp = np.maximum(normals @ towards.astype(np.float32), 0)[:, None]
    sky = 0.85 - 0.3 * normals[:, 1:2]
    return lamp * np.array(scene.light_color, np.float32) + sky * np.array(scene.ambient_color, np.float32)


class Photographer:
    """One session: a walker, a scene and whatever else is in the picture. The same for every view.

    noise: draws the sensor's noise, where `rng` is the same for all frames of a walk. passed: by how many metres the
    walker has moved along the backdrop, to the right, since that walk began.
    """

    def __init__(
        self,
        person: Appearance,
        figure: Figure,
        scene: Scene,
        shot: Shot,
        rng: np.random.Generator,
        noise: np.random.Generator | None = None,
        passed: float = 0.0,
    ) -> None:
        self._person, self._figure, self._scene, self._shot = person, figure, scene, shot
        self._prepared = EmbreeMesh(figure.dressed)
        self._backdrop = self._draw_backdrop(rng, passed)
        # Automatic exposure and white balance hunt a little from picture to picture.
        warmth, exposure = rng.normal(0, 0.03), rng.normal(1, 0.06)
        self._gain = (exposure * np.array(scene.gain) * (1 + warmth * np.array([1, 0, -1]))).astype(np.float32)
        self._rng, self._noise = rng, rng if noise is None else noise

    def photo(self, other: tuple[Appearance, Figure] | None = None, occluder: bool = False) -> np.ndarray:
        """The camera's picture (H, W, 3) uint8 with noise; `other` passes behind, an `occluder` stands before."""
        rng = self._rng
        picture = self._backdrop
        if other is not None:
            picture = _over(self._passer_by(other, rng), picture)
        picture = _over(self._walker(self._shot.camera), picture)
        if occluder:
            picture = self._hide(picture, rng)
        developed = self._develop(picture)
        noise = self._noise.normal(0, self._scene.noise, developed.shape)
        return np.round(np.clip(developed + noise, 0, 1) * 255).astype(np.uint8)

    def true_view(self, view: int) -> np.ndarray:
        """The walker turned by `view` degrees before the same backdrop, (H, W, 3) uint8: no noise, nobody else."""
        camera = self._shot.camera.turned(view, _ORIGIN)
        picture = _over(self._walker(camera), self._backdrop)
        return np.round(self._develop(picture) * 255).astype(np.uint8)

    def _walker(self, camera: Camera) -> Layer:
        shot = self._shot
        return cut_out(self._prepared, self._figure, self._person, self._scene, replace(shot, camera=camera))

    def _draw_backdrop(self, rng: np.random.Generator, passed: float) -> np.ndarray:
        """A cut-out of the scene with the walker's shadow on the ground, (H, W, 3) float32."""
        scene, shot = self._scene, self._shot
        canvas_height, canvas_width, _ = scene.background.shape
        cut_height = min(int(PERSON * rng.uniform(1.05, 1.3)), canvas_height)
        cut_width = cut_height * shot.width // shot.height
        # The feet stand on the ground: the cut's lower edge lies below the horizon.
        bottom = int(rng.integers(max(scene.horizon + 50, cut_height), canvas_height + 1))
        left = int(rng.integers(0, canvas_width - cut_width + 1)) + round(passed * PERSON / _TALL)
        left = min(max(left, 0), canvas_width - cut_width)
        cut = scene.background[bottom - cut_height : bottom, left : left + cut_width]
        picture = Image.fromarray(np.round(cut * 255).astype(np.uint8))
        backdrop = np.asarray(picture.resize((shot.width, shot.height), Image.Resampling.BILINEAR), np.float32) / 255
        feet = shot.camera.project(_ORIGIN)
        metre = shot.camera.focal / feet[2]
        y, x = np.mgrid[: shot.height, : shot.width]
        offset = 0.25 * scene.light_direction[0]
        reach = ((x - feet[0] + offset * metre) / (0.42 * metre)) ** 2 + ((y - feet[1]) / (0.13 * metre)) ** 2
        return backdrop * (1 - 0.45 * np.exp(-(reach**1.5)))[..., None].astype(np.float32)

    def _passer_by(self, other: tuple[Appearance, Figure], rng: np.random.Generator) -> Layer:
        person, figure = other
        side = rng.choice([-1.0, 1.0])
        # In the walker's frame, since the camera and not the body was turned.
        right, _, forward = self._shot.camera.rotation
        shift = side * rng.uniform(0.38, 0.65) * right + rng.uniform(0.5, 1.5) * forward * np.array([1, 1, 0])
        moved = Mesh((figure.dressed.vertices + shift).astype(np.float32), figure.dressed.faces)
        moved_figure = replace(figure, dressed=moved)
        return cut_out(EmbreeMesh(moved), moved_figure, person, self._scene, self._shot)

    def _hide(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A pole, a railing or a box before the walker."""
        height, width, _ = picture.shape
        hidden = picture.copy()
        color = np.clip(rng.uniform(0.15, 0.65) + rng.normal(0, 0.06, 3), 0, 1)
        kind = rng.choice(["pole", "box", "edge"])
        if kind == "pole":
            left = int(rng.uniform(0.1, 0.8) * width)
            hidden[:, left : left + max(2, int(rng.uniform(0.06, 0.16) * width))] = color
        elif kind == "box":
            hidden[int(rng.uniform(0.68, 0.88) * height) :, :] = color
        else:
            share = int(rng.uniform(0.15, 0.32) * width)
            hidden[:, slice(0, share) if rng.random() < 0.5 else slice(width - share, width)] = color
        return np.clip(hidden, 0, 1)

    def _develop(self, picture: np.ndarray) -> np.ndarray:
        """What sensor and optics make of it: gain, saturation, gamma, blur; (H, W, 3) in [0, 1]."""
        scene = self._scene
        exposed = np.clip(picture * self._gain, 0, 1) ** scene.gamma
        grey = exposed.mean(axis=2, keepdims=True)
        exposed = np.clip(grey + scene.saturation * (exposed - grey), 0, 1)
        image = Image.fromarray(np.round(exposed * 255).astype(np.uint8))
        blurred = image.filter(ImageFilter.GaussianBlur(scene.blur * self._shot.height))
        return np.asarray(blurred, np.float32) / 255


def _over(layer: Layer, picture: np.ndarray) -> np.ndarray:
    return layer.color + (1 - layer.alpha) * picture
