"""Time and memory of one labelling: neighbours, Jaccard distance, eps and DBSCAN; growth with N.

Features have cluster structure: people of 17 images on average (Market-1501's mean) around 20 people to a kind of
clothing, cosines about 0.6 within a person, 0.3 within a kind, 0 elsewhere. rho asks for 26 near images to each, at
most.
`dense` is the plain way, N x N matrices and loops, from the definitions in distances.py; it is run where it fits.
Each case has a process of its own. Prints one JSON object a line: seconds (median of the repeats) in all and of the
parts, those of faiss alone for the same neighbours, and the peak memory in MiB above the features (Linux).

    python benchmarks/bm_pseudo_labels.py [--sizes 12936x2048 32621x2048] [--neighbours exact] [--dense] [--repeats 3]
    python benchmarks/bm_pseudo_labels.py --plot FILE.png RESULTS.jsonl [...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import PseudoLabelsConfig
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.pseudo_labels._rows import available_threads
from jgcl_ray.pseudo_labels.clustering import METHODS
from jgcl_ray.pseudo_labels.distances import encode
from jgcl_ray.pseudo_labels.neighbours import nearest

K1, K2 = 30, 6


def people(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """features (rows, width) float32, identities (rows,)."""
    random = np.random.default_rng(seed)
    number = max(rows // 17, 1)
    scale = np.float32(width**-0.5)
    kinds = random.standard_normal((max(number // 20, 1), width), dtype=np.float32)
    centres = kinds[random.integers(0, len(kinds), number)]
    centres += random.standard_normal((number, width), dtype=np.float32)
    identities = random.integers(0, number, rows)
    features = np.empty((rows, width), np.float32)
    for start in range(0, rows, 8192):
        part = slice(start, min(start + 8192, rows))
        noise = random.standard_normal((part.stop - start, width), dtype=np.float32)
        features[part] = scale * (centres[identities[part]] + np.float32(1.15) * noise)
        features[part] /= np.linalg.norm(features[part], axis=1, keepdims=True)
    return features, identities


def sparse_way(features: np.ndarray, config: PseudoLabelsConfig) -> dict[str, Any]:
    clock = [time.perf_counter()]
    found = nearest(features, config.k1, config.neighbours)
    clock.append(time.perf_counter())
    encoding = encode(features, found, config.k1, config.k2)
    clock.append(time.perf_counter())
    labels = METHODS[config.method](encoding, config, None)
    clock.append(time.perf_counter())
    return {"labels": labels.labels, "eps": labels.eps, "recall": found.recall, "clock": np.diff(clock)}


def dense_way(features: np.ndarray, config: PseudoLabelsConfig) -> dict[str, Any]:
    clock = [time.perf_counter()]
    rows = len(features)
    distances = 2 - 2 * features @ features.T
    np.fill_diagonal(distances, -1)
    rank = np.argpartition(distances, config.k1 + 8, axis=1)[:, : config.k1 + 8]
    order = np.argsort(np.take_along_axis(distances, rank, 1), axis=1, kind="stable")[:, : config.k1]
    rank = np.take_along_axis(rank, order, 1)
    np.fill_diagonal(distances, 0)
    clock.append(time.perf_counter())
    half = rank[:, : int(np.around(config.k1 / 2)) + 1]
    near = [rank[i][(rank[rank[i]] == i).any(1)] for i in range(rows)]
    nearer = [half[i][(half[half[i]] == i).any(1)] for i in range(rows)]
    weights = np.zeros((rows, rows), np.float32)
    for i in range(rows):
        joined = [nearer[c] for c in near[i] if len(np.intersect1d(nearer[c], near[i])) > 2 / 3 * len(nearer[c])]
        members = np.unique(np.concatenate([near[i], *joined]))
        weight = np.exp(-distances[i, members])
        weights[i, members] = weight / weight.sum()
    del distances
    weights = np.stack([weights[rank[i, : config.k2]].mean(0) for i in range(rows)])
    clock.append(time.perf_counter())
    columns = [np.flatnonzero(column) for column in weights.T]
    jaccard = np.empty((rows, rows), np.float32)
    for i in range(rows):
        overlap = np.zeros(rows, np.float32)
        for j in np.flatnonzero(weights[i]):
            overlap[columns[j]] += np.minimum(weights[i, j], weights[columns[j], j])
        jaccard[i] = np.maximum(1 - overlap / (2 - overlap), 0)
    del weights
    positive = jaccard[np.triu_indices(rows, 1)]
    positive = positive[positive >= 1e-6]
    count = round(config.rho * len(positive))
    eps = float(np.partition(positive, count)[:count].mean(dtype=np.float64))
    del positive
    labels = DBSCAN(eps=eps, min_samples=config.min_samples, metric="precomputed").fit(jaccard).labels_
    clock.append(time.perf_counter())
    return {"labels": labels, "eps": eps, "recall": 1.0, "clock": np.diff(clock)}


WAYS = {"sparse": sparse_way, "dense": dense_way}


def measure(
    way: str, rows: int, width: int, neighbours: str, repeats: int, labels: np.ndarray | None, pipe: Any
) -> None:
    features, identities = people(rows, width)
    config = PseudoLabelsConfig(k1=K1, k2=K2, rho=min(0.002, 26 / rows), neighbours=neighbours)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    WAYS[way](features[:2000].copy(), config.model_copy(update={"rho": 0.01}))  # compiles, starts threads
    faiss_seconds = None
    if way == "sparse" and rows <= 50_000:
        start = time.perf_counter()
        faiss.knn(features, features, K1)
        faiss_seconds = round(time.perf_counter() - start, 3)
    runs = []
    for _ in range(repeats):
        runs.append(WAYS[way](features, config))
    found, clocks = runs[0], [run["clock"] for run in runs]
    parts = np.median(clocks, axis=0).round(3).tolist()
    record = {
        "case": way,
        "rows": rows,
        "width": width,
        "neighbours": neighbours,
        "threads": available_threads(),
        "seconds": round(statistics.median(clock.sum() for clock in clocks), 3),
        "neighbours_seconds": parts[0],
        "encoding_seconds": parts[1],
        "eps_and_clustering_seconds": parts[2],
        "faiss_alone_seconds": faiss_seconds,
        "peak_mib": round(memory("VmHWM") - before),
        "recall": round(found["recall"], 4),
        "eps": found["eps"],
        "clusters": int(found["labels"].max()) + 1,
        "outliers": int((found["labels"] < 0).sum()),
        "ari": round(float(adjusted_rand_score(identities, found["labels"])), 4),
    }
    if labels is not None:
        record["same_labels"] = bool((labels == found["labels"]).all())
    pipe.send((record, found["labels"]))


def memory(field: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def in_a_process(*arguments: Any) -> tuple[dict[str, Any], np.ndarray]:
    context = get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(*arguments, theirs))
    process.start()
    theirs.close()
    answer = mine.recv()
    process.join()
    return answer


def plot(target: Path, sources: list[Path]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [json.loads(line) for source in sources for line in source.read_text().splitlines()]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    groups = sorted({(r["case"], r["neighbours"], r["width"]) for r in records})
    for axis, field, title in (
        (axes[0], "seconds", "seconds; x: without the neighbour search"),
        (axes[1], "peak_mib", "MiB above the features, peak"),
    ):
        for group in groups:
            points = sorted(
                (r["rows"], r[field]) for r in records if (r["case"], r["neighbours"], r["width"]) == group
            )
            name = "dense" if group[0] == "dense" else f"sparse, {group[1]}"
            (line,) = axis.loglog(*zip(*points, strict=True), "o-", label=f"{name}, D = {group[2]}")
            if field == "seconds" and group[0] == "sparse":
                rest = [
                    (r["rows"], r["seconds"] - r["neighbours_seconds"])
                    for r in records
                    if (r["case"], r["neighbours"], r["width"]) == group
                ]
                axis.loglog(*zip(*sorted(rest), strict=True), "x:", color=line.get_color())
        axis.set(xlabel="N images", title=title)
        axis.grid(True, which="both", alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"One labelling, {records[0]['threads']} threads")
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["3000x2048", "12936x2048", "32621x2048"])
    parser.add_argument("--neighbours", default="exact", choices=["exact", "hnsw", "ivf"])
    parser.add_argument(
        "--dense", action="store_true", help="run the dense way at the same sizes, and compare labels"
    )
    parser.add_argument("--repeats", type=whole(1), default=3)
    parser.add_argument("--plot", type=Path, help="draw the records of these files instead")
    parser.add_argument("results", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.plot:
        plot(arguments.plot, arguments.results)
        return
    for size in arguments.sizes:
        rows, width = map(int, size.split("x"))
        labels = None
        if arguments.dense:
            record, labels = in_a_process("dense", rows, width, "exact", 1, None)
            print(json.dumps(record), flush=True)
        record, _ = in_a_process("sparse", rows, width, arguments.neighbours, arguments.repeats, labels)
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
