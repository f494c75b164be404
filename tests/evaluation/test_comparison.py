"""Two files of scores held against each other, and viewpoints, by the definition."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jgcl_ray.atomic import write_json
from jgcl_ray.data.datasets import ReidDataset, Split
from jgcl_ray.errors import UserError
from jgcl_ray.evaluation.bootstrap import paired_difference
from jgcl_ray.evaluation.comparison import check_comparable, compare, most_changed
from jgcl_ray.evaluation.query_scores import QueryScores, ScoresFile
from jgcl_ray.evaluation.ranking import Labels, rank_by
from jgcl_ray.evaluation.viewpoints import bins_of, read_yaws, viewpoint_precisions


def scores(seed: int, queries: int = 60, views: bool = True) -> QueryScores:
    random = np.random.default_rng(seed)
    people = np.random.default_rng(0).integers(1, 11, queries)  # the same for every seed
    cameras = np.random.default_rng(1).integers(1, 4, queries)
    by_camera = random.random((queries, 3))
    by_camera[np.arange(queries), cameras - 1] = np.nan
    by_viewpoint = random.random((queries, 4))
    by_viewpoint[:, 2] = np.nan
    return QueryScores(
        tuple(f"{row:03d}.jpg" for row in range(queries)),
        people,
        cameras,
        random.random(queries),
        random.integers(1, 9, queries),
        np.array([1, 2, 3]),
        by_camera,
        by_viewpoint if views else None,
    )


def file_of(queries: QueryScores, protocol: str = "market", gallery: int = 100, reranked: bool = False) -> ScoresFile:
    return ScoresFile(Path("other.json"), 0.5, protocol, gallery, "runs/b", queries, reranked)


def test_a_file_of_scores_gives_them_back(tmp_path: Path) -> None:
    written, target = scores(2), tmp_path / "scores.json"
    written.average_precisions[3], written.first_matches[3] = np.nan, 0
    document = {
        "mAP": 0.25,
        "protocol": "cross_camera",
        "gallery": 7,
        "checkpoint": {"path": "runs/a"},
        "reranked": True,
    }
    write_json(target, document | {"checkpoint": {"path": "runs/a"}, "by_query": written.document()})
    read = ScoresFile.read(target)
    assert (read.mAP, read.protocol, read.gallery, read.checkpoint) == (0.25, "cross_camera", 7, "runs/a")
    assert read.reranked
    for name, value in vars(written).items():
        if name == "files":
            assert read.queries.files == value
        else:
            np.testing.assert_allclose(getattr(read.queries, name), value, atol=1e-6)
    assert len(target.read_text().splitlines()) < 2 * 60 + 40


@pytest.mark.parametrize("damage", ["identities", "by_camera", "gallery_cameras"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    document = scores(2).document()
    document[damage] = document[damage][:-1]
    target = tmp_path / "scores.json"
    target.write_text(json.dumps({"mAP": 0.2, "protocol": "market", "gallery": 1, "by_query": document}))
    with pytest.raises(UserError, match=r"scores\.json: damaged "):
        ScoresFile.read(target)


def test_queries_are_paired_by_file_whatever_their_order() -> None:
    mine, theirs = scores(2), scores(3)
    found = compare(mine, file_of(theirs.take(np.random.default_rng(0).permutation(60))))
    expected = paired_difference(mine.average_precisions, theirs.average_precisions, mine.identities)
    assert (found.difference, found.queries, found.people) == (expected, 60, 10)
    assert len(found.by_camera_pair) == 6 and [share.kind for share in found.by_viewpoint] == [
        (0, 45), (45, 90), (135, 180),
    ]  # fmt: skip
    for share in found.by_camera_pair:
        rows = mine.cameras == share.kind[0]
        difference = (mine.by_camera - theirs.by_camera)[rows, share.kind[1] - 1]
        assert share.difference.mean == pytest.approx(difference.mean()) and share.queries == rows.sum()
        assert share.people == len(set(mine.identities[rows].tolist()))
    for share, column in zip(found.by_viewpoint, (0, 1, 3), strict=True):
        expected = paired_difference(mine.by_viewpoint[:, column], theirs.by_viewpoint[:, column], mine.identities)
        assert share.difference.mean == pytest.approx(expected.mean)
        assert (share.difference.low, share.difference.high) == pytest.approx((expected.low, expected.high))


def test_queries_of_one_side_are_left_out_and_said() -> None:
    mine, theirs = scores(2), scores(3, views=False)
    theirs.average_precisions[5] = np.nan
    found = compare(mine.take(np.arange(40)), file_of(theirs.take(np.arange(4, 60))))
    rows = np.array([row for row in range(4, 40) if row != 5])
    difference = mine.average_precisions[rows] - theirs.average_precisions[rows]
    assert found.difference.mean == pytest.approx(difference.mean())
    assert (found.queries, found.only_here, found.only_there) == (35, 4, 20) and not found.by_viewpoint
    assert "4 only here and 20 only there are left out" in found.lines(str)[-1]
    assert found.lines("camera {}".format)[0].startswith("camera 1 -> camera 2: mAP ")


def test_what_cannot_be_compared_is_one_line() -> None:
    other = scores(3)
    query = Split(Path("/q"), other.files, other.identities, other.cameras)
    check_comparable(file_of(other), query, 100, "market", reranked=False)
    check_comparable(file_of(other, reranked=True), query, 100, "market", reranked=True)
    with pytest.raises(UserError, match="scored without --rerank; leave it away here, or write that file again"):
        check_comparable(file_of(other), query, 100, "market", reranked=True)
    for file, protocol, gallery, words in (
        (file_of(other, "cross_camera"), "market", 100, "--protocol cross_camera"),
        (file_of(other, reranked=True), "market", 100, "scored with --rerank; give it here, too"),
        (file_of(other), "market", 99, "a gallery of 100 photos, here it has 99"),
        (file_of(replace(other, files=tuple(f"x{name}" for name in other.files))), "market", 100, "such as x000.jpg"),
        (file_of(replace(other, identities=other.identities + 1)), "market", 100, "another identity or camera"),
    ):
        with pytest.raises(UserError, match=words):
            check_comparable(file, query, gallery, protocol, reranked=False)


def test_of_many_pairs_the_telling_are_shown() -> None:
    queries, cameras = 60, np.arange(1, 6)
    mine, theirs = scores(2), scores(3)
    every = [replace(one, gallery_cameras=cameras, by_camera=np.random.default_rng(seed).random((queries, 5)))
             for seed, one in enumerate((mine, theirs))]  # fmt: skip
    shares = compare(every[0], file_of(every[1])).by_camera_pair
    shown = most_changed(shares)
    means = sorted((share.difference.mean for share in shares), reverse=True)
    assert len(shares) == 15 and [share.difference.mean for share in shown] == means[:6] + means[-6:]


def test_viewpoints_by_the_definition() -> None:
    """A query's average precision with the matches of one bin, when the gallery has no others of the person."""
    random = np.random.default_rng(0)
    q, g = 10, 60
    ids, cams = random.integers(0, 5, q + g), random.integers(1, 4, q + g)
    yaws = random.uniform(-400, 400, q + g)
    distances = random.random((q, g), dtype=np.float32)
    labels = Labels.of(ids[:q], ids[q:], cams[:q], cams[q:])
    found = viewpoint_precisions(rank_by(lambda rows: distances[rows].copy(), labels).matches, yaws[:q], yaws[q:])
    assert found.shape == (q, 4)
    for query in range(q):
        apart = np.degrees(np.arccos(np.cos(np.radians(yaws[q:] - yaws[query]))))
        own = ids[q:] == ids[query]
        for column, (low, high) in enumerate(((0, 45), (45, 90), (90, 135), (135, 180))):
            right = own & (cams[q:] != cams[query]) & (low <= apart) & (apart < high)
            order = [row for row in np.argsort(distances[query]) if right[row] or not own[row]]
            hits = [place + 1 for place, row in enumerate(order) if right[row]]
            if hits:
                expected = np.mean([(k + 1) / hit for k, hit in enumerate(hits)])
                assert found[query, column] == pytest.approx(expected, abs=1e-9)
            else:
                assert np.isnan(found[query, column])


def test_bins_of_angles() -> None:
    first = np.array([0, 350, 10, 0, 0, 90, 0.0])
    second = np.array([44, 10, 350, 45, 180, 315, -180.0])
    assert bins_of(first, second).tolist() == [0, 0, 0, 1, 3, 3, 3]


def test_yaws_come_from_the_walkers_own_file(tmp_path: Path) -> None:
    splits = [Split(tmp_path / name, ("a.jpg", "b.jpg"), np.array([1, 2]), np.array([1, 1])) for name in ("q", "g")]
    dataset = ReidDataset("walkers", tmp_path, splits[0], splits[0], splits[1])
    assert read_yaws(dataset) is None
    names = np.array(["g/a.jpg", "q/b.jpg", "q/a.jpg", "g/b.jpg"])
    np.savez(tmp_path / "views.npz", names=names, yaw=np.array([1.0, 2, 3, 4], np.float32))
    yaws = read_yaws(dataset)
    assert yaws is not None and [yaw.tolist() for yaw in yaws] == [[3, 2], [1, 4]]
    np.savez(tmp_path / "views.npz", names=names[:3], yaw=np.zeros(3))
    with pytest.raises(UserError, match=r"no view of g/b\.jpg"):
        read_yaws(dataset)
    (tmp_path / "views.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"views\.npz: damaged .*render the walkers again"):
        read_yaws(dataset)
