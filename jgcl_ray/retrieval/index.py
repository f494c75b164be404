"""A faiss index of a gallery and the list of its images, in one file.

Letters: N images in the gallery, D embedding width, Q queries, k answers each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from zipfile import is_zipfile

import faiss
import numpy as np
from pydantic import ConfigDict, Field

from jgcl_ray.arguments import LARGEST_SIDE
from jgcl_ray.atomic import replacing
from jgcl_ray.camera_means import CameraMeans
from jgcl_ray.errors import UserError
from jgcl_ray.retrieval.sightings import UNKNOWN, Sighting
from jgcl_ray.stored_files import UNREADABLE, parse_json, refuse_pipe

Kind = Literal["auto", "flat", "hnsw", "ivf"]
ANEW = "build it again by --gallery FOLDER"
KINDS: tuple[Kind, ...] = ("auto", "flat", "hnsw", "ivf")
# `auto` compares with every image up to here: 200,000 x 512 is 0.4 GB, read once for a query.
FLAT_IMAGES = 200_000
_KINDS_OF_FAISS = (faiss.IndexFlatL2, faiss.IndexHNSWFlat, faiss.IndexIVFFlat)
MIN_RECALL, PROBED, SAMPLE = 0.98, 10, 200  # recall of the nearest 10, measured on 200 images


@dataclass(frozen=True)
class IndexSpec:
    """Of which encoder's embeddings an index is."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")  # a newer version's card may mean more

    fingerprint: str  # Encoder.fingerprint
    height: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]  # pixels to which images were resized
    width: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    embedding: Annotated[int, Field(ge=1)]  # D
    kind: Kind = "auto"
    flip: bool = False  # whether image and mirror image were averaged (Encoder.flip)
    camera_means: bool = False  # whether each camera's mean embedding was taken off
    multi_scale: bool = False  # whether images were read at three sizes (Encoder.multi_scale)


@dataclass(frozen=True, eq=False)
class Hits:
    """Answers, nearest first."""

    rows: np.ndarray  # (Q, k) int64, rows of the gallery
    distances: np.ndarray  # (Q, k) float32, Euclidean between normalised embeddings, in [0, 2]


class GalleryIndex:
    """The embeddings of N images, with their files; row i of both is the same image.

    paths: of the files. sightings: where and when each was taken. stamps (N, 2) int64: times of modification, ns, and
    sizes of the files, bytes; -1 unknown.
    camera_means: what was taken off the embeddings, and must be taken off those of queries; of the images by which a
    camera came in, and kept from then.
    """

    def __init__(self, spec: IndexSpec) -> None:
        """Empty."""
        self.spec = spec
        self.paths: list[str] = []
        self.sightings: list[Sighting] = []
        self.stamps = np.zeros((0, 2), np.int64)
        self.camera_means: CameraMeans | None = None
        self._index = _new_index(self.kind, np.zeros((0, spec.embedding), np.float32))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def kind(self) -> str:
        """flat, hnsw or ivf: what `spec.kind` means for so many images."""
        if self.spec.kind != "auto":
            return self.spec.kind
        return "flat" if len(self.paths) <= FLAT_IMAGES else "ivf"

    def add(
        self,
        embeddings: np.ndarray,
        paths: Sequence[str],
        stamps: np.ndarray,
        sightings: Sequence[Sighting] | None = None,
    ) -> None:
        """Images that are not in it yet; embeddings (n, D) float32, L2-normalised; sightings: None, not known."""
        assert embeddings.shape == (len(paths), self.spec.embedding) and stamps.shape == (len(paths), 2)
        before = self.kind
        self.paths += paths
        self.sightings += [UNKNOWN] * len(paths) if sightings is None else sightings
        self.stamps = np.concatenate([self.stamps, stamps])
        if self.kind == before and (before != "ivf" or self._index.ntotal):
            self._index.add(np.ascontiguousarray(embeddings))
        else:  # grown out of its kind, or an inverted file's first images, which shape its lists
            self._index = _new_index(self.kind, np.concatenate([self.embeddings(), embeddings]))

    def remove(self, rows: np.ndarray) -> None:
        """Take out rows; those behind move up."""
        kept = np.ones(len(self), bool)
        kept[rows] = False
        embeddings, before = self.embeddings()[kept], self.kind
        self.paths = [path for path, stays in zip(self.paths, kept, strict=True) if stays]
        self.sightings = [one for one, stays in zip(self.sightings, kept, strict=True) if stays]
        self.stamps = self.stamps[kept]
        if self.kind == before and len(self):
            # An HNSW graph cannot lose a node, and the others are as quickly filled again.
            self._index.reset()
            self._index.add(embeddings)
        else:
            self._index = _new_index(self.kind, embeddings)

    def embeddings(self) -> np.ndarray:
        """(N, D) float32."""
        if not self._index.ntotal:
            return np.zeros((0, self.spec.embedding), np.float32)
        return self._index.reconstruct_n(0, self._index.ntotal)

    def search(self, queries: np.ndarray, k: int) -> Hits:
        """The min(k, N) nearest images of each query, (Q, D) float32, L2-normalised."""
        squared, rows = self._index.search(np.ascontiguousarray(queries), min(k, len(self)))
        return Hits(rows, np.sqrt(np.maximum(squared, 0)))  # rounding may leave a square just below 0

    def save(self, path: Path) -> None:
        """Write, or replace as a whole: a crash leaves either the old file or the new one."""
        means: dict[str, Any] = {}
        if self.camera_means is not None:
            means = {
                "cameras": _as_bytes("\0".join(map(str, self.camera_means.cameras))),
                "means": self.camera_means.means,
                "camera_images": self.camera_means.images,
            }
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                card=_as_bytes(json.dumps(asdict(self.spec))),
                paths=_as_bytes("\0".join(self.paths)),
                stamps=self.stamps,
                index=faiss.serialize_index(self._index),
                seen_at=_as_bytes("\0".join(f"{one.camera}/{one.track}" for one in self.sightings)),
                seen_when=np.array([one.time for one in self.sightings], np.float64),
                **means,
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote; UserError where it is no index, cut off or altered (zip's CRC-32)."""
        refuse_pipe(path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                spec = parse_json(_as_text(arrays["card"]), IndexSpec, f"{path}, its card", ANEW)
                paths, stamps, content = _as_text(arrays["paths"]), arrays["stamps"], arrays["index"]
                if stamps.ndim == 1:  # of an index that was written before sizes were kept
                    stamps = np.stack([stamps, np.full_like(stamps, -1)], axis=1)
                seen = _sightings(arrays, len(stamps))
                means = None
                if "means" in arrays:
                    cameras = tuple(_as_text(arrays["cameras"]).split("\0"))
                    means = CameraMeans(cameras, arrays["means"], arrays["camera_images"])
            if content.dtype != np.uint8 or stamps.dtype != np.int64 or stamps.shape[1:] != (2,):
                raise ValueError(f"index is {content.dtype}, stamps are {stamps.dtype} {stamps.shape}")
            if spec.camera_means and paths and means is None:
                raise ValueError("its cameras' means are not there")
            loaded = cls(spec)
            loaded.paths, loaded.stamps, loaded.sightings = paths.split("\0") if paths else [], stamps, seen
            loaded._index, loaded.camera_means = faiss.deserialize_index(content), means
            if not isinstance(loaded._index, _KINDS_OF_FAISS) or loaded._index.metric_type != faiss.METRIC_L2:
                raise ValueError(f"{type(loaded._index).__name__}, which this package does not make")
            if loaded._index.d != spec.embedding:
                raise ValueError(f"embeddings of {loaded._index.d} numbers, and its card says {spec.embedding}")
            if not loaded._index.ntotal == len(loaded.paths) == len(stamps) == len(seen):
                raise ValueError(
                    f"{loaded._index.ntotal} embeddings, {len(loaded.paths)} paths, {len(stamps)} stamps"
                )
        except FileNotFoundError:
            raise UserError(f"{path}: no such index; build it by --gallery FOLDER") from None
        except IsADirectoryError:
            raise UserError(f"{path}: a folder; give the name of an index's file") from None
        except UNREADABLE as error:
            reason = f" ({' '.join(str(error).split())[:200]})" if is_zipfile(path) else ""  # else numpy's advice
            raise UserError(f"{path}: not a readable index{reason}; {ANEW}") from None
        return loaded


def _new_index(kind: str, embeddings: np.ndarray) -> Any:
    """A faiss index of embeddings (N, D)."""
    images, width = embeddings.shape
    index: Any
    if kind == "ivf" and images:
        lists = max(min(int(4 * images**0.5), images // 40), 1)
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, lists)
        index.cp.niter, index.cp.max_points_per_centroid = 10, 64
        index.train(embeddings)
        index.make_direct_map()  # to give embeddings back by their rows
        index.add(embeddings)
        _set_effort(index, "nprobe", min(4, lists), lists)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, 32)
        index.hnsw.efConstruction = 80
        index.add(embeddings)
        if images:
            _set_effort(index, "efSearch", 32, images)
    else:
        index = faiss.IndexFlatL2(width)
        index.add(embeddings)
    return index


def _set_effort(index: Any, name: str, level: int, limit: int) -> None:
    """Search harder until a sample of the images finds its nearest in the exact order."""
    embeddings = index.reconstruct_n(0, index.ntotal)
    rows = np.random.default_rng(0).choice(len(embeddings), min(SAMPLE, len(embeddings)), replace=False)
    k = min(PROBED, len(embeddings))
    truth = faiss.knn(embeddings[rows], embeddings, k)[1]
    while True:
        faiss.ParameterSpace().set_index_parameter(index, name, level)
        found = index.search(embeddings[rows], k)[1]
        recall = np.mean([np.isin(true, some).mean() for true, some in zip(truth, found, strict=True)])
        if recall >= MIN_RECALL or level >= limit:
            return
        level = min(2 * level, limit)


def _sightings(arrays: Any, images: int) -> list[Sighting]:
    """Unknown ones in an index that was written before they were kept."""
    if "seen_at" not in arrays or not images:
        return [UNKNOWN] * images
    places, times = [place.split("/") for place in _as_text(arrays["seen_at"]).split("\0")], arrays["seen_when"]
    if times.dtype != np.float64:
        raise ValueError(f"seen_when is {times.dtype}")
    return [Sighting(camera, track, time) for (camera, track), time in zip(places, times.tolist(), strict=True)]


def _as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def _as_text(content: np.ndarray) -> str:
    return content.tobytes().decode("utf-8", "surrogateescape")
