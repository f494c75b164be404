"""Videos read with OpenCV: numbers, times, what is damaged."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scene

from jgcl_ray.errors import UserError
from jgcl_ray.footage.command import Request, extract_crops
from jgcl_ray.footage.sampling import Sampling
from jgcl_ray.footage.sources import Source
from jgcl_ray.footage.video import ReadProgress, VideoFile, _Clock

cv2 = pytest.importorskip("cv2", reason="videos need opencv-python-headless (extra footage)")
COUNT = 30


def test_frames_are_numbered_in_order(tmp_path: Path) -> None:
    reader = VideoFile(scene.write_video(tmp_path / "a.avi", COUNT), None)
    assert (reader.footage.width, reader.footage.height, reader.rate) == (scene.WIDTH, scene.HEIGHT, scene.RATE)
    reading = ReadProgress()
    wanted = [1, 2, 7, 8, 29, 30]
    frames = list(reader.frames(wanted, reading))
    assert [frame.number for frame in frames] == wanted and (reading.read, reading.damaged, reading.gaps) == (
        30,
        [],
        0,
    )
    for frame in frames:
        assert frame.time == pytest.approx((frame.number - 1) / scene.RATE, abs=2e-3)
        assert np.abs(frame.pixels.astype(int) - scene.picture(frame.number)).mean() < 5


def test_beyond_the_end(tmp_path: Path) -> None:
    reading = ReadProgress()
    reader = VideoFile(scene.write_video(tmp_path / "a.avi", COUNT), None)
    assert [frame.number for frame in reader.frames([29, 35], reading)] == [29]
    assert reading.read == COUNT


def test_what_can_be_decoded_of_a_damaged_video_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = scene.write_video(tmp_path / "a.avi", COUNT)
    content = video.read_bytes()
    video.write_bytes(content[: int(len(content) * 0.6)])
    tracks = tmp_path / "a.txt"
    tracks.write_text(scene.mot_lines(COUNT))
    source = Source("a", video=video, tracks=tracks)
    extract_crops(Request((source,), tmp_path / "crops", sampling=Sampling(views=False)))
    kept = [int(path.stem) for path in (tmp_path / "crops" / "a").rglob("*.jpg")]
    told = capsys.readouterr().err
    assert 5 < max(kept) < COUNT - 5 and "frames and" in told and "boxes lost" in told


def test_a_video_filmed_on_its_side_is_read_upright(tmp_path: Path) -> None:
    """As the trackers' readers turn it, by the matrix in the track header."""
    file = tmp_path / "a.mp4"
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 96))
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:, :40] = 255  # a white stripe on the left
    for _ in range(3):
        video.write(picture)
    video.release()
    content = bytearray(file.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # behind version, times, number, duration, layer, volume
    quarter = [0, 1, 0, -1, 0, 0, 96, 0, 1]  # turned clockwise, shifted back into view
    unit = [16, 16, 30] * 3
    for place, (value, bits) in enumerate(zip(quarter, unit, strict=True)):
        content[matrix + 4 * place : matrix + 4 * place + 4] = (value << bits).to_bytes(4, "big", signed=True)
    file.write_bytes(content)
    reader = VideoFile(file, None)
    assert (reader.footage.width, reader.footage.height) == (96, 160)
    [frame] = reader.frames([2], ReadProgress())
    assert frame.pixels[:30].mean() > 200 and frame.pixels[50:].mean() < 40


def test_no_video(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"\0" * 1000)
    with pytest.raises(UserError, match="cannot be opened"):
        VideoFile(file, None)
    file.write_text(scene.mot_lines(300))
    with pytest.raises(UserError, match="a text file, no video"):
        VideoFile(file, None)


def test_a_track_file_far_longer_than_the_video(tmp_path: Path) -> None:
    tracks = tmp_path / "a.txt"
    tracks.write_text(scene.mot_lines(10) + "\n".join(f"{frame},9,5,5,20,40,1,-1,-1,-1" for frame in range(500, 600)))
    source = Source("a", video=scene.write_video(tmp_path / "a.avi", COUNT), tracks=tracks)
    with pytest.raises(UserError, match="its last frame is 599, and the video has about 30"):
        extract_crops(Request((source,), tmp_path / "crops"))


def test_without_opencv_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = scene.write_video(tmp_path / "a.avi", 3)
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'jgcl_ray\[footage\]'"):
        VideoFile(video, None)


def test_times_of_a_constant_rate_with_lost_frames() -> None:
    clock = _Clock(25.0, given=False)
    stamps = [number / 25 for number in range(60) if number not in (30, 31, 32)]
    assert [clock.tick(stamp) for stamp in stamps] == pytest.approx(stamps)
    assert clock.gaps == 3 and not clock.variable


def test_times_of_a_variable_rate() -> None:
    clock = _Clock(25.0, given=False)
    steps = np.random.default_rng(0).choice([Fraction(1, 30), Fraction(1, 15), Fraction(1, 10)], 80)
    stamps = np.cumsum([0, *map(float, steps)]) + 5
    assert [clock.tick(stamp) for stamp in stamps] == pytest.approx(stamps - 5)
    assert clock.variable


def test_times_without_stamps_or_with_a_rate_given() -> None:
    for clock, stamp in ((_Clock(10.0, given=False), 0.0), (_Clock(10.0, given=True), 7.0)):
        assert [clock.tick(stamp * number) for number in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
