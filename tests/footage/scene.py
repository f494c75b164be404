"""A scene of bars that walk to and fro before a striped wall, as frames or a video, and the boxes around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, RATE = 160, 120, 10.0
COUNT = 40  # frames: four seconds
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 80, 230))


def boxes(frame: int, people: int = 2) -> list[tuple[int, int, int, int, int]]:
    """Track and box (left, top, width, height) of all in a frame, the first being 1; they never meet."""
    return [(track, 4 + 2 * frame, 4 + 38 * (track - 1), 16, 34) for track in range(1, people + 1)]


def picture(frame: int, people: int = 2) -> np.ndarray:
    """uint8 RGB; everyone has a colour of their own above and is dark below."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[:, ::8] = 150
    for track, left, top, width, height in boxes(frame, people):
        pixels[top : top + height, left : left + width] = COLOURS[track - 1]
        pixels[top + height // 2 : top + height, left : left + width] = 30
    return pixels


def write_frames(folder: Path, count: int, first: int = 1, people: int = 2) -> Path:
    """JPEG files named by number."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number + 1, people)).save(folder / f"{number + first:06d}.jpg", quality=95)
    return folder


def write_video(file: Path, count: int, people: int = 2) -> Path:
    """MJPEG in AVI: every frame for itself, so that a cut file can be read up to the cut."""
    import cv2

    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for number in range(1, count + 1):
        video.write(picture(number, people)[..., ::-1])
    video.release()
    return file


def mot_lines(count: int, first: int = 1, people: int = 2, form: str = "{f},{t},{l},{p},{w},{h},0.9,-1,-1,-1") -> str:
    """A line a box."""
    lines = [
        form.format(f=number + first, t=t, l=left, p=top, w=width, h=height, r=left + width, b=top + height)
        for number in range(count)
        for t, left, top, width, height in boxes(number + 1, people)
    ]
    return "\n".join(lines) + "\n"


def has_colour(crop: Path, track: int) -> bool:
    """Whether the upper half of a crop is that track's colour, and its lower half dark."""
    pixels = np.asarray(Image.open(crop).convert("RGB"), float)
    upper, lower = pixels[4 : len(pixels) // 2 - 4, 4:-4], pixels[len(pixels) // 2 + 4 : -4, 4:-4]
    return bool(np.abs(upper.mean((0, 1)) - COLOURS[track - 1]).max() < 25 and lower.mean() < 60)
