"""What travels between stages: frozen dataclasses with named fields.

Letters: B images in a batch, N training images (= memory rows), H x W image size, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# Degrees about the vertical axis by which a mesh is turned to a new view (GCL 3.1); 0 is the image's own view.
NOVEL_VIEWS: tuple[int, ...] = (45, 90, 135, 180, 225, 270, 315)


@dataclass(frozen=True)
class ImageBatch:
    """Images without projections: warm-up, feature extraction, evaluation."""

    image: torch.Tensor  # (B, 3, H, W) float32, ImageNet mean/std normalised
    index: torch.Tensor  # (B,) int64, row of the data set and of the memory bank


@dataclass(frozen=True)
class ViewedBatch(ImageBatch):
    """Images, and V of them turned to another side, before a backdrop of one camera."""

    view: torch.Tensor  # (V, 3, H, W) like image
    view_index: torch.Tensor  # (V,) int64, row of the data set
    view_camera: torch.Tensor  # (V,) int64, whose look it has


@dataclass(frozen=True)
class PairedBatch:
    """Images with the projection of the same person at the image's own view and at a drawn new one."""

    image: torch.Tensor  # (B, 3, H, W) float32, ImageNet mean/std normalised
    mesh: torch.Tensor  # (B, 1, H, W) float32, grey in [-1, 1], plain background
    mesh_novel: torch.Tensor  # (B, 1, H, W) like mesh, turned by `view`
    view: torch.Tensor  # (B,) int64, degrees, one of NOVEL_VIEWS
    index: torch.Tensor  # (B,) int64, row of the data set and of the memory bank


@dataclass(frozen=True, eq=False)
class WarpedView:
    """New views made of photos' pixels (meshes.correspondence)."""

    picture: torch.Tensor  # (B, 3, H, W) in [0, 1]
    sharp: torch.Tensor  # (B, 3, H, W) in [0, 1]: the same, fine voxels outweighing the coarser ones sooner; noisier
    confidence: torch.Tensor  # (B, H, W) in [0, 1]
    cover: torch.Tensor  # (B, H, W) in [0, 1]: how far the person hides the backdrop


@dataclass(frozen=True)
class PseudoLabels:
    """One labelling of all training images."""

    labels: np.ndarray  # (N,) int64, cluster of each row, -1 for outliers
    eps: float  # the radius that DBSCAN used; NaN for methods without one
    num_clusters: int
    num_outliers: int
    recall: float = 1.0  # share of the true nearest rows that the search found in a sample; 1: searched exactly
    weights: np.ndarray | None = None  # (N,) float32 in [0, 1], how far each row's label is trusted; None: all alike
    tracklets: int = 0  # that were clustered in place of images
    cut_tracklets: int = 0  # of them, cut in two: their halves disagree
    cannot_links_split: int = (
        0  # pairs of tracklets of one camera at one time that were in one cluster before it was split
    )
    dropped: int = 0  # clusters that single_camera=drop made outliers


@dataclass(frozen=True)
class Tracks:
    """What is known of the tracks that N images were cut out of."""

    tracklets: np.ndarray  # (N,) int64, negative outside tracklets; a tracklet is of one camera
    times: np.ndarray | None = None  # (N,) float64, on the camera's own clock; nan unknown
    spans: np.ndarray | None = None  # (N, 2) float64: first and last time of each image's whole track, nan unknown
