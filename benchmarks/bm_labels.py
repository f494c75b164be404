"""Which pseudo-label settings group a set's training people best, by the true names of these people.

    python benchmarks/bm_labels.py --checkpoint RUN --set medium [--seed 1] [--settings FILE.jsonl] [--top 10]

Encodes the training photos of walkers, labels them with each setting and compares with their identities: no photo of
a test person is looked at. Prints a JSON object for each of the best settings (or for each of FILE's), best first:
`f1` of pairs (a pair is right where both rows are one person and bear one label; outliers are alone), `f1_across` of
the pairs from two cameras, and `ari` over all rows with outliers alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from jgcl_ray.arguments import Parser, whole
from jgcl_ray.config import DataConfig, PseudoLabelsConfig, WalkersConfig
from jgcl_ray.data.datasets import Split, open_dataset
from jgcl_ray.encoder import Encoder
from jgcl_ray.errors import exit_on_user_error
from jgcl_ray.pseudo_labels.clustering import pseudo_labels

EPS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


def settings() -> Iterator[dict[str, Any]]:
    """The grid: both distances, their numbers of neighbours, and eps."""
    for k1, k2, eps in product((8, 12, 20, 30), (2, 4, 6), EPS):
        yield {"distance": "jaccard", "k1": k1, "k2": k2, "eps": eps}
    for k1_intra, k1_inter, k2, eps in product((2, 3, 5), (6, 10, 20), (2, 3), EPS):
        numbers = {"k1_intra": k1_intra, "k1_inter": k1_inter, "k2_intra": k2, "k2_inter": k2}
        yield {"distance": "camera_aware_jaccard", **numbers, "eps": eps}


def pairs(*columns: np.ndarray) -> int:
    """How many pairs of rows are equal in all of the columns (N,)."""
    _, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def agreement(labels: np.ndarray, train: Split) -> dict[str, float]:
    """How well labels (N,), -1 for outliers, tell the people of a split apart."""
    people, cameras = train.identities, train.cameras
    assert people is not None
    alone = labels < 0
    labels = np.where(alone, labels.max(initial=-1) + np.cumsum(alone), labels)
    right, alike, same = pairs(labels, people), pairs(labels), pairs(people)
    near = [pairs(*columns, cameras) for columns in ((labels, people), (labels,), (people,))]  # in one camera
    return {
        "f1": round(2 * right / (alike + same), 4),
        "f1_across": round(2 * (right - near[0]) / (alike + same - near[1] - near[2]), 4),
        "ari": round(float(adjusted_rand_score(people, labels)), 4),
    }


def measure(features: np.ndarray, train: Split, setting: dict[str, Any]) -> dict[str, Any]:
    """A line: the setting, what came of it, how right that is."""
    found = pseudo_labels(features, PseudoLabelsConfig(**setting), train.cameras, threads=1)
    counts = {"clusters": found.num_clusters, "outliers": round(found.num_outliers / len(train), 3)}
    return {**setting, **agreement(found.labels, train), **counts, "eps_used": round(found.eps, 4)}


def main() -> None:
    """Encode, label, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a run folder, a checkpoint or encoder weights"
    )
    parser.add_argument("--set", default="medium", choices=["tiny", "demo", "medium", "full"], help="walkers' preset")
    parser.add_argument("--seed", type=whole(0), default=1, help="of the walkers (1: to choose by; 11: to report)")
    parser.add_argument("--settings", type=Path, help="JSON lines of `pseudo_labels` fields instead of the grid")
    parser.add_argument("--top", type=whole(1), default=10, help="print as many; 0: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = open_dataset(DataConfig(name="walkers"), WalkersConfig(preset=arguments.set, seed=arguments.seed)).train
    features = Encoder.load(arguments.checkpoint, multi_scale=False).embed(
        [train.path(row) for row in range(len(train))]
    )
    grid = list(settings())
    if arguments.settings is not None:
        grid = [json.loads(line) for line in arguments.settings.read_text().splitlines()]
    lines = []
    for number, setting in enumerate(grid):
        lines.append(measure(np.asarray(features, np.float32), train, setting))
        if number % 50 == 49:
            print(f"{number + 1} of {len(grid)}", file=sys.stderr, flush=True)
    lines.sort(key=lambda line: -line["f1"])
    for line in lines[: arguments.top or None]:
        print(json.dumps({"set": arguments.set, "seed": arguments.seed, "images": len(train), **line}), flush=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
