"""`python -m jgcl_ray.evaluate`: the file it writes, and one line for each mistake."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import evaluation_data
import numpy as np
import pytest
import torch

from jgcl_ray import evaluate
from jgcl_ray.encoder import Encoder
from jgcl_ray.evaluation.ranking import Labels, rank, rank_by
from jgcl_ray.evaluation.reranking import rerank

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
    assert document["reranked"] is False and "cross_camera" not in document


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
    assert len(out.splitlines()) == 7 and out.startswith("camera 1 -> camera 2: mAP ")


def test_report_of_a_checkpoint_without_a_run_log(call: Call, run: Path, photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    code, _, err = call(
        "--checkpoint", run, "--data", "market1501", "--root", photos, "--report", report, "pseudo_labels.eps=0.5"
    )
    assert code == 0 and (report / "index.html").is_file() and (report / "clusters.png").is_file()
    assert f"report: {report / 'index.html'}" in err and "lies in no run folder" in err
    assert "Jaccard distance of 0.500" in (report / "index.html").read_text(encoding="utf-8")


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
    mistakes: list[tuple[tuple[object, ...], str]] = [
        ((run, "--data", "market1501", "--root", broken), f"{victim} ("),
        ((run, "--data", "market1501", "--root", one_camera), "all images are from one camera (2)"),
        ((run, "--data", "market1501", "--root", strangers), "no identity of the queries is in the gallery"),
        ((run, "--data", "market1501", "--root", without(photos, tmp_path / "empty", "bounding_box_test/*")),
         "empty/bounding_box_test: holds no image"),
        ((run, "--data", "folder", "--root", crops), "has no identities to score against"),
        ((run, "--data", "market1501"), "data.root is not set"),
        ((run, "--data", "market"), "data.name='market': no such data set; known: market1501"),
        ((tmp_path / "nowhere", *given), "nowhere: no such file or folder"),
        ((tmp_path, *given), "no checkpoint here"),
        ((run, *given, "--json", tmp_path), "is no file"),
        ((run, *given, "--report", victim), "is no folder"),
        ((run, *given, "--report", victim / "report"), "cannot be made (Not a directory)"),
        ((run, *given, "eval.batchsize=3"), "did you mean eval.batch_size?"),
    ]  # fmt: skip
    for arguments, words in mistakes:
        code, out, err = call("--checkpoint", *arguments)
        told = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code, out, len(told)) == (2, "", 1), (words, code, out, err)
        assert words in told[0], told[0]
        assert "Traceback" not in err
    code, out, _ = call("--checkpoint", run, "--data", "market1501", "--root", broken, "data.on_bad_image=skip")
    assert code == 0 and out.startswith("mAP ")


def test_help_says_what_cross_camera_means(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert "queries of one camera against the gallery photos of one other camera" in " ".join(out.split())
