"""`python -m jgcl_ray.evaluate`: the file it writes, and one line for each mistake."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluation_data
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from jgcl_ray import evaluate
from jgcl_ray.data import datasets
from jgcl_ray.encoder import Encoder
from jgcl_ray.evaluation import report as report_module
from jgcl_ray.evaluation.bootstrap import mean_interval
from jgcl_ray.evaluation.ranking import Labels, rank, rank_by
from jgcl_ray.evaluation.reranking import rerank
from jgcl_ray.writer_lock import only_writer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is not market1501 as published", "ignore:.*are left out", "ignore:.*are from one camera"
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation_data.write_photos(tmp_path_factory.mktemp("data") / "market")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "a"
    evaluation_data.write_run(folder, photos)
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        code = 0
        try:
            evaluate.main()
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return called


def scored(run: Path, photos: Path) -> tuple[np.ndarray, np.ndarray, Labels]:
    dataset, encoder = evaluation_data.opened(photos), Encoder.load(run)
    query, gallery = dataset.query, dataset.gallery
    assert query is not None and gallery is not None
    features = [encoder.embed([split.path(row) for row in range(len(split))]) for split in (query, gallery)]
    assert query.identities is not None and gallery.identities is not None
    return *features, Labels.of(query.identities, gallery.identities, query.cameras, gallery.cameras)


def test_file_and_last_line_hold_the_scores(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "scores.json"
    code, out, _ = call("--checkpoint", run, "--data", "market1501", "--root", photos, "--json", target)
    document = json.loads(target.read_text())
    query, gallery, labels = scored(run, photos)
    expected = rank(query, gallery, *labels.arrays)
    assert code == 0
    assert out.splitlines()[-1] == f"mAP {expected.mAP:.4f} rank-1 {expected.cmc[0]:.4f}"
    assert document["mAP"] == pytest.approx(expected.mAP, abs=1e-6)
    assert document["mINP"] == pytest.approx(expected.mINP, abs=1e-6)
    np.testing.assert_allclose(document["cmc"], expected.cmc, atol=1e-6)
    assert document["rank-5"] == document["cmc"][4]
    assert (document["queries"], document["queries_without_match"], document["gallery"]) == (21, 0, 48)
    assert document["checkpoint"]["fingerprint"] == Encoder.load(run).fingerprint
    assert document["reranked"] is False and "cross_camera" not in document and "corrected" not in document
    interval = mean_interval(expected.average_precisions, labels.query_identities)
    assert document["interval"] == pytest.approx([interval.low, interval.high], abs=1e-6)
    assert (document["protocol"], document["interval_seed"], document["resamples"]) == ("market", 0, 2000)
    assert out.splitlines()[-2].startswith(f"mAP {expected.mAP:.4f} [{interval.low:.4f}, {interval.high:.4f}] (95 %")
    by_query = document["by_query"]
    np.testing.assert_allclose(by_query["average_precision"], expected.average_precisions, atol=1e-6)
    assert by_query["first_match"] == expected.first_matches.tolist()
    assert by_query["files"] == list(evaluation_data.opened(photos).query.paths)
    assert by_query["identities"] == labels.query_identities.tolist()
    assert by_query["cameras"] == labels.query_cameras.tolist()
    assert max(len(line) for line in target.read_text().splitlines()) > 21 * 20  # a list of numbers is one line


def test_reranked_and_camera_by_camera(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    checkpoint = run / "checkpoints" / "step0000007"
    code, out, _ = call(
        "--checkpoint", checkpoint, "--data", "market1501", "--root", photos, "--json", target, "--rerank",
        "--cross-camera", "eval.batch_size=5",
    )  # fmt: skip
    document = json.loads(target.read_text())
    query, gallery, labels = scored(run, photos)
    assert code == 0
    assert document["mAP"] == pytest.approx(rank_by(rerank(query, gallery), labels).mAP, abs=1e-6)
    assert document["before_reranking"]["mAP"] == pytest.approx(rank(query, gallery, *labels.arrays).mAP)
    assert len(document["before_reranking"]["cmc"]) == len(document["cmc"]) == 50
    places = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b]
    assert [(pair["query_camera"], pair["gallery_camera"]) for pair in document["cross_camera"]] == places
    assert len(out.splitlines()) == 8 and out.startswith("camera 1 -> camera 2: mAP ")


def test_protocol_is_the_data_sets_unless_given(
    call: Call, run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--checkpoint", run, "--data", "market1501", "--root", photos, "--json", tmp_path / "scores.json")
    query, gallery, labels = scored(run, photos)
    expected = {
        protocol: rank(query, gallery, *labels.arrays, protocol=protocol).mAP  # type: ignore[arg-type]
        for protocol in ("market", "cross_camera")
    }
    assert expected["market"] != expected["cross_camera"]
    across = replace(evaluation_data.opened(photos), protocol="cross_camera")
    for own, option, protocol in (
        (False, ("--protocol", "cross_camera"), "cross_camera"),
        (True, (), "cross_camera"),
        (True, ("--protocol", "market"), "market"),
    ):
        with monkeypatch.context() as patch:
            if own:
                patch.setattr(datasets, "open_dataset", lambda *_: across)
            code, out, _ = call(*given, *option)
        document = json.loads((tmp_path / "scores.json").read_text())
        assert code == 0 and document["protocol"] == protocol and f"protocol {protocol}" in out.splitlines()[-2]
        assert document["mAP"] == pytest.approx(expected[protocol], abs=1e-6)


def test_corrections_stand_beside_the_plain_score(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    code, out, _ = call(
        "--checkpoint", run, "--data", "market1501", "--root", photos, "--json", target, "--flip", "--camera-means",
        "--means-of", "gallery", "--report", tmp_path / "report", "pseudo_labels.eps=0.5",
    )  # fmt: skip
    document = json.loads(target.read_text())
    query, gallery, labels = scored(run, photos)
    plain = rank(query, gallery, *labels.arrays)
    assert code == 0 and document["mAP"] == pytest.approx(plain.mAP, abs=1e-6) and document["means_of"] == "gallery"
    dataset = evaluation_data.opened(photos)
    assert dataset.query is not None and dataset.gallery is not None
    mirrored = []
    for split, own in ((dataset.query, query), (dataset.gallery, gallery)):
        images = [ImageOps.mirror(Image.open(split.path(row))) for row in range(len(split))]
        both = own + Encoder.load(run).embed(images)
        mirrored.append(both / np.linalg.norm(both, axis=1, keepdims=True))

    def centred(of_query: np.ndarray, of_gallery: np.ndarray) -> list[np.ndarray]:
        means = {c: of_gallery[labels.gallery_cameras == c].mean(axis=0) for c in (1, 2, 3)}
        shifted = [
            np.stack([feature - means[camera] for feature, camera in zip(features, cameras, strict=True)])
            for features, cameras in ((of_query, labels.query_cameras), (of_gallery, labels.gallery_cameras))
        ]
        return [features / np.linalg.norm(features, axis=1, keepdims=True) for features in shifted]

    by_hand = {"flip": mirrored, "camera_means": centred(query, gallery), "flip+camera_means": centred(*mirrored)}
    assert list(document["corrected"]) == list(by_hand)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for name, features in by_hand.items():
        expected = rank(*features, *labels.arrays)
        told = document["corrected"][name]
        assert told["mAP"] == pytest.approx(expected.mAP, abs=2e-3)  # a near tie may fall the other way
        assert told["difference"] == pytest.approx(told["mAP"] - document["mAP"], abs=1e-9)
        low, high = told["difference_interval"]
        assert low <= told["difference"] <= high
        assert f"{name}: mAP {told['mAP']:.4f}" in out and f"{told['mAP']:.3f}" in page
    assert "Corrections without training" in page and "gallery images" in page
    assert out.splitlines()[-1] == f"mAP {document['mAP']:.4f} rank-1 {document['rank-1']:.4f}"


def test_photos_read_at_three_sizes(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    code, out, err = call(
        "--checkpoint", run, "--data", "market1501", "--root", photos, "--json", target, "--multi-scale"
    )
    document = json.loads(target.read_text())
    dataset, (_, _, labels) = evaluation_data.opened(photos), scored(run, photos)
    assert dataset.query is not None and dataset.gallery is not None
    encoder = Encoder.load(run, multi_scale=True)
    features = [
        encoder.embed([split.path(row) for row in range(len(split))]) for split in (dataset.query, dataset.gallery)
    ]
    assert code == 0 and document["mAP"] == pytest.approx(rank(*features, *labels.arrays).mAP, abs=1e-6)
    assert document["checkpoint"]["multi_scale"] and encoder.description.split(": ")[1] in out + err


def test_against_another_encoder(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    evaluation_data.write_run(tmp_path / "b", photos)
    posed = without(photos, tmp_path / "posed", "nothing")
    names = [f"{path.parent.name}/{path.name}" for path in posed.glob("*/*.png")]
    np.savez(posed / "views.npz", names=names, yaw=np.random.default_rng(0).uniform(0, 360, len(names)))
    first, second, report = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "report"
    given = ("--data", "market1501", "--root", posed)
    assert call("--checkpoint", run, *given, "--json", first)[0] == 0
    code, out, _ = call(
        "--checkpoint", tmp_path / "b", *given, "--json", second, "--against", first, "--report", report,
        "pseudo_labels.eps=0.5",
    )  # fmt: skip
    a, b = (json.loads(path.read_text()) for path in (first, second))
    low, high = b["difference_interval"]
    assert code == 0 and low < b["difference"] < high
    assert b["difference"] == pytest.approx(b["mAP"] - a["mAP"], abs=1e-6)
    assert (b["against"]["queries"], b["against"]["people"], b["against"]["path"]) == (21, 7, str(first))
    pairs = {(p["query_camera"], p["gallery_camera"]): p["mAP"] for p in b["cross_camera"]}
    for share in b["against"]["by_camera_pair"]:
        precisions = [
            scores["by_camera"][share["cameras"][1] - 1]
            for scores in rows_of(a["by_query"])
            if scores["cameras"] == share["cameras"][0]
        ]
        expected = pairs[tuple(share["cameras"])] - np.mean(precisions)
        assert share["difference"] == pytest.approx(expected, abs=1e-5) and share["people"] == 7
    assert len(b["against"]["by_camera_pair"]) == 6
    of_a, of_b = ({tuple(one["degrees"]): one["mAP"] for one in scores["by_viewpoint"]} for scores in (a, b))
    shares = {tuple(one["degrees"]): one["difference"] for one in b["against"]["by_viewpoint"]}
    assert shares == pytest.approx({degrees: of_b[degrees] - of_a[degrees] for degrees in of_b}, abs=1e-5)
    assert out.splitlines()[-3].startswith(f"mAP {b['difference']:+.4f} [{low:+.4f}, {high:+.4f}] against {first}")
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "Against another encoder" in page and f"{b['difference']:+.3f} [{low:+.3f}, {high:+.3f}]" in page
    assert "Viewpoint by viewpoint" in page


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    queries = len(columns["files"])
    whole = {name: column for name, column in columns.items() if len(column) == queries}
    return [{name: column[row] for name, column in whole.items()} for row in range(queries)]


def test_report_of_a_checkpoint_without_a_run_log(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    code, _, err = call(
        "--checkpoint", run, "--data", "market1501", "--root", photos, "--report", report, "pseudo_labels.eps=0.5"
    )
    assert code == 0 and (report / "index.html").is_file() and (report / "clusters.png").is_file()
    assert f"report: {report / 'index.html'}" in err and "lies in no run folder" in err
    assert "Jaccard distance of 0.500" in (report / "index.html").read_text(encoding="utf-8")


def test_two_evaluations_do_not_write_one_report(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    arguments = ("--checkpoint", run, "--data", "market1501", "--root", photos, "--report", report)
    with only_writer(report):
        code, out, err = call(*arguments)
    assert code == 2 and not out and "writes there since" in err and "give another --report" in err
    assert not list(report.iterdir())


def test_scores_are_told_where_the_report_cannot_be_written(
    call: Call, run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report/accuracy.png")

    monkeypatch.setattr(report_module, "write_picture", full)
    arguments = ("--checkpoint", run, "--data", "market1501", "--root", photos, "--report", tmp_path / "report")
    code, out, err = call(*arguments)
    assert code == 2 and err.splitlines()[-1].startswith("error: report/accuracy.png: No space left on device")
    assert out.splitlines()[-1].startswith("mAP ")


def without(photos: Path, folder: Path, pattern: str) -> Path:
    shutil.copytree(photos, folder)
    for path in folder.glob(pattern):
        path.unlink()
    return folder


def test_mistakes_end_in_one_line(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    broken = without(photos, tmp_path / "broken", "nothing")
    victim = min((broken / "query").iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    one_camera = evaluation_data.write_photos(tmp_path / "one camera", cameras=(2,))
    strangers = without(photos, tmp_path / "strangers", "bounding_box_test/001*")
    crops = tmp_path / "crops"
    shutil.copytree(photos / "query", crops / "door")
    given = ("--data", "market1501", "--root", photos)
    old, other = tmp_path / "old.json", tmp_path / "other.json"
    old.write_text('{"mAP": 0.5}')
    call("--checkpoint", run, *given, "--json", other, "--protocol", "cross_camera")
    fewer = without(photos, tmp_path / "fewer", "bounding_box_test/0017_c1*")
    renamed = without(photos, tmp_path / "renamed", "query/*")
    for path in (photos / "query").iterdir():
        shutil.copy(path, renamed / "query" / path.name.replace("_01.png", "_77.png"))
    same = tmp_path / "same.json"
    call("--checkpoint", run, *given, "--json", same)
    mistakes: list[tuple[tuple[object, ...], str]] = [
        ((run, "--data", "market1501", "--root", broken), f"{victim} ("),
        ((run, "--data", "market1501", "--root", one_camera), "all images are from one camera (2)"),
        ((run, "--data", "market1501", "--root", strangers), "no identity of the queries is in the gallery"),
        ((run, "--data", "market1501", "--root", without(photos, tmp_path / "empty", "bounding_box_test/*")),
         "empty/bounding_box_test: holds no image"),
        ((run, "--data", "folder", "--root", crops), "has no identities to score against"),
        ((run, "--data", "labelled", "--root", photos / "query", "data.pattern={identity}_c{camera}*",
          "data.train_share=1"), "nobody is left to be searched for; lower data.train_share"),
        ((run, "--data", "market1501"), "data.root is not set"),
        ((run, "--data", "market"), "data.name='market': no such data set; did you mean market1501?"),
        ((tmp_path / "nowhere", *given), "nowhere: no such file or folder"),
        ((tmp_path, *given), "no checkpoint here"),
        ((tmp_path / "nowhere", "--data", "walkers"), "nowhere: no such file or folder"),
        ((run, *given, "--json", tmp_path), "a folder; give the name of a file"),
        ((run, *given, "--report", victim), "not a folder"),
        ((run, *given, "--report", victim / "report"), "cannot be written to (Not a directory)"),
        ((run, *given, "--against", tmp_path / "none.json"), "none.json: cannot be read"),
        ((run, *given, "--against", victim), "damaged (not JSON"),
        ((run, *given, "--against", old), "holds no scores by query"),
        ((run, *given, "--against", other), "scored by the protocol cross_camera, here it is market"),
        ((run, "--data", "market1501", "--root", fewer, "--against", same), "a gallery of 48 photos, here it has 46"),
        ((run, "--data", "market1501", "--root", renamed, "--against", same), "its 21 queries are others"),
        ((run, *given, "--camera-means"), "camera 3 has no training image whose mean could be taken off"),
        ((run, *given, "--means-of", "gallery"), "is of --camera-means"),
        ((run, *given, "eval.batchsize=3"), "did you mean eval.batch_size?"),
    ]  # fmt: skip
    for arguments, words in mistakes:
        code, out, err = call("--checkpoint", *arguments)
        told = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code, out, len(told)) == (2, "", 1), (words, code, out, err)
        assert words in told[0], told[0]
        assert "Traceback" not in err
    code, out, _ = call("--checkpoint", run, "--data", "market1501", "--root", broken, "data.on_bad_image=skip")
    assert code == 0 and out.startswith("scored without 1 of 21 query images")


def test_help_says_what_cross_camera_means(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert "queries of one camera against the gallery photos of one other camera" in " ".join(out.split())
