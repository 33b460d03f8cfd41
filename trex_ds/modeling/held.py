"""What each rank holds of a model, by role; and the proof that ZeRO-3 has sharded its base."""

from __future__ import annotations

import math
import resource
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from torch import nn

from trex_ds.distributed import gather_objects, rank, world_size
from trex_ds.modeling.quantized import Linear4bit

_ROLES = {
    "trex_A": "experts A",
    "trex_B": "experts B",
    "omega": "gates",
    "gamma": "gates",
    "mapper": "mapper",
    "trex_router": "router",
}
BASE = "base"
_OTHER = "adapter"
"""The parameters of PEFT's methods, and modules that are trained in full."""
_PREFIXES = (*PEFT_TYPE_TO_PREFIX_MAPPING.values(), "modules_to_save", "prompt_encoder")


@dataclass(frozen=True)
class Share:
    """One role's parameters, and this rank's part of them."""

    parameters: int
    """Number of logical parameters: a weight in 4 bits counts as one."""
    stored_bytes: int
    """Bytes of all of them, once."""
    held_bytes: int
    """Bytes on this rank: its shard, or everything where they are not sharded; in memory of any kind, or on disk."""

    def __add__(self, other: Share) -> Share:
        return Share(
            self.parameters + other.parameters,
            self.stored_bytes + other.stored_bytes,
            self.held_bytes + other.held_bytes,
        )


@dataclass(frozen=True)
class Held:
    """What a rank holds at some moment."""

    rank: int
    host: str
    roles: dict[str, Share]
    optimizer_bytes: int
    """Master copies and moments of this rank's shard; 0 before the first step."""
    peak_bytes: int
    """Largest use of the device's memory since `reset_peak`: allocated by torch on a GPU, else resident."""


def held_by_this_rank(model: nn.Module, optimizer: Any = None) -> Held:
    """Count what this rank holds of `model` (plain, or sharded by ZeRO-3) and of a torch `optimizer`'s states."""
    roles: dict[str, Share] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            packed = isinstance(module, Linear4bit) and own == "weight"
            logical = module.in_features * module.out_features if packed else _numel(parameter)
            share = Share(logical, _numel(parameter) * parameter.element_size(), _held_bytes(parameter))
            role = role_of(f"{name}.{own}")
            roles[role] = roles.get(role, Share(0, 0, 0)) + share
    states = [] if optimizer is None else [t for m, s in optimizer.state.items() for t in (m, *s.values())]
    optimizer_bytes = sum(t.nbytes for t in states if torch.is_tensor(t))
    return Held(rank(), socket.gethostname(), roles, optimizer_bytes, peak_bytes())


def held_by_all_ranks(model: nn.Module, optimizer: Any = None) -> list[Held]:
    """`held_by_this_rank` of every rank, on every rank; a collective."""
    return gather_objects(held_by_this_rank(model, optimizer))


def check_sharded(model: nn.Module) -> None:
    """Refuse a base model that ZeRO-3 should have sharded, of which this rank holds more than its part.

    What DeepSpeed keeps whole because it is small (stage3_param_persistence_threshold) may do so.

    Raises:
        RuntimeError: naming the first parameter that is more than this rank's part, and its size.
    """
    for name, parameter in model.named_parameters():
        if role_of(name) != BASE or getattr(parameter, "ds_persist", False):
            continue
        own_part = math.ceil(_numel(parameter) / world_size()) * parameter.element_size()
        if not hasattr(parameter, "ds_tensor") or _held_bytes(parameter) > own_part:
            raise RuntimeError(
                f"ZeRO-3 was asked for, but the base model was not sharded: {_held_bytes(parameter):,} "
                f"bytes of {name} lie on this rank, whose part is {own_part:,}"
            )


def peak_bytes() -> int:
    """Largest use of the device's memory since `reset_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Forget the peak so far."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # where the kernel does not allow it, the peak is that of the process's life
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def role_of(name: str) -> str:
    """Role of a parameter of an adapted model, by its name."""
    parts = name.split(".")
    if any(part.startswith("trex_") for part in parts):
        return next(role for part, role in _ROLES.items() if part in parts)
    return _OTHER if any(part.startswith(_PREFIXES) for part in parts) else BASE


def trainable_parameters(model: nn.Module) -> int:
    """Number of trained parameters, whole or sharded."""
    return sum(_numel(parameter) for parameter in model.parameters() if parameter.requires_grad)


def _numel(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())


def _held_bytes(parameter: nn.Parameter) -> int:
    shard = getattr(parameter, "ds_tensor", None)
    if shard is None:
        return parameter.nbytes
    # Its data is empty but while it is gathered; the shard of a single rank serves as the whole.
    gathered = 0 if parameter.data.data_ptr() == shard.data_ptr() else parameter.data.nbytes
    return shard.ds_numel * parameter.element_size() + gathered
