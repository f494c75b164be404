"""Which score without labels follows the truth: candidates against the test mAP, over the checkpoints of runs.

Of each checkpoint: embeddings of the training images and of the same images disturbed (shifted, in other colours,
partly covered); from them the candidates, and the mAP of the test split. Prints one JSON object a line: a checkpoint
with its scores and `mAP`; then for each data set Spearman's rank correlation of each candidate with the mAP over its
checkpoints. Choose on one set, confirm on another.

    python benchmarks/bm_validation.py FEATURES [RUNS/ONE RUNS/TWO ...] [--on ROOT] [--start RUN~CHECKPOINT]

FEATURES: folder in which embeddings are kept, so that candidates are changed in seconds; without runs, of what lies
there. Runs need checkpoints.keep at their number of epochs. --on: another data set than the runs' own, in the layout
of data.name. --start: of what lies there, the encoder before training, whose neighbours are a candidate themselves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from jgcl_ray.arguments import Parser
from jgcl_ray.config import Config, load_config
from jgcl_ray.data.datasets import Split, open_dataset
from jgcl_ray.data.loaders import open_images
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.evaluation.evaluator import validate
from jgcl_ray.evaluation.ranking import rank
from jgcl_ray.evaluation.unlabelled import disturbed, effective_rank, neighbour_stability, recognition
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import load_weights
from jgcl_ray.pseudo_labels.clustering import dbscan_labels
from jgcl_ray.training.precision import autocast

Features = Mapping[str, np.ndarray]  # clean, disturbed, cams; q, qid, qcam, g, gid, gcam
NEIGHBOURS = 5


def candidates(found: Features, start: Features | None = None) -> dict[str, float]:
    """Scores without labels, by name; the more the better, so it is hoped."""
    clean, cameras = found["clean"], found["cams"]
    moved, rows = found["disturbed"], np.arange(len(clean))
    similarity = clean @ clean.T
    across = np.where(cameras[:, None] != cameras, similarity, -9)
    nearest = np.argsort(-across, axis=1)
    scores = {"effective_rank": effective_rank(clean), "participation": participation(clean)}
    scores |= cycles(clean, cameras, nearest[:, 0])
    scores["recognition"] = recognition(clean, moved, rows)
    scores["neighbour_stability"] = neighbour_stability(clean, moved, rows, cameras)
    scores["stability_x_recognition"] = scores["neighbour_stability"] * scores["recognition"]
    scores["stability_x_effective_rank"] = scores["neighbour_stability"] * scores["effective_rank"]
    scores["first_neighbour_stability"] = neighbour_stability(clean, moved, rows, cameras, count=1)
    scores["cosine_with_disturbed"] = float((clean * moved).sum(1).mean())
    spread = ((clean - clean.mean(0)) ** 2).sum(1).mean()
    scores["between_to_within"] = float(spread / ((clean - moved) ** 2).sum(1).mean())
    width = clean.shape[1] // 2
    order = np.random.default_rng(0).permutation(clean.shape[1])
    halves = [normalised(clean[:, part]) for part in (order[:width], order[width:])]
    by_half = [np.argsort(-np.where(cameras[:, None] != cameras, h @ h.T, -9), axis=1) for h in halves]
    scores["halves_of_embedding"] = overlap(*by_half)
    centred = centre(clean, cameras)
    scores["stable_camera_means"] = overlap(
        np.argsort(-np.where(cameras[:, None] != cameras, centred @ centred.T, -9), axis=1), nearest
    )
    all_nearest = np.argsort(-(similarity - 9 * np.eye(len(clean))), axis=1)[:, :10]
    chance = np.array([(cameras != camera).mean() for camera in cameras])
    scores["cameras_mixed"] = float(((cameras[all_nearest] != cameras[:, None]).mean(1) / chance).mean())
    means = np.stack([clean[cameras == camera].mean(0) for camera in np.unique(cameras)])
    scores["camera_means_alike"] = -float(((means - clean.mean(0)) ** 2).sum(1).mean() / spread)
    others = similarity[cameras[:, None] != cameras]
    ordered = -np.sort(-across, axis=1)
    scores["gap_after_neighbours"] = float((ordered[:, 0] - ordered[:, 20]).mean() / others.std())
    mutual = reciprocal(nearest)
    scores["reciprocal"] = float(mutual.sum() / (NEIGHBOURS * len(clean)))
    two_steps = (mutual.astype(np.float32) @ mutual) > 0
    scores["transitive"] = float((two_steps & mutual).sum() / max(two_steps.sum() - len(clean), 1))
    agreement = validate(torch.from_numpy(clean), dbscan_labels(clean, k1=15, k2=4, rho=0.015), cameras)
    scores["label_agreement_mAP"] = agreement.mAP if agreement is not None else 0.0
    if start is not None:
        scores |= reference(similarity, start["clean"], cameras)
    return scores


def cycles(clean: np.ndarray, cameras: np.ndarray, nearest: np.ndarray) -> dict[str, float]:
    """There and back: to the nearest row of another camera and from it to the nearest of the own one."""
    home = [np.where(cameras == cameras[i], clean @ clean[nearest[i]], -9) for i in range(len(clean))]
    first = [int(row.argmax()) == i for i, row in enumerate(home)]
    hits, tried = 0, 0
    for a in np.unique(cameras):
        for b in np.unique(cameras):
            if a != b:
                there = (clean[cameras == a] @ clean[cameras == b].T).argmax(1)
                back = (clean[cameras == b] @ clean[cameras == a].T).argmax(1)[there]
                hits, tried = hits + int((back == np.arange(len(back))).sum()), tried + len(back)
    return {"cycle": float(np.mean(first)), "cycle_camera_pairs": hits / tried}


def reference(similarity: np.ndarray, start: np.ndarray, cameras: np.ndarray) -> dict[str, float]:
    """Whether pairs that were neighbours in both directions for the encoder before training still are."""
    centred = centre(start, cameras)
    other = cameras[:, None] != cameras
    mutual = reciprocal(np.argsort(-np.where(other, centred @ centred.T, -9), axis=1), 3)
    upper = np.triu(other, 1)
    return {"start_auc": float(roc_auc_score(mutual[upper], similarity[upper]))}


def reciprocal(nearest: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """(N, N) bool: each is among the other's nearest."""
    among = np.zeros((len(nearest),) * 2, bool)
    among[np.arange(len(nearest))[:, None], nearest[:, :count]] = True
    return among & among.T


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Share of common rows among the nearest."""
    pairs = zip(one[:, :NEIGHBOURS].tolist(), two[:, :NEIGHBOURS].tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) for a, b in pairs])) / NEIGHBOURS


def participation(features: np.ndarray) -> float:
    """(sum of variances)^2 / sum of their squares, over principal directions."""
    variances = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    return float(variances.sum() ** 2 / (variances**2).sum())


def centre(features: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Each camera's mean taken off."""
    means = {camera: features[cameras == camera].mean(0) for camera in np.unique(cameras)}
    return normalised(features - np.stack([means[camera] for camera in cameras]))


def normalised(features: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def truth(found: Features) -> float:
    """mAP of the test split by Market's protocol."""
    return rank(*(found[name] for name in ("q", "g", "qid", "gid", "qcam", "gcam"))).mAP


@torch.no_grad()
def embed(encoder: IdentityEncoder, images: list[np.ndarray], config: Config) -> np.ndarray:
    """(N, D) float32 of unit length."""
    parts = []
    with autocast(config.precision, torch.device("cpu")):
        for first in range(0, len(images), 64):
            batch = normalise_images(images[first : first + 64])
            parts.append(torch.nn.functional.normalize(encoder(batch).embedding.float(), dim=1))
    return torch.cat(parts).numpy()


def features_of(checkpoint: Path, config: Config) -> dict[str, np.ndarray]:
    """Of one encoder, all that the candidates need."""
    encoder = IdentityEncoder(config.encoder)
    load_weights(encoder, checkpoint / "encoder.safetensors")
    encoder.eval()
    dataset = open_dataset(config.data, config.walkers)
    if dataset.query is None or dataset.gallery is None:
        raise UserError(f"{config.data.root}: no test split with labels, so no truth to follow")

    def images(split: Split) -> list[np.ndarray]:
        store = open_images(split, config.data)
        return [store.load(row) for row in range(len(split))]

    clean = images(dataset.train)
    random = [np.random.default_rng((0, row)) for row in range(len(clean))]
    found = {"clean": embed(encoder, clean, config), "cams": dataset.train.cameras}
    found["disturbed"] = embed(encoder, [disturbed(*each) for each in zip(clean, random, strict=True)], config)
    for name, split in (("q", dataset.query), ("g", dataset.gallery)):
        assert split.identities is not None
        found |= {name: embed(encoder, images(split), config)}
        found |= {f"{name}id": split.identities, f"{name}cam": split.cameras}
    return found


def keep(folder: Path, run: Path, root: Path | None) -> None:
    """`features_of` all checkpoints of a run, as SET~RUN~CHECKPOINT.npz; those that lie there are not made again."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: not a run folder, it has no config.yaml; give RUNS/NAME of a run")
    config = load_config(run / "config.yaml", [] if root is None else [f"data.root={root}"])
    name = config.data.root.name if config.data.root else f"{config.walkers.preset}{config.walkers.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in checkpoints_of(run):
        file = folder / f"{name}~{run.name}~{checkpoint.name}.npz"
        if not file.is_file():
            found = features_of(checkpoint, config)
            np.savez(
                file, **{key: value.astype(np.float16) if value.ndim == 2 else value for key, value in found.items()}
            )


def load(file: Path) -> Features:
    """What `keep` kept."""
    with np.load(file) as content:
        whole = {name: content[name] for name in content}
    return {name: value.astype(np.float32) if value.ndim == 2 else value for name, value in whole.items()}


def checkpoints_of(run: Path) -> Iterator[Path]:
    """Oldest first."""
    yield from sorted(path for path in (run / "checkpoints").glob("step*") if path.is_dir())


def correlations(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of each candidate with the mAP; the best first."""
    names = set.intersection(*(set(line["scores"]) for line in lines))
    truths = [line["mAP"] for line in lines]
    found = {name: spearmanr([line["scores"][name] for line in lines], truths).statistic for name in names}
    return {name: round(float(value), 3) for name, value in sorted(found.items(), key=lambda item: -item[1])}


def main() -> None:
    """Measure, print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="folder to keep embeddings in")
    parser.add_argument("runs", nargs="*", type=Path, help="run folders with their checkpoints")
    parser.add_argument("--on", type=Path, help="data set to try them on, instead of their own")
    parser.add_argument("--start", help="RUN~CHECKPOINT: the encoder before training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with exit_on_user_error():
        for run in arguments.runs:
            keep(arguments.features, run, arguments.on)
    by_set: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(arguments.features.glob("*~*~*.npz")):
        name, run, checkpoint = file.stem.split("~")
        start = arguments.features / f"{name}~{arguments.start}.npz"
        found = load(file)
        scores = candidates(found, load(start) if arguments.start else None)
        line = {"set": name, "run": run, "checkpoint": checkpoint, "mAP": round(truth(found), 4)}
        by_set.setdefault(name, []).append({**line, "scores": {key: round(each, 5) for key, each in scores.items()}})
        print(json.dumps(by_set[name][-1]), flush=True)
    for name, lines in by_set.items():
        print(json.dumps({"set": name, "checkpoints": len(lines), "spearman": correlations(lines)}))


if __name__ == "__main__":
    main()
