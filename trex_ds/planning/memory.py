"""Bytes that each rank needs, by part and by place, from a recorded pass and a DeepSpeed configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import nn

from trex_ds.planning.gathers import Gathers
from trex_ds.planning.settings import ZeroSettings
from trex_ds.planning.step_profile import StepProfile

_FLOAT32 = 4
# Stages 1 and 2 make their flat buffer a multiple of this for each rank (DeepSpeed's nccl_start_alignment_factor).
_ALIGNMENT = 2
# In float32, for each parameter of a rank's share: the gradient, and two intermediate results of AdamW.
_STEP_COPIES = 3


@dataclass
class Memory:
    """Bytes of one rank by part; what a rank keeps between steps, and what a step adds at its worst moment."""

    kept: dict[str, int]
    """Bytes on the device: base, adapter, optimizer, gradients."""
    gathered: int
    """Whole weights (ZeRO-3) or reduction buffers, at the worst moment of a pass."""
    activations: int
    """Bytes of activations at that moment."""
    saved: int
    """Activations and gathered weights when the backward pass begins."""
    step: int
    """What the optimizer's step adds."""
    cpu: dict[str, int] = field(default_factory=dict)
    nvme: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes on the device at the worst moment, without what CUDA itself takes."""
        return sum(self.kept.values()) + max(self.gathered + self.activations, self.step)


def memory(
    model: nn.Module,
    profile: StepProfile,
    settings: ZeroSettings,
    world: int,
    micro_batch: int,
    gathers: Gathers | None,
) -> Memory:
    """What a rank needs to train.

    Args:
        model: of `meta_model`.
        profile: its pass over one row.
        settings: how it is sharded.
        world: ranks.
        micro_batch: rows of a pass.
        gathers: of the pass under these settings, for ZeRO-3.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    size = trained[0].itemsize
    if gathers is not None:
        share = sum(math.ceil(p.numel() / world) for p in trained)
        shards = sum(math.ceil(p.numel() / world) * p.itemsize for p in frozen)
        weights = {"base": shards, "adapter": share * size}
        whole = _persistent(model, settings, world)
    else:
        padded = _up(sum(p.numel() for p in trained), _ALIGNMENT * world)
        share = padded // world
        weights = {"base": sum(p.numel() * p.itemsize for p in frozen), "adapter": padded * size}
        whole = {}
    # The master copy and two moments; weights in float32 have a master copy too.
    optimizer = {"optimizer": 3 * share * _FLOAT32}
    bucket = int(settings.zero.reduce_bucket_size) * size
    gradients = share * size if settings.stage > 1 else share * size * world

    places: dict[str, dict[str, int]] = {"device": {}, "cpu": {}, "nvme": {}}
    places[settings.weights_on] |= weights
    places[settings.optimizer_on] |= optimizer
    kept = places["device"]
    for part, held in whole.items():
        kept[part] = kept.get(part, 0) + held
    step = _STEP_COPIES * share * _FLOAT32
    if settings.optimizer_on != "device":
        places["cpu"]["gradients"] = gradients + share * _FLOAT32
        gradients = step = 0
    if settings.weights_on == "nvme":
        offload = settings.zero.offload_param
        places["cpu"]["buffers"] = offload.buffer_count * int(offload.buffer_size) * size
    if gathers is not None:
        kept["gradients"] = gradients + (bucket if settings.zero.contiguous_gradients else 0)
        live = gathers.live
        step = max(step, gathers.persistent_bytes)
    else:
        buffers = bucket * (2 if settings.zero.overlap_comm else 1) + gradients
        # They come with the first gradient and go with the optimizer's step.
        begun = [event.backward_begun and not event.fetch for event in profile.events]
        live = [0, *(buffers if b else 0 for b in begun)]
        step += gradients
    activations = [peak * micro_batch for peak in profile.peaks]
    gathered, active = max(zip(live, activations, strict=True), key=sum)
    saved = profile.saved * micro_batch + (gathers.saved if gathers is not None else 0)
    return Memory(kept, gathered, active, saved, step, places["cpu"], places["nvme"])


def _persistent(model: nn.Module, settings: ZeroSettings, world: int) -> dict[str, int]:
    """Whole copies, padded, that ZeRO-3 keeps of small parameters beside their shards."""
    held = {"base": 0, "adapter": 0}
    for parameter in model.parameters():
        if parameter.numel() <= settings.zero.param_persistence_threshold:
            held["adapter" if parameter.requires_grad else "base"] += (
                _up(parameter.numel(), world) * parameter.itemsize if world > 1 else 0
            )
    return held


def _up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple
