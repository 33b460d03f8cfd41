"""The few collective helpers that the package shares; all of them also work in one process.

`on_rank_zero`, `agreed` and `gather_objects` have no timeout in a job that trex_ds has started
(`use_patient_group`), because ranks reach them at very different times. `sum_over_ranks` is for ranks in step.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class PeerError(RuntimeError):
    """Another rank failed, and this one stops with it; the message names it and its error."""


_patient_group: dist.ProcessGroup | None = None


def use_patient_group(group: dist.ProcessGroup) -> None:
    """Exchange objects in `group` of all ranks on CPUs, whose timeout is longer than any work."""
    global _patient_group
    _patient_group = group


def is_distributed() -> bool:
    """Whether a process group exists; its size may be one."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's rank in the job; 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes the job has; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def local_rank() -> int:
    """This process's number on its node, as its launcher says; 0 for the first."""
    return int(os.environ.get("LOCAL_RANK") or 0) if is_distributed() else 0


def collective_device() -> torch.device:
    """Device of tensors for the process group's backend: the GPU under NCCL, else the CPU."""
    if is_distributed() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def on_rank_zero(function: Callable[[], T]) -> T:
    """Run `function` on rank 0 and return its result on every rank (pickled).

    An exception on rank 0 is raised on every rank, so that no rank waits for a result that will
    never come: the original one on rank 0, a PeerError that quotes it elsewhere.
    """
    if world_size() == 1:
        return function()
    result: Any = None
    outcome: list[Any] = [None, None]
    error: Exception | None = None
    if rank() == 0:
        try:
            result = function()
            # Here, so that a result that cannot be pickled is an error like any other.
            outcome[0] = pickle.dumps(result)
        except Exception as exception:
            error = exception
            outcome[1] = f"{type(exception).__name__}: {exception}"
    dist.broadcast_object_list(outcome, src=0, group=_patient_group)
    if error is not None:
        raise error
    if outcome[1] is not None:
        raise PeerError(f"rank 0 failed, so rank {rank()} stops: {outcome[1]}")
    return result if rank() == 0 else pickle.loads(outcome[0])


@contextmanager
def agreed() -> Iterator[None]:
    """Let an error in the block, which every rank runs on its own, end it on all ranks; a collective at its end.

    Raises:
        Exception: the block's own, on a rank where it failed.
        PeerError: on the others; names the ranks that failed and their errors.
    """
    if world_size() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as exception:
        error = exception
    messages = gather_objects(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    failed = [f"rank {r}: {message}" for r, message in enumerate(messages) if message is not None]
    if failed:
        raise PeerError("; ".join(failed))


def gather_objects(value: T) -> list[T]:
    """The `value` of every rank (pickled), in the order of ranks, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_patient_group)
    return values


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of `tensor` over all ranks, as a new tensor on `tensor`'s device."""
    if world_size() == 1:
        return tensor.clone()
    # The backends take contiguous memory only; a copy keeps a transposed tensor's strides.
    total = tensor.to(collective_device(), copy=True).contiguous()
    dist.all_reduce(total)
    return total.to(tensor.device)
