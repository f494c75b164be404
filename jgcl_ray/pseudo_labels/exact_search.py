"""The exact nearest rows by whatever is installed: faiss, its GPU build, or torch alone.

Letters: N rows to search, Q queries, D width, k neighbours. Rows are of unit length; rounding may order near ties one
way here and another there: who needs one order asks for spare candidates and sorts them (neighbours.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

# Similarities in a block of torch's search: 256 MiB of them.
BLOCK = 2**26


def installed_faiss() -> Any | None:
    """The module faiss, of faiss-cpu or faiss-gpu; None where neither is installed."""
    return import_module("faiss") if find_spec("faiss") is not None else None


def nearest_rows(queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (Q, k) float32 to the k nearest rows and their numbers (Q, k) int64, nearest first.

    queries (Q, D) and base (N, D) float32, k <= N; on the CPU, with the threads that faiss or torch were given.
    """
    faiss = installed_faiss()
    if faiss is not None:
        return faiss.knn(queries, base, k)
    distances = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    every = _shared(base)
    for block in _blocks(len(queries), len(base)):
        found = (_shared(queries[block]) @ every.T).topk(k, dim=1)
        distances[block], rows[block] = (2 - 2 * found.values).clamp(min=0).numpy(), found.indices.numpy()
    return distances, rows


def searcher_on(base: torch.Tensor) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """A search for the k nearest rows of base (N, D): queries (Q, D), k -> (Q, k) int64, all on the device of `base`.

    On a GPU by faiss where its GPU build is installed, else by torch.
    """
    faiss = installed_faiss()
    if base.is_cuda and faiss is not None and hasattr(faiss, "StandardGpuResources"):
        resources = _gpu_resources()

        def by_faiss(queries: torch.Tensor, k: int) -> torch.Tensor:
            with torch.cuda.device(base.device):
                return faiss.knn_gpu(resources, queries.contiguous(), base, k, device=base.device.index)[1]

        return by_faiss

    def by_torch(queries: torch.Tensor, k: int) -> torch.Tensor:
        return torch.cat(
            [(queries[block] @ base.T).topk(k, dim=1).indices for block in _blocks(len(queries), len(base))]
        )

    return by_torch


@cache
def _gpu_resources() -> Any:
    """One scratch memory for all searches of a process; faiss takes torch's tensors once torch_utils is imported."""
    import_module("faiss.contrib.torch_utils")
    return import_module("faiss").StandardGpuResources()


def _shared(array: np.ndarray) -> torch.Tensor:
    """A tensor on the memory of an array that may be read-only, as Ray's object store gives it; not to be written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _blocks(num_queries: int, num_rows: int) -> Iterator[slice]:
    step = max(BLOCK // max(num_rows, 1), 1)
    return (slice(start, min(start + step, num_queries)) for start in range(0, num_queries, step))
