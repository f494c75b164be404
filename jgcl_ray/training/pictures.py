"""Pictures for the run log: what the generator makes of fixed images, how labels and losses go.

Pure functions of batches and of records (lines of metrics.jsonl); letters as in batches.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from jgcl_ray.batches import PairedBatch
from jgcl_ray.data.transforms import denormalise_images
from jgcl_ray.losses.reconstruction import Fake

Records = Sequence[Mapping[str, Any]]

TILE_HEIGHT = 192  # pixels to which smaller images are enlarged, by a whole factor
GAP, FONT_SIZE = 4, 13

LABEL_PANELS = {
    "clusters and outliers": ("num_clusters", "num_outliers"),
    "radius of DBSCAN, a Jaccard distance": ("eps",),
    "agreement of the pseudo labels, 1 is perfect": ("nmi", "ari", "purity", "nmi_previous"),
    "shares": ("largest_share", "single_camera_share"),
}
MEANINGS = {  # added to the names in the legends, which are those of metrics.jsonl
    "num_outliers": "images in no cluster",
    "nmi": "with the true identities",
    "ari": "with the true identities",
    "purity": "images of their cluster's main identity",
    "nmi_previous": "with the epoch before",
    "largest_share": "images in the largest cluster",
    "single_camera_share": "clusters seen by one camera",
    "label_agreement_mAP": "no evidence of quality",
}
LOSS_PANELS = {  # by how names of config.losses begin
    "contrastive losses": ("contrast", "cluster_contrast", "camera_proxies"),
    "reconstruction losses": ("image_", "feature_"),
    "adversarial losses of the generator": ("adversarial_",),
    "losses of the discriminator": ("discriminator_",),
    "weighted sum of the losses": ("generator_total",),
}
ACCURACY = (
    *("mAP", "rank-1", "mINP", "validation_mAP", "validation_rank-1", "validation_tracklets_mAP"),
    "label_agreement_mAP",
)
MOST_POINTS = 200  # of a curve in one stage; more are averaged over neighbours
PANEL_SIZE = (4.6, 2.9)  # inches, at 100 dots


def sample_grid(batch: PairedBatch, generated: Mapping[Fake, torch.Tensor]) -> Image.Image:
    """A row for each of B images: photo, projection, reconstruction, novel projection, novel view, cycle.

    Under a header that names the columns, without those that a run does not draw; the novel projections are marked
    with the degrees by which the mesh was turned.
    """
    made = {fake: denormalise_images(image) for fake, image in generated.items()}
    every = {
        "photo": denormalise_images(batch.image),
        "projection": _grey(batch.mesh),
        "reconstruction": made.get("reconstruction"),
        "novel projection": _grey(batch.mesh_novel),
        "novel view": made.get("novel"),
        "cycle": made.get("cycle"),
    }
    columns = {title: column for title, column in every.items() if column is not None}
    pixels = [column.cpu().numpy() for column in columns.values()]
    rows, height, width = pixels[0].shape[:3]
    factor = max(1, round(TILE_HEIGHT / height))
    height, width = factor * height, factor * width

    font = ImageFont.load_default(FONT_SIZE)
    header = [_wrapped(name, width, font) for name in columns]
    top = GAP + max(text.count("\n") + 1 for text in header) * (FONT_SIZE + 3)
    size = (len(columns) * (width + GAP) + GAP, top + rows * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "lightgrey")
    draw = ImageDraw.Draw(sheet)
    for j, (text, column) in enumerate(zip(header, pixels, strict=True)):
        left = GAP + j * (width + GAP)
        draw.multiline_text((left + width / 2, top), text, "black", font, anchor="md", spacing=1, align="center")
        for i, tile in enumerate(column):
            picture = Image.fromarray(tile).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top + GAP + i * (height + GAP)))
    left = GAP + list(columns).index("novel projection") * (width + GAP)
    for i, view in enumerate(batch.view.tolist()):
        corner = (left + 3, top + GAP + i * (height + GAP) + 1)
        draw.text(corner, f"{view}°", "white", font, stroke_width=2, stroke_fill="black")
    return sheet


def label_quality_plot(records: Records) -> Image.Image:
    """Numbers of pseudo_labels.quality over epochs: clusters and outliers, eps, agreements, shares."""
    epochs = _epochs(records)
    panels = [_Panel(title, "epoch", _curves(records, names, epochs)) for title, names in LABEL_PANELS.items()]
    return _drawn(panels, {"epoch": _beginnings(records, epochs)})


def loss_curves(records: Records) -> Image.Image:
    """Loss terms over steps, mAP and rank-1 over epochs; curves of many points are averages of neighbours.

    Scores of the encoder before its first epoch are drawn at epoch 0.
    """
    steps, epochs = [record["step"] for record in records], _epochs(records)
    names = list(dict.fromkeys(name for record in records for name in record))
    panels = [
        _Panel(title, "step", _curves(records, [name for name in names if name.startswith(beginnings)], steps))
        for title, beginnings in LOSS_PANELS.items()
    ]
    panels.append(_Panel("accuracy", "epoch", _curves(records, ACCURACY, _ends(records, epochs))))
    return _drawn(panels, {"step": _beginnings(records, steps), "epoch": _beginnings(records, epochs)})


@dataclass(frozen=True)
class _Curve:
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class _Panel:
    title: str
    x_name: str
    curves: dict[str, _Curve]


def _epochs(records: Records) -> list[int]:
    """The epoch of each record, counted on over the stages, from 1."""
    count: dict[tuple[str, int], int] = {}
    return [count.setdefault((record["stage"], record["epoch"]), len(count) + 1) for record in records]


def _ends(records: Records, epochs: Sequence[int]) -> list[int]:
    """The epochs; what was found before the first step of a stage belongs to the end of the epoch before."""
    first: dict[str, int] = {}
    steps = [first.setdefault(record["stage"], record["step"]) for record in records]
    return [
        epoch - (record["epoch"] == 0 and record["step"] == step)
        for record, epoch, step in zip(records, epochs, steps, strict=True)
    ]


def _beginnings(records: Records, places: Sequence[int]) -> dict[str, int]:
    beginnings: dict[str, int] = {}
    for record, place in zip(records, places, strict=True):
        beginnings.setdefault(record["stage"], place)
    return beginnings


def _curves(records: Records, names: Sequence[str], places: Sequence[int]) -> dict[str, _Curve]:
    """The numbers of each name that occurs, with a gap between stages and where a number was not finite."""
    curves = {}
    for name in names:
        points = [(at["stage"], place, at[name]) for at, place in zip(records, places, strict=True) if name in at]
        stages = [np.array([point[1:] for point in part], float) for _, part in groupby(points, itemgetter(0))]
        if stages:
            gap = np.full((1, 2), np.nan)
            joined = np.concatenate([part for stage in stages for part in (_thinned(stage), gap)])
            curves[name] = _Curve(*joined.T)
    return curves


def _thinned(points: np.ndarray) -> np.ndarray:
    if len(points) <= MOST_POINTS:
        return points
    return np.stack([part.mean(axis=0) for part in np.array_split(points, MOST_POINTS)])


def _drawn(panels: Sequence[_Panel], stages: Mapping[str, Mapping[str, int]]) -> Image.Image:
    """Panels that have curves, two a row; of several stages, dotted lines where they begin."""
    shown = [panel for panel in panels if panel.curves]
    rows, columns = max(1, -(-len(shown) // 2)), min(2, max(1, len(shown)))
    figure = Figure((columns * PANEL_SIZE[0], rows * PANEL_SIZE[1]), dpi=100)
    across, down = figure.get_size_inches()
    # Margins in inches; matplotlib's own layouts draw everything a second time.
    figure.subplots_adjust(0.6 / across, 0.5 / down, 1 - 0.15 / across, 1 - 0.3 / down, wspace=0.2, hspace=0.4)
    if not shown:
        figure.text(0.5, 0.5, "no numbers yet", ha="center", va="center")
    for place, panel in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.x_name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if panel.x_name == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for name, curve in panel.curves.items():
            axes.plot(
                curve.x, curve.y, linewidth=1.2, marker="." if len(curve.x) <= 50 else None, label=_legend(name)
            )
        beginnings = stages[panel.x_name] if len(stages[panel.x_name]) > 1 else {}
        for stage, beginning in beginnings.items():
            axes.axvline(beginning, color="grey", linestyle=":", linewidth=1)
            place_of_name = axes.get_xaxis_transform()  # x as in the data, y as a share of the panel
            axes.text(beginning, 0.99, f" {stage}", transform=place_of_name, fontsize=7, color="grey", va="top")
        axes.legend(fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _legend(name: str) -> str:
    return f"{name}: {MEANINGS[name]}" if name in MEANINGS else name


def _grey(meshes: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) in [-1, 1] -> uint8 (B, H, W, 3)."""
    pixels = meshes.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def _wrapped(text: str, width: int, font: Any) -> str:
    return text if font.getlength(text) <= width else text.replace(" ", "\n")
