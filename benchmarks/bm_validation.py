"""Which score without labels follows the truth: candidates against the test mAP, over the checkpoints of runs.

Of each checkpoint: embeddings of the training images, of every other one mirrored, and of every other one disturbed
(shifted, in other colours, partly covered); from them the candidates, and the mAP of the test split. Prints one JSON
object a line: a checkpoint with its scores and `mAP`; then for each data set Spearman's rank correlation of each
candidate with the mAP over its checkpoints. Choose on one set, confirm on another.

    python benchmarks/bm_validation.py RUNS/ONE RUNS/TWO ... [--features FOLDER] [--resume JSONL]

Runs need checkpoints.keep at their number of epochs. `start_mAP` asks how far the neighbours are still those of the
encoder in --start (a checkpoint). --features keeps the embeddings, so that candidates can be changed in seconds.
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

from jgcl_ray.config import Config, load_config
from jgcl_ray.data.datasets import Split, open_dataset
from jgcl_ray.data.loaders import open_images
from jgcl_ray.data.transforms import normalise_images
from jgcl_ray.errors import UserError, exit_on_user_error
from jgcl_ray.evaluation.ranking import rank
from jgcl_ray.evaluation.unlabelled import disturbed, effective_rank, recognition
from jgcl_ray.models.encoder import IdentityEncoder
from jgcl_ray.models.weights import load_weights
from jgcl_ray.training.precision import autocast

Features = Mapping[str, np.ndarray]  # clean, flip, aug (of rows 0, 2, ..), cams; q, qid, qcam, g, gid, gcam
NEIGHBOURS = 5


def candidates(found: Features, start: Features | None = None) -> dict[str, float]:
    """Scores without labels, by name; the more the better, so it is hoped."""
    clean, cameras = found["clean"], found["cams"]
    rows = np.arange(len(clean))[::2]
    similarity = clean @ clean.T
    across = np.where(cameras[:, None] != cameras, similarity, -9)
    nearest = np.argsort(-across, axis=1)
    scores = {"effective_rank": effective_rank(clean), "participation": participation(clean)}
    scores |= cycles(clean, cameras, nearest[:, 0])
    for name in ("flip", "aug"):
        other = found[name]
        scores[f"recognition_{name}"] = recognition(clean, other, rows)
        scores[f"cosine_{name}"] = float((clean[rows] * other).sum(1).mean())
        apart = ((clean - clean.mean(0)) ** 2).sum(1).mean() / ((clean[rows] - other) ** 2).sum(1).mean()
        scores[f"between_to_within_{name}"] = float(apart)
        moved = np.where(cameras[rows, None] != cameras, other @ clean.T, -9)
        moved_nearest = np.argsort(-moved, axis=1)
        scores[f"stable_{name}"] = overlap(moved_nearest, nearest[rows])
        scores[f"stable_first_{name}"] = float((moved_nearest[:, 0] == nearest[rows, 0]).mean())
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
    spread = ((clean - clean.mean(0)) ** 2).sum(1).mean()
    scores["camera_means_alike"] = -float(((means - clean.mean(0)) ** 2).sum(1).mean() / spread)
    others = similarity[cameras[:, None] != cameras]
    ordered = -np.sort(-across, axis=1)
    scores["gap_after_neighbours"] = float((ordered[:, 0] - ordered[:, 20]).mean() / others.std())
    mutual = reciprocal(nearest)
    scores["reciprocal"] = float(mutual.sum() / (NEIGHBOURS * len(clean)))
    two_steps = (mutual.astype(np.float32) @ mutual) > 0
    scores["transitive"] = float((two_steps & mutual).sum() / max(two_steps.sum() - len(clean), 1))
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
    half = clean[::2]
    found = {"clean": embed(encoder, clean, config), "cams": dataset.train.cameras}
    found["flip"] = embed(encoder, [image[:, ::-1] for image in half], config)
    random = [np.random.default_rng((0, 2 * row)) for row in range(len(half))]
    found["aug"] = embed(encoder, [disturbed(*each) for each in zip(half, random, strict=True)], config)
    for name, split in (("q", dataset.query), ("g", dataset.gallery)):
        assert split.identities is not None
        found |= {name: embed(encoder, images(split), config)}
        found |= {f"{name}id": split.identities, f"{name}cam": split.cameras}
    return found


def kept(folder: Path | None, run: Path, checkpoint: Path, config: Config) -> Features:
    """`features_of`, from the folder where they lie there."""
    if folder is None:
        return features_of(checkpoint, config)
    file = folder / f"{run.name}~{checkpoint.name}.npz"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{name: _small(value) for name, value in features_of(checkpoint, config).items()})
    with np.load(file) as content:
        return {
            name: content[name].astype(np.float32) if content[name].ndim == 2 else content[name] for name in content
        }


def _small(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16) if values.ndim == 2 else values


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders with their checkpoints")
    parser.add_argument("--start", type=Path, help="checkpoint from which the runs started; a candidate itself")
    parser.add_argument("--features", type=Path, help="folder to keep embeddings in, and to take them from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    by_set: dict[str, list[dict[str, Any]]] = {}
    starts: dict[str, Features] = {}
    with exit_on_user_error():
        for run in arguments.runs:
            if not (run / "config.yaml").is_file():
                raise UserError(f"{run}: not a run folder, it has no config.yaml; give RUNS/NAME of a run")
            config = load_config(run / "config.yaml")
            name = f"{config.data.name}:{config.data.root or config.walkers.preset}:{config.walkers.seed}"
            todo = [(run, checkpoint) for checkpoint in checkpoints_of(run)]
            if arguments.start is not None and name not in starts:
                first = Path(f"start-of-{Path(name).name}")
                starts[name] = kept(arguments.features, first, arguments.start, config)
                todo.insert(0, (first, arguments.start))
            for of, checkpoint in todo:
                found = kept(arguments.features, of, checkpoint, config)
                scores = {key: round(value, 5) for key, value in candidates(found, starts.get(name)).items()}
                line = {"set": name, "run": of.name, "checkpoint": checkpoint.name, "mAP": round(truth(found), 4)}
                by_set.setdefault(name, []).append({**line, "scores": scores})
                print(json.dumps(by_set[name][-1]), flush=True)
    for name, lines in by_set.items():
        print(json.dumps({"set": name, "checkpoints": len(lines), "spearman": correlations(lines)}))


if __name__ == "__main__":
    main()
