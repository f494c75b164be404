"""Time and memory of an evaluation: the protocol's ranking, and re-ranking.

`rank` is the project's; `argsort` the usual way, a Q x M matrix of distances, sorted, and a loop over the queries;
`rerank` prepares re-ranked distances and ranks by them. `interval_seconds`: the interval of mAP over people, besides.
Features are people of 20 images around random directions.
Each case has a process of its own. Prints one JSON object a line: sizes, seconds (median of the repeats), and the
peak memory in MiB of the whole process and above what it held with the features loaded (Linux).

    python benchmarks/bm_ranking.py [--sizes 3368x15913x512 11659x82161x512] [--ways rank argsort rerank]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.evaluation.bootstrap import mean_interval
from jgcl_ray.evaluation.ranking import Labels, rank, rank_by
from jgcl_ray.evaluation.reranking import rerank
from jgcl_ray.pseudo_labels._rows import available_threads

Scored = tuple[float, float]  # mAP, rank-1
CAMERAS = 6


def people(rows: int, width: int, identities: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(rows, width) float32 of unit length around a direction for each identity."""
    centres = np.random.default_rng(1).standard_normal((int(identities.max()) + 1, width), dtype=np.float32)
    features = np.empty((rows, width), np.float32)
    for start in range(0, rows, 8192):
        part = slice(start, min(start + 8192, rows))
        noise = random.standard_normal((part.stop - start, width), dtype=np.float32)
        features[part] = centres[identities[part]] + np.float32(2.5) * noise
        features[part] /= np.linalg.norm(features[part], axis=1, keepdims=True)
    return features


def by_counting(query: np.ndarray, gallery: np.ndarray, labels: Labels) -> Scored:
    found = rank(query, gallery, *labels.arrays)
    return found.mAP, float(found.cmc[0])


def by_argsort(query: np.ndarray, gallery: np.ndarray, labels: Labels) -> Scored:
    distances = (query**2).sum(1)[:, None] + (gallery**2).sum(1)[None] - 2 * query @ gallery.T
    order = np.argsort(distances, axis=1)
    matches = (labels.gallery_identities[order] == labels.query_identities[:, None]).astype(np.int32)
    precisions, first = [], []
    for q in range(len(query)):
        same_person = labels.gallery_identities[order[q]] == labels.query_identities[q]
        kept = ~(same_person & (labels.gallery_cameras[order[q]] == labels.query_cameras[q]))
        hits = matches[q][kept]
        if hits.any():
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            precisions.append((precision * hits).sum() / hits.sum())
            first.append(hits[0])
    return float(np.mean(precisions)), float(np.mean(first))


def by_reranking(query: np.ndarray, gallery: np.ndarray, labels: Labels) -> Scored:
    found = rank_by(rerank(query, gallery), labels)
    return found.mAP, float(found.cmc[0])


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, Labels], Scored]] = {
    "rank": by_counting,
    "argsort": by_argsort,
    "rerank": by_reranking,
}


def measure(way: str, size: tuple[int, int, int], repeats: int, pipe: Any) -> None:
    queries, images, width = size
    random = np.random.default_rng(0)
    number = max(images // 20, 2)
    identities = random.integers(1, number + 1, queries + images)
    cameras = random.integers(1, CAMERAS + 1, queries + images)
    query = people(queries, width, identities[:queries], random)
    gallery = people(images, width, identities[queries:], random)
    labels = Labels.of(identities[:queries], identities[queries:], cameras[:queries], cameras[queries:])
    few = Labels.of(*(label[:2000] for label in labels.arrays))
    WAYS[way](query[:2000], gallery[:2000], few)  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, seconds, scored = memory("VmRSS"), [], (0.0, 0.0)
    for _ in range(repeats):
        start = time.perf_counter()
        scored = WAYS[way](query, gallery, labels)
        seconds.append(time.perf_counter() - start)
    peak = memory("VmHWM")
    start = time.perf_counter()
    mean_interval(random.random(queries), labels.query_identities)
    interval_seconds = time.perf_counter() - start
    pipe.send(
        {
            "case": way,
            "queries": queries,
            "gallery": images,
            "width": width,
            "threads": available_threads(),
            "seconds": round(statistics.median(seconds), 3),
            "repeats": repeats,
            "interval_seconds": round(interval_seconds, 3),
            "peak_mib": round(peak),
            "peak_above_features_mib": round(peak - before),
            "mAP": round(scored[0], 6),
            "rank1": round(scored[1], 6),
        }
    )


def memory(entry: str) -> float:
    """MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[entry].split()[0]) / 1024


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["3368x15913x512", "11659x82161x512"], metavar="QxMxD")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["rank"])
    parser.add_argument("--repeats", type=whole(1), default=3)
    arguments = parser.parse_args()
    processes = get_context("spawn")
    for size in arguments.sizes:
        for way in arguments.ways:
            receiver, sender = processes.Pipe(duplex=False)
            numbers = tuple(int(part) for part in size.split("x"))
            process = processes.Process(target=measure, args=(way, numbers, arguments.repeats, sender))
            process.start()
            sender.close()
            print(json.dumps(receiver.recv()), flush=True)
            process.join()


if __name__ == "__main__":
    with exit_on_user_error():
        main()
