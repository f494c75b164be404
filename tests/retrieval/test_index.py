"""The index against a search by hand, and the file it lives in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from jgcl_ray import atomic
from jgcl_ray.errors import UserError
from jgcl_ray.retrieval import index as index_module
from jgcl_ray.retrieval.index import GalleryIndex, IndexSpec, Kind

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 16


def embeddings(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn = random.normal(size=(-(-count // 5), WIDTH)).repeat(5, axis=0)[:count]  # five images of each person
    drawn = (drawn + 0.3 * random.normal(size=(count, WIDTH))).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def stamps(rows: range) -> np.ndarray:
    return np.stack([np.arange(rows.start, rows.stop), np.full(len(rows), 100)], axis=1)


def filled(features: np.ndarray, kind: Kind = "flat") -> GalleryIndex:
    index = GalleryIndex(IndexSpec("fingerprint", 80, 40, WIDTH, kind))
    index.add(features, [f"/g/{row}.jpg" for row in range(len(features))], stamps(range(len(features))))
    return index


def nearest_by_hand(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = np.linalg.norm(queries[:, None].astype(float) - gallery[None], axis=2)
    order = distances.argsort(axis=1)[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_added_removed_and_loaded_it_finds_what_a_search_by_hand_finds(kind: Kind, tmp_path: Path) -> None:
    features, queries = embeddings(900), embeddings(20, seed=0)
    index = filled(features[:700], kind)
    index.add(features[700:], [f"/g/{row}.jpg" for row in range(700, 900)], stamps(range(700, 900)))
    index.save(tmp_path / "index")
    index = GalleryIndex.load(tmp_path / "index")
    gone = np.arange(0, 900, 3)
    index.remove(gone)
    kept = np.delete(np.arange(900), gone)
    assert index.paths == [f"/g/{row}.jpg" for row in kept]
    assert (index.stamps[:, 0] == kept).all() and (index.stamps[:, 1] == 100).all()
    np.testing.assert_array_equal(index.embeddings(), features[kept])
    hits = index.search(queries, 5)
    rows, distances = nearest_by_hand(queries, features[kept], 5)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(rows, hits.rows, strict=True)]) >= 0.97
    if kind == "flat":
        np.testing.assert_array_equal(hits.rows, rows)
        np.testing.assert_allclose(hits.distances, distances, atol=1e-5)


def test_auto_changes_its_kind_as_the_gallery_grows_and_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "FLAT_IMAGES", 500)
    features = embeddings(800)
    index = filled(features[:400], "auto")
    assert index.kind == "flat"
    index.add(features[400:], [f"/g/{row}.jpg" for row in range(400, 800)], stamps(range(400, 800)))
    assert index.kind == "ivf" and isinstance(index._index, faiss.IndexIVFFlat)
    np.testing.assert_array_equal(index.embeddings(), features)
    index.remove(np.arange(600))
    assert index.kind == "flat" and isinstance(index._index, faiss.IndexFlat)
    np.testing.assert_array_equal(index.embeddings(), features[600:])


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_emptied_and_filled_again(kind: Kind, tmp_path: Path) -> None:
    features = embeddings(30)
    index = filled(features, kind)
    index.remove(np.arange(30))
    index.save(tmp_path / "index")
    index = GalleryIndex.load(tmp_path / "index")
    assert len(index) == 0 and index.embeddings().shape == (0, WIDTH)
    index.add(features[:4], list("abcd"), stamps(range(4)))
    assert index.search(features[2:3], 10).rows[0, 0] == 2
    assert index.search(features[2:3], 10).rows.shape == (1, 4)


def test_a_crash_while_saving_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index"
    filled(embeddings(10)).save(path)
    before = path.read_bytes()

    def crash(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync", crash)  # the new file is complete, and not yet in place
    with pytest.raises(KeyboardInterrupt):
        filled(embeddings(20)).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_what_is_no_index_is_named(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with pytest.raises(UserError, match="no such index; build it"):
        GalleryIndex.load(path)
    filled(embeddings(50)).save(path)
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[-1000] ^= 1  # within the faiss index
    for content in (b"text", b"", whole[:-100], bytes(altered)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable index"):
            GalleryIndex.load(path)
    np.savez(path.open("wb"), something=np.zeros(3))
    with pytest.raises(UserError, match="not a readable index"):
        GalleryIndex.load(path)


@pytest.mark.parametrize("name, kept", [("index", -40), ("stamps", -1), ("seen_when", -1), ("paths", -7)])
def test_parts_of_an_index_that_do_not_fit_are_named(tmp_path: Path, name: str, kept: int) -> None:
    path = tmp_path / "index"
    filled(embeddings(50)).save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    parts[name] = parts[name][:kept]
    if name == "paths":  # one path less
        parts[name] = np.frombuffer(parts[name].tobytes().rpartition(b"\0")[0], np.uint8)
    with path.open("wb") as file:
        np.savez(file, **parts)
    with pytest.raises(UserError, match="not a readable index"):
        GalleryIndex.load(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"fingerprint": 7},
        {"height": 0},
        {"width": 10**9},
        {"embedding": 7},
        {"kind": "tree"},
        {"camera_means": True},
        {"surplus": 1},
    ],
    ids=str,
)
def test_a_card_that_does_not_fit_is_named(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "index"
    filled(embeddings(50)).save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    card = json.loads(parts["card"].tobytes()) | changed
    parts["card"] = np.frombuffer(json.dumps(card).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **parts)
    with pytest.raises(UserError, match="build it again by --gallery"):
        GalleryIndex.load(path)


@pytest.mark.parametrize("name", ["index", "stamps", "seen_when"])
def test_a_part_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "index"
    filled(embeddings(50)).save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    parts[name] = parts[name].astype(np.float32)
    with path.open("wb") as file:
        np.savez(file, **parts)
    with pytest.raises(UserError, match="not a readable index"):
        GalleryIndex.load(path)


@pytest.mark.parametrize(
    "other", [faiss.IndexFlatIP(WIDTH), faiss.IndexIDMap(faiss.IndexFlatL2(WIDTH)), faiss.IndexLSH(WIDTH, 8)]
)
def test_a_faiss_index_of_another_kind_is_named(tmp_path: Path, other: Any) -> None:
    path, rows = tmp_path / "index", embeddings(50)
    filled(rows).save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    if isinstance(other, faiss.IndexIDMap):
        other.add_with_ids(rows, np.arange(50) + 1000)
    else:
        other.add(rows)
    with path.open("wb") as file:
        np.savez(file, **parts | {"index": faiss.serialize_index(other)})
    with pytest.raises(UserError, match=r"not a readable index .*which this package does not make"):
        GalleryIndex.load(path)
