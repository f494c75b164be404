"""Collectives over the workers of a process group; the identity for one worker and without a group.

Two workers with half a batch each compute what one worker with the whole batch does: rows are gathered in one order,
gradients averaged by hand (several passes, two optimisers and a gradient penalty are more than DDP follows). Every
function but `rank` and `world_size` is a collective: all workers call it, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

BUCKET_BYTES = 32 * 2**20


def world_size() -> int:
    """Number of workers; 1 without a process group."""
    return dist.get_world_size() if _is_grouped() else 1


def rank() -> int:
    """This worker's place among them; 0 without a process group."""
    return dist.get_rank() if _is_grouped() else 0


def gather_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows of all workers in the order of their ranks, the same bits on every worker; no gradient.

    x (n, ...): n may differ between workers and be 0, the row's shape and type may not. Returns (sum of n, ...) on
    x's device; x itself, detached, for one worker.
    """
    x = x.detach()
    if not _are_several():
        return x
    counts = row_counts(x)
    # Bytes travel, so that every type arrives bit for bit, bool and bfloat16 included, whatever the backend can add.
    row_bytes = math.prod(x.shape[1:]) * x.element_size()
    padded = torch.zeros(max(counts), row_bytes, dtype=torch.uint8, device=_device())
    padded[: len(x)] = x.contiguous().view(-1).view(torch.uint8).view(len(x), row_bytes)
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    joined = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return joined.view(-1).view(x.dtype).view(sum(counts), *x.shape[1:]).to(x.device)


def row_counts(x: torch.Tensor) -> list[int]:
    """len(x) on every worker, in the order of their ranks."""
    if not _are_several():
        return [len(x)]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=_device())
    counts[rank()] = len(x)
    dist.all_reduce(counts)
    return counts.tolist()


def gather_rows_with_gradient(x: torch.Tensor) -> torch.Tensor:
    """`gather_rows` through which gradients come home: each row's is the sum over the workers that used it.

    The backward pass is a collective too.
    """
    return _GatherRows.apply(x) if _are_several() else x


def stack_with_gradient(x: torch.Tensor) -> torch.Tensor:
    """x of every worker, of one shape and type on all, as (workers, ...); gradients come home as sums over workers.

    The backward pass is a collective too.
    """
    return _Stack.apply(x) if _are_several() else x[None]


def sum_over_workers(x: torch.Tensor) -> torch.Tensor:
    """Sum of x, of one shape on all workers, as a new tensor on x's device; no gradient."""
    total = x.detach().clone()
    if _are_several():
        total = total.to(_device())
        dist.all_reduce(total)
    return total.to(x.device)


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over workers, in flat buckets that travel at the same time.

    A parameter without gradient on some workers counts as zeros there; without one on all of them it stays without,
    so that the optimiser passes it over as it does on a single worker.
    """
    if not _are_several():
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32, device=_device())
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    gradients = []
    for parameter, somewhere in zip(trained, used.tolist(), strict=True):
        if somewhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    on_the_way = []
    for bucket in _buckets(gradients):
        flat = _flatten(bucket)
        on_the_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in on_the_way:
        work.wait()
        _unflatten(flat.div_(world_size()), bucket)


def broadcast_module(module: torch.nn.Module, source: int = 0) -> None:
    """Overwrite parameters and buffers by those of worker `source`."""
    if not _are_several():
        return
    for bucket in _buckets([tensor.detach() for tensor in (*module.parameters(), *module.buffers())]):
        flat = _flatten(bucket)
        dist.broadcast(flat, src=source)
        _unflatten(flat, bucket)


def average_buffers(module: torch.nn.Module) -> None:
    """Replace each buffer of floating point by its mean over workers: running statistics of batch norm."""
    if not _are_several():
        return
    for bucket in _buckets([buffer for buffer in module.buffers() if buffer.is_floating_point()]):
        flat = _flatten(bucket)
        dist.all_reduce(flat)
        _unflatten(flat.div_(world_size()), bucket)


def mean_over_workers(scalars: Mapping[str, float | torch.Tensor]) -> dict[str, float]:
    """Mean over workers of numbers under the same names on each of them, as Python floats: for the log."""
    if not scalars:
        return {}
    names = sorted(scalars)
    values = torch.stack([torch.as_tensor(scalars[name]).detach().double().cpu() for name in names])
    means = (sum_over_workers(values) / world_size()).tolist()
    return dict(zip(names, means, strict=True))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        counts = row_counts(x)
        ctx.start, ctx.count = sum(counts[: rank()]), len(x)
        return gather_rows(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_workers(gradient.contiguous())[ctx.start : ctx.start + ctx.count]


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        stacked = x.new_zeros(world_size(), *x.shape)
        stacked[rank()] = x
        return sum_over_workers(stacked)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_workers(gradient.contiguous())[rank()]


def _is_grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def _are_several() -> bool:
    # A group of one is passed over: gloo's threads would open OpenMP pools of their own to copy, and once there are
    # more pools than CPUs OpenMP no longer spins between two operations, which makes a step twice as long.
    return world_size() > 1


def _device() -> torch.device:
    # NCCL moves tensors of the worker's GPU only, gloo those of the CPU.
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors of one type in lists of at most BUCKET_BYTES (or one tensor), in the same order on every worker."""
    open_buckets: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        bucket = open_buckets.setdefault(tensor.dtype, [])
        if bucket and sum(t.nbytes for t in bucket) + tensor.nbytes > BUCKET_BYTES:
            yield bucket
            bucket = open_buckets[tensor.dtype] = []
        bucket.append(tensor)
    yield from (bucket for bucket in open_buckets.values() if bucket)


def _flatten(bucket: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in bucket]).to(_device())


def _unflatten(flat: torch.Tensor, bucket: Sequence[torch.Tensor]) -> None:
    for part, tensor in zip(flat.split([tensor.numel() for tensor in bucket]), bucket, strict=True):
        tensor.copy_(part.view(tensor.shape))
