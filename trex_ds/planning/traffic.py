"""Bytes that leave each rank in an optimizer step, and how many collectives carry them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from trex_ds.planning.gathers import Gathers
from trex_ds.planning.settings import ZeroSettings


@dataclass(frozen=True)
class Traffic:
    """Traffic of one rank, in rings: a rank sends (world - 1) / world of what is gathered or reduced."""

    gather_bytes: int
    """Weights, in one pass (forward and backward)."""
    gather_calls: int
    reduce_bytes: int
    """Gradients, in one pass."""
    step_bytes: int
    """Updated weights, after the optimizer's step."""
    step_calls: int
    host_bytes: int
    """Weights that come from the CPU's memory or a disk in one pass, without those that other ranks send."""
    host_step_bytes: int
    """Gradients and weights that go to an offloaded optimizer and back."""


def traffic(model: nn.Module, settings: ZeroSettings, world: int, gathers: Gathers | None) -> Traffic:
    """What a rank sends; arguments as for `trex_ds.planning.memory.memory`."""

    def sent(size: int) -> int:
        return size * (world - 1) // world

    trained = [p for p in model.parameters() if p.requires_grad]
    padded = sum(math.ceil(p.numel() / world) * world * p.itemsize for p in trained)
    size = sum(p.numel() * p.itemsize for p in trained)
    offloaded = 2 * size // world if settings.optimizer_on != "device" else 0
    if gathers is None:
        # Stages 1 and 2 sum gradients with all-reduce, which sends everything twice.
        return Traffic(0, 0, 2 * sent(size), sent(size), 1 if world > 1 else 0, 0, offloaded)
    loaded = gathers.gathered_bytes // world if settings.weights_on != "device" else 0
    return Traffic(
        sent(gathers.gathered_bytes),
        gathers.count,
        sent(padded),
        sent(gathers.persistent_bytes),
        gathers.persistent_parameters if world > 1 else 0,
        loaded,
        offloaded,
    )
