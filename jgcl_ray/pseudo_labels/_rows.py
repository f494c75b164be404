"""Rows in parallel: compiled kernels that release the interpreter lock, each on a range of rows.

Threads instead of numba's own parallel loops: the number of threads is an argument, no third OpenMP runtime joins
those of torch and faiss, and a kernel compiles in a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_rows(kernel: Callable[..., Any], num_rows: int, threads: int, *arguments: Any) -> list[Any]:
    """`kernel(start, stop, *arguments)` over ranges that cover 0..num_rows, its results in the order of the rows."""
    # Small enough to balance the threads, large enough that a scratch array of num_rows per range costs nothing.
    step = max(1, min(8192, -(-num_rows // (8 * threads))))
    ranges = [(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda limits: kernel(*limits, *arguments), ranges))


def join_rows(blocks: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Blocks of rows, (entries of each row, arrays with a value per entry ...), joined: (arrays ..., indptr).

    Empties `blocks`.
    """
    indptr = row_ends(np.concatenate([sizes for sizes, *_ in blocks]))
    joined = tuple(np.empty(indptr[-1], array.dtype) for array in blocks[0][1:])
    end = int(indptr[-1])
    while blocks:  # each block is freed once copied, so that the peak stays near one copy
        _, *arrays = blocks.pop()
        start = end - len(arrays[0])
        for target, array in zip(joined, arrays, strict=True):
            target[start:end] = array
        end = start
    return *joined, indptr


def row_ends(sizes: np.ndarray) -> np.ndarray:
    """indptr of a CSR array from the entries of each row; int32 where it fits: scipy widens the indices to it."""
    indptr = np.concatenate([[0], sizes.cumsum(dtype=np.int64)])
    return indptr.astype(np.int32) if indptr[-1] <= np.iinfo(np.int32).max else indptr
