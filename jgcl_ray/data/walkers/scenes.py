"""Where the walkers are filmed: six cameras, each with its scene, light, optics and usual walking directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]

CANVAS_HEIGHT, CANVAS_WIDTH = 420, 350  # pixels of a stretch of background
STRETCHES = 5  # side by side, each with its own colours
PERSON = 190  # height of a walker on the background, pixels


@dataclass(frozen=True)
class Scene:
    """One camera and what it looks at."""

    background: np.ndarray  # (CANVAS_HEIGHT, STRETCHES * CANVAS_WIDTH, 3) float32 sRGB
    horizon: int  # row where the ground begins
    height: float  # of the camera above ground, metres
    distance: float  # to the walkers, metres
    yaw: float  # usual direction of walking, degrees; 0 comes towards the camera
    yaw_spread: float  # standard deviation around it, degrees
    light_direction: tuple[float, float, float]  # towards the lamp, in the camera's axes
    light_color: tuple[float, float, float]
    ambient_color: tuple[float, float, float]
    gain: tuple[float, float, float]  # white balance and exposure
    saturation: float
    gamma: float
    blur: float  # standard deviation, as a share of the picture's height
    noise: float  # standard deviation, sRGB in [0, 1]
    pixels: tuple[int, int]  # least and greatest height of a crop
    jpeg_quality: tuple[int, int]


def draw_scenes(rng: np.random.Generator) -> list[Scene]:
    """The six cameras of a set."""
    directions = [(0.0, 38.0), (180.0, 38.0), (90.0, 35.0), (270.0, 35.0), (20.0, 75.0), (200.0, 75.0)]
    optics = [(100, 180), (64, 110), (90, 160), (72, 128), (110, 180), (64, 100)]
    return [
        _draw_scene(rng, paint, yaw, spread, pixels)
        for paint, (yaw, spread), pixels in zip(_PAINTERS, directions, optics, strict=True)
    ]


def _draw_scene(
    rng: np.random.Generator,
    paint: Callable[[Image.Image, np.random.Generator, int], None],
    yaw: float,
    spread: float,
    pixels: tuple[int, int],
) -> Scene:
    horizon = int(rng.uniform(0.35, 0.62) * CANVAS_HEIGHT)
    background = np.concatenate([_draw_stretch(rng, paint, horizon) for _ in range(STRETCHES)], axis=1)
    warmth = rng.uniform(-0.06, 0.06)
    exposure = rng.uniform(0.88, 1.1)
    side = rng.uniform(-1.2, 1.2)
    return Scene(
        background=background,
        horizon=horizon,
        height=float(rng.uniform(1.8, 5.0)),
        distance=float(rng.uniform(6.0, 12.0)),
        yaw=yaw,
        yaw_spread=spread,
        light_direction=(float(side), float(rng.uniform(-1.4, -0.6)), float(rng.uniform(-1.0, 0.5))),
        light_color=_tint(rng.uniform(0.4, 0.65), rng.uniform(-0.03, 0.08)),
        ambient_color=_tint(rng.uniform(0.5, 0.62), rng.uniform(-0.06, 0.03)),
        gain=_tint(exposure, warmth),
        saturation=float(rng.uniform(0.75, 1.05)),
        gamma=float(rng.uniform(0.9, 1.12)),
        blur=float(rng.uniform(0.001, 0.008)),
        noise=float(rng.uniform(0.008, 0.03)),
        pixels=pixels,
        jpeg_quality=(int(rng.integers(35, 60)), int(rng.integers(70, 92))),
    )


def _draw_stretch(
    rng: np.random.Generator, paint: Callable[[Image.Image, np.random.Generator, int], None], horizon: int
) -> np.ndarray:
    """(CANVAS_HEIGHT, CANVAS_WIDTH, 3) float32 sRGB.

    Streets are paler than clothes, and light and shade vary along them: strong, even backdrops would make every
    feature a feature of the camera.
    """
    canvas = Image.new("RGB", (CANVAS_WIDTH, CANVAS_HEIGHT))
    paint(canvas, rng, horizon)
    picture = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.8)), np.float32) / 255
    picture = 0.55 * picture + 0.45 * picture.mean(axis=2, keepdims=True)
    picture = rng.uniform(0.36, 0.6) + rng.uniform(0.5, 0.8) * (picture - picture.mean())
    picture += rng.normal(0, 0.02, 3) + rng.normal(0, 0.02, (CANVAS_HEIGHT, CANVAS_WIDTH, 1))
    return np.clip(picture, 0, 1).astype(np.float32)


def _tint(level: float, warmth: float) -> tuple[float, float, float]:
    return float(level * (1 + warmth)), float(level), float(level * (1 - warmth))


def _plaza(canvas: Image.Image, rng: np.random.Generator, horizon: int) -> None:
    draw = ImageDraw.Draw(canvas)
    _facade(draw, rng, horizon, wall=_grey(rng, 120, 190, 12), window=(60, 75, 95), pitch=95)
    stone = _grey(rng, 130, 180, 8)
    _ground(draw, horizon, stone)
    _floor_lines(draw, horizon, tuple(int(c * 0.82) for c in stone), spacing=46, cross=True)


def _road(canvas: Image.Image, rng: np.random.Generator, horizon: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, CANVAS_WIDTH, horizon), fill=(185, 200, 215))
    _foliage(draw, rng, 0, horizon, (40, 80, 45), count=125)
    _car(draw, int(rng.integers(0, 200)), horizon + 8, rng)
    _ground(draw, horizon, _grey(rng, 75, 105, 4))
    for row in (horizon + 40, horizon + 120):
        draw.rectangle((0, row, CANVAS_WIDTH, row + 5), fill=(215, 215, 205))
    for left in range(0, CANVAS_WIDTH, 120):
        draw.rectangle((left, horizon + 78, left + 60, horizon + 83), fill=(220, 220, 210))


def _lawn(canvas: Image.Image, rng: np.random.Generator, horizon: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, CANVAS_WIDTH, horizon), fill=(170, 190, 200))
    _foliage(draw, rng, 0, horizon, (50, 85, 40), count=175)
    for left in rng.integers(0, CANVAS_WIDTH, 4):
        draw.rectangle((left, 0, left + int(rng.integers(8, 18)), horizon + 12), fill=(70, 55, 42))
    _ground(draw, horizon, (92, 124, 62))
    _foliage(draw, rng, horizon, CANVAS_HEIGHT, (84, 116, 56), count=600, size=(2, 7))
    draw.polygon([(0, CANVAS_HEIGHT), (140, horizon), (230, horizon), (200, CANVAS_HEIGHT)], fill=(165, 155, 132))


def _station(canvas: Image.Image, rng: np.random.Generator, horizon: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, CANVAS_WIDTH, horizon), fill=_grey(rng, 195, 225, 5))
    for left in range(int(rng.integers(-60, 60)), CANVAS_WIDTH, 190):
        poster = tuple(int(c) for c in rng.integers(40, 230, 3))
        draw.rectangle((left, horizon - 120, left + 80, horizon - 20), fill=poster, outline=(80, 80, 80), width=3)
        draw.rectangle((left + 130, 0, left + 152, horizon + 10), fill=(150, 155, 160))
    _ground(draw, horizon, _grey(rng, 150, 190, 6))
    draw.rectangle((0, horizon, CANVAS_WIDTH, horizon + 14), fill=(95, 95, 98))
    draw.rectangle((0, horizon + 60, CANVAS_WIDTH, horizon + 72), fill=(225, 190, 60))
    _floor_lines(draw, horizon, (140, 140, 142), spacing=70, cross=False)


def _shops(canvas: Image.Image, rng: np.random.Generator, horizon: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, CANVAS_WIDTH, horizon), fill=_grey(rng, 90, 150, 15))
    for left in range(0, CANVAS_WIDTH, 150):
        sign = tuple(int(c) for c in rng.integers(60, 235, 3))
        draw.rectangle((left + 6, horizon - 150, left + 142, horizon - 4), fill=(235, 225, 190))
        for item in rng.integers(0, 110, 12):
            goods = tuple(int(c) for c in rng.integers(30, 220, 3))
            top = horizon - int(rng.integers(20, 110))
            draw.rectangle((left + 14 + item, top, left + 28 + item, top + 26), fill=goods)
        draw.rectangle((left + 2, horizon - 176, left + 146, horizon - 150), fill=sign)
    _ground(draw, horizon, _grey(rng, 120, 150, 14))
    _floor_lines(draw, horizon, (105, 100, 98), spacing=30, cross=True)


def _corridor(canvas: Image.Image, rng: np.random.Generator, horizon: int) -> None:
    draw = ImageDraw.Draw(canvas)
    wall = (205, 196, 170)
    draw.rectangle((0, 0, CANVAS_WIDTH, horizon), fill=wall)
    draw.rectangle((0, horizon - 70, CANVAS_WIDTH, horizon), fill=(150, 165, 150))
    for left in range(30, CANVAS_WIDTH, 260):
        draw.rectangle((left, horizon - 190, left + 90, horizon), fill=(120, 80, 50), outline=(70, 50, 35), width=4)
        draw.ellipse((left + 74, horizon - 92, left + 82, horizon - 84), fill=(210, 200, 120))
    _ground(draw, horizon, (120, 108, 92))
    for left in range(0, CANVAS_WIDTH, 60):
        draw.line((left, horizon, left * 2 - CANVAS_WIDTH // 2, CANVAS_HEIGHT), fill=(98, 88, 76), width=3)


_PAINTERS = (_plaza, _road, _lawn, _station, _shops, _corridor)


def _grey(rng: np.random.Generator, low: int, high: int, spread: int) -> Color:
    level = rng.integers(low, high)
    red, green, blue = (int(np.clip(level + shift, 0, 255)) for shift in rng.integers(-spread, spread + 1, 3))
    return red, green, blue


def _ground(draw: ImageDraw.ImageDraw, horizon: int, color: Color) -> None:
    for row in range(horizon, CANVAS_HEIGHT):
        shade = 0.85 + 0.25 * (row - horizon) / (CANVAS_HEIGHT - horizon)
        draw.line((0, row, CANVAS_WIDTH, row), fill=tuple(min(255, int(c * shade)) for c in color))


def _floor_lines(draw: ImageDraw.ImageDraw, horizon: int, color: tuple[int, ...], spacing: int, cross: bool) -> None:
    middle = CANVAS_WIDTH // 2
    for x in range(-2 * CANVAS_WIDTH, 3 * CANVAS_WIDTH, 3 * spacing):
        draw.line((middle + (x - middle) // 3, horizon, x, CANVAS_HEIGHT), fill=color, width=2)
    row, step = float(horizon), spacing / 4
    while cross and row < CANVAS_HEIGHT:
        draw.line((0, row, CANVAS_WIDTH, row), fill=color, width=2)
        row, step = row + step, step * 1.25


def _facade(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, horizon: int, wall: Color, window: Color, pitch: int
) -> None:
    draw.rectangle((0, 0, CANVAS_WIDTH, horizon), fill=wall)
    for top in range(horizon - 150, -60, -120):
        for left in range(10, CANVAS_WIDTH, pitch):
            glass = tuple(int(np.clip(c + rng.integers(-25, 60), 0, 255)) for c in window)
            draw.rectangle((left, top, left + pitch // 2, top + 85), fill=glass, outline=(220, 220, 215), width=4)


def _foliage(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    top: int,
    bottom: int,
    color: Color,
    count: int,
    size: tuple[int, int] = (8, 40),
) -> None:
    for x, y in zip(rng.integers(0, CANVAS_WIDTH, count), rng.integers(top, bottom, count), strict=True):
        radius = int(rng.integers(*size))
        leaf = tuple(int(np.clip(c + rng.integers(-30, 35), 0, 255)) for c in color)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=leaf)


def _car(draw: ImageDraw.ImageDraw, left: int, bottom: int, rng: np.random.Generator) -> None:
    body = tuple(int(c) for c in rng.integers(30, 230, 3))
    draw.rounded_rectangle((left, bottom - 62, left + 230, bottom - 10), 16, fill=body)
    draw.rounded_rectangle((left + 45, bottom - 104, left + 180, bottom - 50), 20, fill=body)
    draw.rounded_rectangle((left + 55, bottom - 98, left + 170, bottom - 62), 12, fill=(70, 85, 95))
    for wheel in (left + 30, left + 165):
        draw.ellipse((wheel, bottom - 34, wheel + 36, bottom + 2), fill=(25, 25, 25))
