"""Which boxes become crops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from jgcl_ray.footage.camera import judged
from jgcl_ray.footage.quality import geometric_quality, overlaps, sharpness, usual_shape
from jgcl_ray.footage.sampling import SPARE, TRIES, Sampling, candidates, choose, spaced_in_time
from jgcl_ray.footage.tracks import Tracks


def make_tracks(frame: list[int], track: list[int], box: list[list[float]]) -> Tracks:
    nothing = np.full(len(frame), np.nan)
    return Tracks(np.array(frame), np.array(track), np.array(box, float), nothing, nothing)


def test_overlaps_are_those_of_a_loop() -> None:
    random = np.random.default_rng(0)
    frame = np.sort(random.integers(1, 8, 60))
    box = random.uniform(5, 60, (60, 4))
    expected = np.zeros(60)
    for i in range(60):
        for j in range(60):
            if i != j and frame[i] == frame[j]:
                width = min(box[i, 0] + box[i, 2], box[j, 0] + box[j, 2]) - max(box[i, 0], box[j, 0])
                height = min(box[i, 1] + box[i, 3], box[j, 1] + box[j, 3]) - max(box[i, 1], box[j, 1])
                if width > 0 and height > 0:
                    expected[i] = max(expected[i], width * height / (box[i, 2] * box[i, 3]))
    np.testing.assert_allclose(overlaps(frame, box), expected)


def test_quality_falls_with_size_edge_and_overlap() -> None:
    boxes = [[100, 100, 64, 128], [300, 100, 32, 64], [-32, 300, 64, 128], [300, 300, 64, 128], [332, 300, 64, 128]]
    tracks = make_tracks([1] * 5, [1, 2, 3, 4, 5], boxes)
    quality, overlap, share = geometric_quality(tracks, 640, 480)
    np.testing.assert_allclose(quality, [1, 0.5, 0.5 * np.sqrt(0.5), 0.5, 0.5])
    np.testing.assert_allclose(overlap, [0, 0, 0, 0.5, 0.5])
    np.testing.assert_allclose(share, [1, 1, 0.5, 1, 1])


def test_a_box_that_suddenly_is_wide_is_worse() -> None:
    """Two people in one box, or legs alone; a stride is no flaw."""
    boxes = [[100, 100, 64, 128]] * 5 + [[100, 100, 80, 128], [100, 100, 128, 128], [100, 100, 64, 64]]
    shape = usual_shape(make_tracks(list(range(8)), [3] * 8, boxes))
    np.testing.assert_allclose(shape, [1, 1, 1, 1, 1, 1, 0.7, 0.7])


def test_of_two_crops_close_in_time_the_better_stays() -> None:
    time, quality = np.array([0.0, 0.1, 0.5, 1.0, 1.1]), np.array([0.5, 0.6, 0.1, 0.9, 0.2])
    assert spaced_in_time(time, quality, 0.25).tolist() == [1, 2, 3]
    assert spaced_in_time(time, quality, 0.05).tolist() == [0, 1, 2, 3, 4]


def test_visibility_counts_where_it_is_known() -> None:
    tracks = make_tracks([1, 1], [1, 2], [[0, 0, 64, 128], [32, 0, 64, 128]])
    seen = Tracks(tracks.frame, tracks.track, tracks.box, tracks.confidence, np.array([1.0, 0.25]))
    np.testing.assert_allclose(geometric_quality(seen, 640, 480)[0], [1, 0.25])


def test_sharpness_falls_with_blur_and_does_not_rise_with_enlarging() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((128, 256), Image.Resampling.BICUBIC)
    values = [sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(radius)))) for radius in (0, 2, 4, 8)]
    assert values == sorted(values, reverse=True) and values[0] > 2 * values[-1]
    small = image.resize((16, 32), Image.Resampling.BOX)
    assert sharpness(np.asarray(small)) < values[0]
    dark = Image.fromarray((np.asarray(image) * 0.5).astype(np.uint8))
    assert sharpness(np.asarray(dark)) == pytest.approx(values[0], rel=0.05)


@pytest.mark.parametrize("seconds", [0.2, 3.0, 60.0])
def test_candidates_are_spread_and_few(seconds: float) -> None:
    count, rate = max(3, int(seconds * 25)), 25.0
    tracks = make_tracks(list(range(1, count + 1)), [7] * count, [[5, 5, 40, 80]] * count)
    quality = np.random.default_rng(0).uniform(0.1, 1, count)
    sampling = Sampling(per_track=5)
    found = candidates(tracks, quality, np.ones(count, bool), rate, sampling)
    slots = np.unique(found.slot)
    assert len(slots) <= SPARE * 5 and len(found.row) <= TRIES * len(slots)
    assert len(slots) == min(SPARE * 5, int((count - 1) / rate / 0.5 + 1e-6) + 1)
    for slot in slots:  # the best of each slot is among them
        edges = np.floor(np.arange(count) / (count - 1 + 1e-4) * len(slots)).astype(int) == slot
        best = np.flatnonzero(edges)[quality[edges].argmax()]
        assert best in found.row[found.slot == slot]


def test_unfit_boxes_are_no_candidates() -> None:
    tracks = make_tracks([1, 1, 2, 2, 3, 3], [1, 2] * 3, [[5, 5, 40, 80]] * 6)
    fit = np.array([True, False] * 3)
    fit[4] = False
    found = candidates(tracks, np.array([0.5, 0.1, 0.5, 0.3, 0.9, 0.2]), fit, 1.0, Sampling())
    assert found.row.tolist() == [0, 2]


def test_limits_leave_out_what_they_name_and_count_it() -> None:
    """Too small, covered, at the edge; a track that has no other box is left out, one that has is not."""
    boxes = [[10, 10, 10, 20], [100, 10, 20, 40], [102, 10, 20, 40], [-15, 100, 20, 40], [300, 100, 20, 40]]
    tracks = make_tracks([1, 1, 1, 1, 2], [1, 2, 3, 4, 4], boxes)
    found = judged(tracks, 640, 480, Sampling(min_height=30, max_overlap=0.7, min_inside=0.6))
    assert found.fit.tolist() == [False, False, False, False, True]
    assert found.notes == (
        "1 box lower than 30 pixels (--min-height) left out",
        "2 boxes covered by more than 0.7 (--max-overlap) left out",
        "1 box with less than 0.6 in the frame (--min-inside) left out",
        "3 tracks left out, with no other boxes than these",
    )
    assert judged(tracks, 640, 480, Sampling(min_height=1, max_overlap=1, min_inside=0)).notes == ()


def test_choice_takes_the_best_and_spreads() -> None:
    time, quality = np.arange(10.0), np.full(10, 0.8)
    quality[6] = 1.0
    kept = choose(time, quality, 3)
    assert 6 in kept and 0 in kept and np.diff(kept).min() >= 3
    assert choose(time, quality, 20).tolist() == list(range(10))


def test_choice_prefers_another_side() -> None:
    """Someone turns for a moment: that crop is taken, if the direction is sure."""
    time, quality, yaw = np.linspace(0, 1, 9), np.ones(9), np.zeros(9)
    quality[0] = 1.01
    yaw[3] = 170.0
    sure, unsure = np.full(9, 5.0), np.full(9, 90.0)
    assert choose(time, quality, 3, yaw, sure).tolist() == [0, 3, 8]
    assert choose(time, quality, 3, yaw, unsure).tolist() == [0, 4, 8] == choose(time, quality, 3).tolist()


def test_what_hides_is_not_chosen_for_being_different() -> None:
    quality = np.array([1.0, 0.9, 0.9, 0.9, 0.01])
    assert 4 not in choose(np.arange(5.0), quality, 3)
