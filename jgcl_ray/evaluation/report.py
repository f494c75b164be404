"""A report of an assessment: a page that opens offline, and its pictures as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jgcl_ray.atomic import write_bytes, write_json
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.data.datasets import Split
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.errors import UserError, as_text
from jgcl_ray.evaluation.activations import similarity_maps
from jgcl_ray.evaluation.assessment import Assessment
from jgcl_ray.evaluation.clusters import Cluster, Clustering, cluster_gallery, example_clusters
from jgcl_ray.evaluation.comparison import Comparison
from jgcl_ray.evaluation.embedder import Embedder
from jgcl_ray.evaluation.page import CLUSTERS_TITLE, Picture, render_page
from jgcl_ray.evaluation.plots import accuracy_plot, embedding_map
from jgcl_ray.evaluation.sheets import NEUTRAL, RIGHT, WRONG, Row, Tile, draw_sheet, overlaid
from jgcl_ray.image_files import UnreadableImage, read_rgb, write_picture
from jgcl_ray.mlflow_mirror import ARTIFACTS, CARD, Mirror, RunCard, TrackingUnavailableError
from jgcl_ray.ownership import is_page, is_picture, is_scores, refuse_foreign
from jgcl_ray.places import check_folder

QUERIES = {"best": 7, "median": 6, "worst": 7}  # whose rankings are shown
SHOWN = 10  # gallery photos of a ranking
CLUSTERS, CLUSTER_PHOTOS = 8, 12
PAIRS = 3  # activation maps of each kind of query
TILE_HEIGHT = 150  # pixels

PAGE, SCORES = "index.html", "scores.json"
_INTRODUCTION = {
    "best": "The queries with the highest average precision (AP), each of another person where there are enough.",
    "median": "Queries in the middle: what to expect.",
    "worst": "The queries with the lowest average precision: look for bad crops, look-alikes and mislabelled photos.",
}


@dataclass(frozen=True)
class ExampleQueries:
    """Queries by how well they did; rows of the query split."""

    best: list[int]
    median: list[int]
    worst: list[int]


def write_report(
    folder: Path,
    found: Assessment,
    encoder: Embedder,
    labelling: PseudoLabelsConfig,
    document: dict[str, object],
    comparison: Comparison | None = None,
) -> list[Path]:
    """Write index.html, scores.json and the pictures; the files that were written.

    labelling: how the gallery is clustered. document: the scores, as `Assessment.document` gives them or with more.
    comparison: with another encoder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clustering = cluster_gallery(
        found.gallery_features, found.labels.gallery_identities, found.labels.gallery_cameras, labelling
    )
    pictures = draw_pictures(found, encoder, clustering)
    written = []
    for picture in pictures:
        written.append(folder / f"{picture.name}.png")
        write_picture(picture.image, written[-1])
    page = render_page(found, encoder.description, clustering, pictures, comparison)
    write_json(folder / SCORES, document)
    write_bytes(folder / PAGE, as_text(page).encode())
    return [*written, folder / SCORES, folder / PAGE]


def check_report(folder: Path) -> None:
    """UserError where `write_report` would replace what is not ours."""
    check_folder(folder, "--report")
    names = ["accuracy", *(f"rankings_{kind}" for kind in QUERIES), "embedding_map", "clusters", "activation_maps"]
    for name in names:
        refuse_foreign(folder / f"{name}.png", "--report", is_picture)
    refuse_foreign(folder / SCORES, "--report", is_scores)
    refuse_foreign(folder / PAGE, "--report", is_page)


def draw_pictures(found: Assessment, encoder: Embedder, clustering: Clustering) -> list[Picture]:
    """All pictures of the report, in the order of the page."""
    chosen = choose_queries(found.result.average_precisions, found.labels.query_identities)
    pictures = [
        Picture(
            "accuracy",
            "Accuracy",
            "Left: the CMC curve, the share of queries that have a right photo among the first k of their ranking; "
            "dotted, what a random order would score. Right: how the average precision is spread over the queries.",
            accuracy_plot(found.result, found.before_reranking, found.labels),
        )
    ]
    size = (TILE_HEIGHT, round(TILE_HEIGHT * encoder.width / encoder.height))
    unit = "re-ranked distance" if found.before_reranking is not None else "Euclidean distance, from 0 to 2"
    across = found.labels.protocol == "cross_camera"
    without = "those by the same camera" if across else "those of the same person by the same camera"
    for kind, queries in vars(chosen).items():
        if queries:
            sheet = draw_sheet([_ranking(found, query, size) for query in queries])
            caption = (
                f"{_INTRODUCTION[kind]} Left the query, then its {SHOWN} nearest photos without {without}. "
                f"Green ✓: the same person; red ✗: another. Below: camera, {unit}."
            )
            pictures.append(Picture(f"rankings_{kind}", f"{kind.capitalize()} queries", caption, sheet, photos=True))
    tsne = embedding_map(
        np.concatenate([found.query_features, found.gallery_features]),
        np.concatenate([found.labels.query_identities, found.labels.gallery_identities]),
        np.concatenate([found.labels.query_cameras, found.labels.gallery_cameras]),
        found.dataset.camera_names,
    )
    if tsne is not None:
        caption = (
            "t-SNE of query and gallery embeddings: photos that the encoder finds alike lie together. Good: islands "
            "of one person on the left, and cameras well mixed on the right. Islands of one camera mean that the "
            "encoder sees the place rather than the person. Distances between islands mean little."
        )
        pictures.append(Picture("embedding_map", "Map of the embeddings", caption, tsne))
    if clustering.clusters:
        rows = [_cluster(found, cluster, size) for cluster in example_clusters(clustering, CLUSTERS)]
        caption = (
            "Clusters of the gallery, made without labels, as in training: photos that the encoder takes for one "
            "person. First the largest with one person, then the most mixed. Green: the cluster's most frequent "
            "person; red ✗: somebody else; grey: a distractor, somebody whose identity is not known."
        )
        pictures.append(Picture("clusters", CLUSTERS_TITLE, caption, draw_sheet(rows), photos=True))
    pictures.append(
        Picture(
            "activation_maps",
            "Activation maps: what makes two photos alike",
            "Each query and the photo found first, each beside its map: what every cell of the encoder's last map "
            "adds to the cosine similarity of the two embeddings (a class activation map with the other photo in "
            "place of a class). Yellow cells speak for the similarity, dark blue ones for nothing or against it. "
            "Good: the person's body; bad: the background. Each map has its own scale: only places compare.",
            draw_sheet([_alike(found, encoder, k, q[:PAIRS], size) for k, q in vars(chosen).items() if q]),
            photos=True,
        )
    )
    return pictures


def choose_queries(average_precisions: np.ndarray, identities: np.ndarray) -> ExampleQueries:
    """Best, median and worst among queries with a match, (Q,) each: of different people if possible."""
    scored = np.flatnonzero(~np.isnan(average_precisions))
    rest: list[int] = scored[np.argsort(-average_precisions[scored], kind="stable")].tolist()
    share = min(1.0, len(rest) / sum(QUERIES.values()))
    best = _different(rest, identities, int(np.ceil(share * QUERIES["best"])))
    rest = [query for query in rest if query not in best]
    worst = _different(rest[::-1], identities, int(np.ceil(share * QUERIES["worst"])))
    rest = [query for query in rest if query not in worst]
    centre = (len(rest) - 1) / 2
    from_centre = [query for _, query in sorted(enumerate(rest), key=lambda item: abs(item[0] - centre))]
    return ExampleQueries(best, _different(from_centre, identities, int(np.ceil(share * QUERIES["median"]))), worst)


def _different(candidates: Sequence[int], identities: np.ndarray, count: int) -> list[int]:
    """The first `count` of the candidates, people who are there already only where there are too few others."""
    first: list[int] = []
    again: list[int] = []
    seen = set()
    for query in candidates:
        (again if identities[query] in seen else first).append(query)
        seen.add(identities[query])
    return (first + again)[:count]


def _ranking(found: Assessment, query: int, size: tuple[int, int]) -> Row:
    labels = found.labels
    distances = found.shown_distances(query)
    person = int(labels.query_identities[query])
    camera = labels.query_cameras[query]
    tiles = [Tile(_photo(found.query, query, size), NEUTRAL, f"query\n{found.camera_name(camera)}")]
    for row in found.found(query, SHOWN):
        right = labels.gallery_identities[row] == person
        caption = f"{found.camera_name(labels.gallery_cameras[row])}\n{distances[row]:.3f}"
        tiles.append(
            Tile(_photo(found.gallery, row, size), RIGHT if right else WRONG, caption, "✓" if right else "✗")
        )
    matches = int(((labels.gallery_identities == person) & (labels.gallery_cameras != camera)).sum())
    words = (
        f"AP {found.result.average_precisions[query]:.3f}",
        f"person {person}",
        f"{matches} right photo{'s' if matches > 1 else ''},",
        f"first at rank {found.result.first_matches[query]:,}",
    )
    return Row(words, tuple(tiles), gaps=(1,))


def _cluster(found: Assessment, cluster: Cluster, size: tuple[int, int]) -> Row:
    labels = found.labels
    tiles = []
    for row in cluster.rows[:CLUSTER_PHOTOS]:
        person = labels.gallery_identities[row]
        name = f"person {person}" if person > 0 else "distractor"
        colour = NEUTRAL if person <= 0 else RIGHT if person == cluster.person else WRONG
        caption = f"{name}\n{found.camera_name(labels.gallery_cameras[row])}"
        mark = "✗" if person > 0 and person != cluster.person else ""
        tiles.append(Tile(_photo(found.gallery, row, size), colour, caption, mark))
    identities = labels.gallery_identities[cluster.rows]
    people, distractors = len(np.unique(identities[identities > 0])), int((identities <= 0).sum())
    cameras = len(np.unique(labels.gallery_cameras[cluster.rows]))
    words = [f"cluster {cluster.number + 1}", f"{len(cluster.rows)} photos,"]
    words += [f"{people} {'people' if people > 1 else 'person'},"] if people else []
    words += [f"{distractors} distractor{'s' if distractors > 1 else ''},"] if distractors else []
    words.append(f"{cameras} camera{'s' if cameras > 1 else ''}")
    if len(cluster.rows) > CLUSTER_PHOTOS:
        words.append(f"({CLUSTER_PHOTOS} shown)")
    return Row(tuple(words), tuple(tiles))


def _alike(found: Assessment, encoder: Embedder, kind: str, queries: list[int], size: tuple[int, int]) -> Row:
    nearest = [int(found.found(query, 1)[0]) for query in queries]
    inputs = [
        normalise_images([encoder.read(split.path(row)) for row in rows])
        for split, rows in ((found.query, queries), (found.gallery, nearest))
    ]
    maps = similarity_maps(encoder.module, *inputs).numpy()
    tiles = []
    for k, (query, row) in enumerate(zip(queries, nearest, strict=True)):
        right = found.labels.query_identities[query] == found.labels.gallery_identities[row]
        colour, mark = (RIGHT, "✓") if right else (WRONG, "✗")
        of_query, of_gallery = _photo(found.query, query, size), _photo(found.gallery, row, size)
        tiles += [
            Tile(of_query, NEUTRAL, f"query\n{found.camera_name(found.labels.query_cameras[query])}"),
            Tile(overlaid(of_query, maps[0, k]), NEUTRAL),
            Tile(of_gallery, colour, f"first\n{found.camera_name(found.labels.gallery_cameras[row])}", mark),
            Tile(overlaid(of_gallery, maps[1, k]), colour),
        ]
    return Row((kind, "queries"), tuple(tiles), gaps=(4, 8))


def _photo(split: Split, row: int, size: tuple[int, int]) -> np.ndarray:
    try:
        return read_rgb(split.path(row), *size)
    except UnreadableImage as error:
        raise UserError(f"{split.path(row)}: cannot be read ({error}); restore it and start again") from None


def keep_with_run(checkpoint: Path, files: Sequence[Path], data: str) -> str:
    """Keep a report with the run that the checkpoint belongs to, and in its MLflow run; what was done, in one line.

    checkpoint: of a run's folder, or any other, which belongs to no run. The files become artifacts of the
    run, evaluation/DATA-CHECKPOINT/. MLflow or a folder that cannot be written to is no error: the line says so.
    """
    place = checkpoint.resolve()
    run = next((folder for folder in (place, *place.parents[:3]) if (folder / CARD).is_file()), None)
    if run is None:
        return "the checkpoint lies in no run folder: the report is not sent to MLflow"
    try:
        card = RunCard.read(run)
    except UserError as error:
        return f"warning: the report is not kept with its run: {error}"
    folder = run / ARTIFACTS / "evaluation" / f"{data}-{place.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            write_bytes(folder / file.name, file.read_bytes())
    except OSError as error:
        return f"warning: the report is not kept with its run ({error})"
    kept = f"kept in {folder}"
    later = f"python -m jgcl_ray.run_log --sync {run}"
    if card.params.get("tracking.enabled") != "true":
        return f"{kept}; the run is not tracked in MLflow"
    if card.status == "RUNNING":
        return f"{kept}; the run is under way and sends it to MLflow itself (should it have died: {later})"
    if "***" in card.uri:
        return f"warning: {kept}, but not sent to MLflow, whose password is not kept: {later} --uri URI"
    mirror = Mirror(run, card.uri)
    try:
        mirror.update()
    except TrackingUnavailableError as error:
        return f"warning: {kept}, but MLflow is away ({error}); send it later: {later}"
    return f"{kept}, and sent to MLflow ({mirror.page})"
