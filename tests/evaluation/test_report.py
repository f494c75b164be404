"""The report: which queries and clusters it shows, what it says, and its files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import LABELLING
from PIL import Image

from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.data.datasets.reid_dataset import RankingProtocol
from jgcl_ray.evaluation import report
from jgcl_ray.evaluation.assessment import Assessment
from jgcl_ray.evaluation.clusters import cluster_gallery, example_clusters, for_gallery
from jgcl_ray.evaluation.page import find, render_page
from jgcl_ray.evaluation.plots import chance_cmc, embedding_map
from jgcl_ray.evaluation.ranking import Labels, rank_by
from jgcl_ray.evaluation.report import choose_queries, keep_with_run
from jgcl_ray.mlflow_mirror import RunCard, Sent, TrackingUnavailableError


def test_queries_are_best_median_worst_and_each_once() -> None:
    random = np.random.default_rng(0)
    precisions = random.random(200)
    precisions[random.choice(200, 20, replace=False)] = np.nan
    people = random.integers(0, 60, 200)
    chosen = choose_queries(precisions, people)
    every = [*chosen.best, *chosen.median, *chosen.worst]
    assert (len(chosen.best), len(chosen.median), len(chosen.worst)) == (7, 6, 7)
    assert len(set(every)) == 20 and not np.isnan(precisions[every]).any()
    for group in (chosen.best, chosen.median, chosen.worst):
        assert len(set(people[group])) == len(group)
    assert chosen.best[0] == np.nanargmax(precisions) and chosen.worst[0] == np.nanargmin(precisions)
    middle = np.nanmedian(precisions)
    assert all(abs(precisions[query] - middle) < 0.1 for query in chosen.median)


@pytest.mark.parametrize("number", [1, 2, 5, 19])
def test_few_queries_are_shown_once_each(number: int) -> None:
    precisions = np.linspace(0, 1, number)
    chosen = choose_queries(precisions, np.ones(number, int))
    every = [*chosen.best, *chosen.median, *chosen.worst]
    assert sorted(every) == list(range(number))


@pytest.mark.parametrize("protocol", ["market", "cross_camera"])
def test_chance_is_the_mean_of_random_orders(protocol: RankingProtocol) -> None:
    random = np.random.default_rng(1)
    labels = Labels.of(
        random.integers(-1, 5, 12),
        random.integers(-1, 5, 40),
        random.integers(1, 4, 12),
        random.integers(1, 4, 40),
        protocol=protocol,
    )
    orders = [
        rank_by(lambda rows: random.random((rows.stop - rows.start, 40), dtype=np.float32), labels, 10).cmc
        for _ in range(3000)
    ]
    np.testing.assert_allclose(chance_cmc(labels, 10), np.mean(orders, axis=0), atol=0.02)


def test_clusters_are_judged_by_known_people() -> None:
    # Four directions: person 1; person 2 with one of 3; distractors alone; 4 with a distractor.
    features = np.repeat(np.eye(4, 8, dtype=np.float32), 4, axis=0)
    features[:, 4:] = 0.02 * np.random.default_rng(0).standard_normal((16, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    people = np.array([1, 1, 1, 1, 2, 3, 2, 2, 0, 0, 0, 0, 4, 4, 4, 0])
    found = cluster_gallery(features, people, np.tile([1, 2], 8), PseudoLabelsConfig(k1=4, k2=2, eps=0.6))
    assert [(c.person, c.strays, c.pure, c.mixed) for c in found.clusters] == [
        (1, 0, True, False),
        (2, 1, False, True),
        (0, 0, False, False),
        (4, 1, False, True),
    ]
    assert people[found.clusters[1].rows].tolist() == [2, 2, 2, 3]
    assert (found.people, found.split_people) == (4, 0)
    assert [cluster.number for cluster in example_clusters(found, 3)] == [0, 1, 3]
    assert [cluster.number for cluster in example_clusters(found, 8)] == [0, 1, 3]


def test_rho_keeps_the_near_photos_of_each() -> None:
    assert for_gallery(PseudoLabelsConfig(rho=0.01), 600, 300).rho == pytest.approx(0.02)
    assert for_gallery(PseudoLabelsConfig(rho=0.9), 600, 300).rho == 1


def test_findings_name_good_and_bad(found: Assessment) -> None:
    clustering = cluster_gallery(
        found.gallery_features, found.labels.gallery_identities, found.labels.gallery_cameras, LABELLING
    )
    said = find(found, clustering)
    pairs = sorted(found.camera_pairs or (), key=lambda pair: pair.mAP)
    hardest, easiest = pairs[0], pairs[-1]
    assert f"Hardest cameras: camera {hardest.query_camera} → camera {hardest.gallery_camera}" in "\n".join(said.bad)
    assert f"Easiest cameras: camera {easiest.query_camera} → camera {easiest.gallery_camera}" in "\n".join(said.good)
    blind = replace(found, result=replace(found.result, cmc=np.full(50, 0.01)))
    assert "hardly learnt" in "\n".join(find(blind, clustering).bad)
    assert "hardly learnt" not in "\n".join(said.bad + said.good)


def test_page_names_the_protocol_and_the_interval(found: Assessment) -> None:
    clustering = cluster_gallery(
        found.gallery_features, found.labels.gallery_identities, found.labels.gallery_cameras, LABELLING
    )
    low, high = found.interval.bounds or ()
    for protocol, words in (("market", "Protocol of Market-1501"), ("cross_camera", "Across cameras: each query")):
        labels = replace(found.labels, protocol=protocol)
        page = render_page(replace(found, labels=labels), "an encoder", clustering, [])
        assert words in page and f"interval {100 * low:.1f} to {100 * high:.1f}, over 7 people" in page


def test_map_of_few_or_many_points() -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((40, 8)).astype(np.float32)
    people, cameras = np.repeat(np.arange(10), 4), np.tile([1, 2], 20)
    assert embedding_map(features[:5], people[:5], cameras[:5], {}) is None
    drawn = embedding_map(features, people, cameras, {1: "door"})
    assert drawn is not None and drawn.width > drawn.height
    alike = embedding_map(np.repeat(features[:1], 40, axis=0), people, cameras, {1: "door"})
    assert alike is not None and alike.size == drawn.size, "of an encoder that tells nobody apart"


def test_page_holds_everything_and_fetches_nothing(written: list[Path], found: Assessment) -> None:
    folder = written[0].parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    pictures = [path for path in written if path.suffix == ".png"]
    rankings = {f"rankings_{kind}" for kind in ("best", "median", "worst")}
    assert {path.stem for path in pictures} == rankings | {"accuracy", "embedding_map", "clusters", "activation_maps"}
    for path in pictures:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.width > 300
            assert np.asarray(image.convert("L")).std() > 10
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/') == page.count("<img ") == len(pictures)
    assert not re.search(r"<script|https?://|url\(|@import", page)
    assert r"/data/&lt;b&gt;&amp;by\xffte" in page
    assert f"{100 * found.result.mAP:.1f}" in page and "before re-ranking" in page
    assert json.loads((folder / "scores.json").read_text())["mAP"] == found.result.mAP


def test_rankings_leave_out_what_the_protocol_does(found: Assessment) -> None:
    labels = found.labels
    for query in range(len(found.query)):
        rows = found.found(query, 1000)
        own = (labels.gallery_identities == labels.query_identities[query]) & (
            labels.gallery_cameras == labels.query_cameras[query]
        )
        assert set(rows) == set(np.flatnonzero(~own))
        assert (np.diff(found.shown_distances(query)[rows]) >= 0).all()
        right = np.flatnonzero(labels.gallery_identities[rows] == labels.query_identities[query])
        assert right[0] + 1 == found.result.first_matches[query]
        assert np.mean(np.arange(1, len(right) + 1) / (right + 1)) == pytest.approx(
            found.result.average_precisions[query]
        )


def card(folder: Path, **fields: object) -> Path:
    folder.mkdir(parents=True)
    values = {
        "key": "k",
        "name": "a",
        "uri": "sqlite:////nowhere/mlflow.db",
        "experiment": "e",
        "status": "FINISHED",
        "params": {"tracking.enabled": "true"},
        "tags": {},
    }
    RunCard(**{**values, **fields}).write(folder)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize(
    ("fields", "words", "sent"),
    [
        ({}, "and sent to MLflow", True),
        ({"status": "RUNNING"}, "the run is under way", False),
        ({"params": {"tracking.enabled": "false"}}, "not tracked in MLflow", False),
        ({"uri": "http://***@host:5000"}, "whose password is not kept", False),
    ],
)
def test_report_is_kept_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], words: str, sent: bool
) -> None:
    run, updates = card(tmp_path / "run", **fields), []
    monkeypatch.setattr(report.Mirror, "update", lambda mirror: updates.append(mirror.folder) or Sent())
    picture = tmp_path / "accuracy.png"
    picture.write_bytes(b"picture")
    checkpoint = run / "checkpoints" / "step7"
    checkpoint.mkdir(parents=True)
    assert words in keep_with_run(checkpoint, [picture], "walkers")
    assert (run / "artifacts" / "evaluation" / "walkers-step7" / "accuracy.png").read_bytes() == b"picture"
    assert updates == ([run] if sent else [])


def test_mlflow_away_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = card(tmp_path / "run")

    def away(mirror: report.Mirror) -> None:
        raise TrackingUnavailableError(mirror.uri, OSError("no answer"))

    monkeypatch.setattr(report.Mirror, "update", away)
    said = keep_with_run(run, [], "walkers")
    assert said.startswith("warning: ") and "no answer" in said and f"--sync {run}" in said


def test_foreign_checkpoint_has_no_run(tmp_path: Path) -> None:
    assert "no run folder" in keep_with_run(tmp_path / "id.pt", [], "walkers")


@pytest.mark.slow
def test_a_run_in_mlflow_shows_the_report(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = card(tmp_path / "run", uri=uri)
    picture = tmp_path / "accuracy.png"
    Image.new("RGB", (8, 8)).save(picture)
    assert "sent to MLflow" in keep_with_run(run / "checkpoints" / "step7", [picture], "walkers")
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'e'")
    (logged,) = client.search_runs([experiment.experiment_id])
    (listed,) = client.list_artifacts(logged.info.run_id, "evaluation/walkers-step7")
    assert listed.path == "evaluation/walkers-step7/accuracy.png" and listed.file_size == picture.stat().st_size
