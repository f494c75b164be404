"""Frames of a video or of a folder, in order, decoded where they are wanted.

Videos are read as the trackers' own readers do, with OpenCV from the first frame on: it numbers and turns frames as
the boxes expect. Seeking is not exact (opencv/opencv#9053), so frames that nobody wants are passed over one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jgcl_ray.data.datasets.reid_dataset import is_image_file, natural_order, visible
from jgcl_ray.errors import UserError
from jgcl_ray.footage.tracks import Footage
from jgcl_ray.image_files import UnreadableImage, image_size, read_image

DEFAULT_RATE = 25.0  # frames a second of a folder, where nothing says how many
INSTALL = "pip install 'jgcl_ray[footage]' (opencv-python-headless)"


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame."""

    number: int  # the first is 1
    time: float  # seconds since the first
    pixels: np.ndarray  # (H, W, 3) uint8 RGB, a view at times


@dataclass
class ReadProgress:
    """How far a reader came."""

    wanted: int = 0  # number of the last frame that is asked for
    read: int = 0  # number of the last frame that was there
    damaged: list[int] = field(default_factory=list)  # numbers of frames that could not be decoded
    gaps: int = 0  # frames that the time stamps say are missing within
    variable: bool = False  # times between frames vary


class FrameReader(Protocol):
    """A camera's footage."""

    footage: Footage
    rate: float  # frames a second

    def frames(self, wanted: Sequence[int], reading: ReadProgress) -> Iterator[Frame]:
        """Frames with these ascending numbers, as far as they can be decoded; `reading` is kept up to date."""
        ...


def open_footage(video: Path | None, frames: Path | None, rate: float | None) -> FrameReader:
    """The reader of a video file or of a folder of frames. UserError where there is nothing to read."""
    if frames is not None:
        return FrameFolder(frames, rate)
    assert video is not None
    return VideoFile(video, rate)


class FrameFolder:
    """Images of one size, a frame each, in the natural order of their names."""

    def __init__(self, folder: Path, rate: float | None) -> None:
        if not folder.is_dir():
            raise UserError(f"--frames {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
        names = [entry.name for entry in visible(folder) if is_image_file(entry)]
        if not names:
            inner = " (a MOTChallenge sequence? give the folder above img1)" if (folder / "img1").is_dir() else ""
            raise UserError(f"--frames {folder}: holds no image{inner}")
        self.folder, self.names = folder, sorted(names, key=natural_order)
        self.rate = rate or DEFAULT_RATE
        height, width = _first_size(folder, self.names)
        found = [re.search(r"(\d+)$", Path(name).stem) for name in self.names]
        numbers = tuple(int(match[1]) for match in found if match)
        ordered = len(numbers) == len(self.names) and all(np.diff(numbers) > 0)
        self.footage = Footage(width, height, len(self.names), numbers=numbers if ordered else None)

    def frames(self, wanted: Sequence[int], reading: ReadProgress) -> Iterator[Frame]:
        size = (self.footage.width, self.footage.height)
        for number in wanted:
            path = self.folder / self.names[number - 1]
            reading.read = number
            try:
                pixels = np.asarray(read_image(path).rgb)
            except UnreadableImage:
                reading.damaged.append(number)
                continue
            if pixels.shape[1::-1] != size:
                raise UserError(
                    f"{path}: {pixels.shape[1]} x {pixels.shape[0]} pixels, frames before have {size[0]} x {size[1]}"
                )
            yield Frame(number, (number - 1) / self.rate, pixels)


def _first_size(folder: Path, names: Sequence[str]) -> tuple[int, int]:
    for name in names[:100]:
        try:
            return image_size(folder / name)
        except UnreadableImage:
            continue
    raise UserError(f"--frames {folder}: none of its first {min(len(names), 100)} images can be read")


class VideoFile:
    """A video, through OpenCV."""

    def __init__(self, path: Path, rate: float | None) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"--video {path}: no such file")
        if _is_text(path):  # FFmpeg would draw it
            raise UserError(f"--video {path}: a text file, no video")
        capture = self._open()
        try:
            cv2 = _cv2()
            done, first = capture.read()
            if not done:
                raise UserError(f"--video {path}: not one frame can be decoded; is it damaged, or no video?")
            height, width = first.shape[:2]
            announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            stated = capture.get(cv2.CAP_PROP_FPS)
        finally:
            capture.release()
        self.rate = rate or (stated if 0 < stated < 1000 else DEFAULT_RATE)
        self._given = rate is not None
        self.footage = Footage(width, height, None, announced=max(int(announced), 0) if announced < 1e9 else 0)

    def frames(self, wanted: Sequence[int], reading: ReadProgress) -> Iterator[Frame]:
        cv2 = _cv2()
        capture, clock = self._open(), _Clock(self.rate, self._given)
        try:
            for number in wanted:
                while reading.read < number and capture.grab():
                    reading.read += 1
                    time = clock.tick(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                reading.gaps, reading.variable = clock.gaps, clock.variable
                if reading.read < number:
                    return
                done, pixels = capture.retrieve()
                if not done:
                    reading.damaged.append(number)
                    continue
                if pixels.shape[1::-1] != (self.footage.width, self.footage.height):
                    raise UserError(
                        f"{self.path}: frame {number} has {pixels.shape[1]} x {pixels.shape[0]} pixels, the first "
                        f"{self.footage.width} x {self.footage.height}: cut it into videos of one size"
                    )
                yield Frame(number, time, pixels[..., ::-1])
        finally:
            capture.release()

    def _open(self) -> Any:
        cv2 = _cv2()
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise UserError(f"--video {self.path}: cannot be opened; is it damaged, or no video?")
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        return capture


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        start[: max(len(start) - 3, 0)].decode()
    except UnicodeDecodeError:
        return False
    except OSError as error:
        raise UserError(f"--video {path} cannot be read ({error.strerror})") from None
    return b"\0" not in start


class _Clock:
    """Seconds since the first frame from a container's time stamps, and what they tell of its frames."""

    WINDOW = 250  # steps between frames of which the usual one is taken

    def __init__(self, rate: float, given: bool) -> None:
        self._rate, self._given = rate, given
        self._first = self._last = 0.0
        self._steps: list[float] = []
        self._usual = 0.0
        self._count = self._odd = self.gaps = 0

    @property
    def variable(self) -> bool:
        """More than a twentieth of the steps are not the usual one."""
        return self._odd > 0.05 * self._count

    def tick(self, stamp: float) -> float:
        number = self._count
        self._count += 1
        if number == 0:
            self._first = self._last = stamp
            return 0.0
        if stamp <= self._last:  # no time stamps: some containers leave them out at their end
            return number / self._rate
        step, self._last = stamp - self._last, stamp
        if len(self._steps) < self.WINDOW:
            self._steps.append(step)
        if number < 20 or number == self.WINDOW:
            self._usual = float(np.median(self._steps))
        usual = self._usual
        if usual > 0 and abs(step - usual) > 0.25 * usual:
            self._odd += 1
            self.gaps += max(round(step / usual) - 1, 0)
        return number / self._rate if self._given else stamp - self._first


def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        raise UserError(f"--video needs OpenCV: {INSTALL}; or give --frames, a folder of images") from None
    return cv2
