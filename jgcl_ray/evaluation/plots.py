"""Plots for the report: how early matches come, and a map of the embeddings.

Letters: Q queries, M gallery images, P points, D embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from jgcl_ray.evaluation.ranking import JUNK, Labels, RankingResult

DOTS = 130  # per inch
NAMED_PEOPLE = 20  # identities with a colour of their own
MOST_POINTS = 2000  # of a t-SNE: ten seconds on a core


def accuracy_plot(result: RankingResult, before: RankingResult | None, labels: Labels) -> Image.Image:
    """The CMC with that of a random order, and the average precisions of the queries."""
    figure = Figure((10.4, 3.7), dpi=DOTS, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    ranks = np.arange(1, min(len(result.cmc), len(labels.gallery_identities)) + 1)
    if before is not None:
        left.plot(ranks, before.cmc[: len(ranks)], color="#8a97a3", linewidth=1.6, label="before re-ranking")
    name = "this encoder" if before is None else "re-ranked"
    left.plot(ranks, result.cmc[: len(ranks)], color="#1f6fb2", linewidth=2.4, label=name)
    left.plot(ranks, chance_cmc(labels, len(ranks)), color="#b0b0b0", linestyle=":", label="random order")
    for k in (1, 5, 10, 20):
        if k <= len(ranks):
            found_by = result.cmc[k - 1]
            left.plot(k, found_by, "o", color="#1f6fb2", markersize=5)
            left.annotate("100%" if found_by == 1 else f"{found_by:.1%}", (k, found_by), (4, -13),
                          textcoords="offset points", fontsize=8.5, color="#1f6fb2")  # fmt: skip
    left.set(xlabel="first k of the ranking", title="queries with a right photo among the first k", ylim=(0, 1.04))
    left.set_xticks([k for k in (1, 5, 10, 20, 30, 40, 50) if k <= len(ranks)])
    left.legend(fontsize=8.5, loc="lower right", frameon=False)
    found = result.average_precisions[~np.isnan(result.average_precisions)]
    right.hist(found, bins=np.linspace(0, 1, 21), color="#7fb0d8", edgecolor="white")
    right.axvline(result.mAP, color="#1d2329", linewidth=1.2)
    side = "right" if result.mAP > 0.5 else "left"  # where fewer queries are
    right.annotate(f"mean {result.mAP:.3f}", (result.mAP, 0.97), (-4 if side == "right" else 4, 0),
                   xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8.5, va="top",
                   ha=side)  # fmt: skip
    right.set(xlabel="average precision", ylabel="queries", title="queries by average precision", xlim=(0, 1))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (left, right):
        axes.title.set_fontsize(10.5)
        axes.tick_params(labelsize=8.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return _drawn(figure)


def chance_cmc(labels: Labels, topk: int) -> np.ndarray:
    """(topk,) CMC that a random order of the gallery is expected to have.

    With m matches among the n images that count, none is among the first k with the probability (n-m)/n *
    (n-m-1)/(n-1) * ... of k factors.
    """
    known = labels.gallery_identities != JUNK
    cameras = labels.gallery_cameras[known].tolist()
    of_camera, of_pair = (
        Counter(cameras),
        Counter(zip(labels.gallery_identities[known].tolist(), cameras, strict=True)),
    )
    misses = []
    queries = zip(labels.query_identities.tolist(), labels.query_cameras.tolist(), labels.matches(), strict=True)
    for identity, camera, matches in queries:
        if matches:
            own = of_camera[camera] if labels.protocol == "cross_camera" else of_pair[identity, camera]
            n = len(cameras) - own - np.arange(topk)
            misses.append(np.cumprod(np.clip(n - matches, 0, None) / np.maximum(n, 1)))
    return 1 - np.mean(misses, axis=0)


def embedding_map(
    features: np.ndarray, identities: np.ndarray, cameras: np.ndarray, camera_names: Mapping[int, str]
) -> Image.Image | None:
    """t-SNE of P embeddings (P, D), coloured by identity and by camera; None for fewer than six.

    More than MOST_POINTS are thinned: all images of the people with a colour stay. Identities below 1 are nobody.
    """
    from sklearn.manifold import TSNE

    if len(features) < 6:
        return None
    people = [person for person, _ in Counter(identities[identities > 0].tolist()).most_common(NAMED_PEOPLE)]
    named = np.isin(identities, people)
    rows = np.arange(len(features))
    if len(features) > MOST_POINTS:
        others = np.random.default_rng(0).permutation(rows[~named])
        rows = np.sort(np.concatenate([rows[named], others])[:MOST_POINTS])
    neighbours = min(30.0, (len(rows) - 1) / 3)
    places = np.zeros((len(rows), 2), np.float32)
    if np.ptp(features[rows], axis=0).max() > 1e-7:  # of equal rows scikit-learn ends the process
        places = TSNE(perplexity=neighbours, init="pca", random_state=0).fit_transform(features[rows])
    identities, cameras = identities[rows], cameras[rows]
    figure = Figure((10.4, 5.2), dpi=DOTS, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#d5d9dd")
    left.set_title(f"by person ({len(people)} in colour, numbered)", fontsize=10.5)
    unnamed = ~np.isin(identities, people)
    left.scatter(places[unnamed, 0], places[unnamed, 1], s=9, color="#d5d9dd", linewidths=0)
    for i, person in enumerate(people):
        own = places[identities == person]
        _dots(left, own, matplotlib.colormaps["tab20"](i), None)
        above = (np.median(own[:, 0]), own[:, 1].max())  # so that the number covers none of its dots
        left.annotate(str(person), above, (0, 3), textcoords="offset points", fontsize=7.5, weight="bold",
                      ha="center", va="bottom")  # fmt: skip
    right.set_title("by camera, the same map", fontsize=10.5)
    for i, camera in enumerate(np.unique(cameras)):
        name = camera_names.get(int(camera), str(camera))
        _dots(right, places[cameras == camera], matplotlib.colormaps["tab20" if i >= 10 else "tab10"](i % 20), name)
    right.legend(title="camera", fontsize=8, title_fontsize=8, frameon=False, loc="best", ncols=2)
    return _drawn(figure)


def _dots(axes: Axes, places: np.ndarray, colour: Any, label: str | None) -> None:
    axes.scatter(places[:, 0], places[:, 1], s=14, color=colour, linewidths=0, alpha=0.85, label=label)


def _drawn(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
