"""From footage to crops on a CPU: seconds for a minute of 1080p at 25 frames a second with 20 people at a time.

The video is made: a textured scene with a little noise in every frame, striped people of 90 x 220 pixels who cross
it in ten seconds each, MPEG-4; its tracks are exact. One JSON object a line: seconds by the clock and of the
processor, how many times faster than the footage that is, and the memory of the process (MiB) at each quarter of the
way, which should not grow.

    python benchmarks/bm_footage.py [--seconds 60] [--people 20] [--views 1 0]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.footage.job import Job, work
from jgcl_ray.footage.sampling import Sampling
from jgcl_ray.footage.sources import Source
from jgcl_ray.footage.tracks import Filters

WIDTH, HEIGHT, RATE = 1920, 1080, 25
TALL, WIDE = 220, 90  # pixels of a person
CROSSING = 10  # seconds that a track lasts
SEED = 1


def make_footage(folder: Path, seconds: int, people: int) -> Source:
    """A video, and its tracks as MOT text."""
    random = np.random.default_rng(SEED)
    coarse = random.integers(40, 200, (HEIGHT // 6, WIDTH // 6, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 8, (8, HEIGHT, WIDTH, 1), dtype=np.uint8)
    file, lines = folder / "made.mp4", []
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
    period = CROSSING * RATE
    for frame in range(seconds * RATE):
        picture = scene.copy()
        for lane in range(people):
            walked = frame + lane * period // people
            track, step = walked // period * people + lane, walked % period
            left = round(step / period * (WIDTH - WIDE))
            top = (lane * 47) % (HEIGHT - TALL)
            picture[top : top + TALL, left : left + WIDE] = figure(track)
            lines.append(f"{frame + 1},{track},{left},{top},{WIDE},{TALL},0.9,-1,-1,-1")
        video.write(cv2.add(picture, np.repeat(grain[frame % len(grain)], 3, 2)))
    video.release()
    tracks = folder / "made.txt"
    tracks.write_text("\n".join(lines))
    return Source("made", video=file, tracks=tracks)


def figure(track: int) -> np.ndarray:
    """uint8 (TALL, WIDE, 3): stripes in a track's own colours."""
    colours = np.random.default_rng(track).integers(0, 255, (8, 3, 3), dtype=np.uint8)
    return cv2.resize(colours, (WIDE, TALL), interpolation=cv2.INTER_NEAREST)


def memory() -> int:
    """MiB that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


def measure(source: Source, folder: Path, seconds: int, people: int, views: bool) -> dict[str, object]:
    """One pass over the video."""
    quarters: dict[int, int] = {}

    def watch(frame: int, last: int) -> None:
        quarters.setdefault(4 * frame // max(last, 1), memory())

    job = Job(source, folder, Filters(), Sampling(views=views))
    clock, processor = time.perf_counter(), time.process_time()
    record = work(job, watch)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return {
        "case": "footage",
        "views": views,
        "video_seconds": seconds,
        "frames": seconds * RATE,
        "people": people,
        "tracks": len(record["spans"]),
        "crops": len(record["rows"]),
        "seconds": round(clock, 1),
        "cpu_seconds": round(processor, 1),
        "times_real_time": round(seconds / clock, 2),
        "times_real_time_by_cpu_seconds": round(seconds / processor, 2),
        "mib_by_quarter": [quarters[part] for part in sorted(quarters)],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10,
    }


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=whole(1), default=60)
    parser.add_argument("--people", type=whole(1), default=20)
    parser.add_argument(
        "--views", type=whole(1), nargs="+", default=[1, 0], help="with (1) and without (0) the sides seen"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = make_footage(Path(folder), given.seconds, given.people)
        for views in given.views:
            line = measure(source, Path(folder) / f"crops{views}", given.seconds, given.people, bool(views))
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
