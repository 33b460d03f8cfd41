"""What ZeRO-3 gathers in a pass: DeepSpeed's own schedule, run over a recorded pass without any data."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import torch
from deepspeed.runtime.zero import partitioned_param_coordinator as coordination
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import OffloadDeviceEnum
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus, _init_external_params
from torch import nn

from trex_ds.adapters.layer import RoutedLinear
from trex_ds.planning.step_profile import Event, StepProfile

# The coordinator records the order of modules in the first pass. What it decides in the second, where it first looks
# ahead, it keeps to; so the steps before the one that is looked at matter, and the optimizer's part in them.
_STEPS = 3


@dataclass
class Gathers:
    """One pass (forward and backward) on one rank, once the schedule has settled."""

    gathered_bytes: int = 0
    """Sizes of the weights that were gathered, with padding; a rank receives (world - 1) / world of them."""
    count: int = 0
    """Collectives; none if there is one rank."""
    persistent_bytes: int = 0
    """Bytes of weights that stay whole on every rank; each is gathered by itself after an optimizer step."""
    persistent_parameters: int = 0
    live: list[int] = field(default_factory=list)
    """The most bytes of gathered weights before the first event and from each event until the next, persistent ones
    left out."""
    saved: int = 0
    """Bytes that are whole when the backward pass begins."""


def replay(model: nn.Module, profile: StepProfile, zero: DeepSpeedZeroConfig, world: int, passes: int) -> Gathers:
    """The gathers of a step's last pass under a DeepSpeed configuration with ZeRO-3.

    Args:
        model: the model that was profiled.
        profile: its pass.
        zero: the thresholds.
        world: ranks.
        passes: forward and backward passes of an optimizer step; more than two make no difference.
    """
    copied = zero.offload_param is not None and zero.offload_param.device != OffloadDeviceEnum.none
    with _sharded(model, zero, _Ledger(world, copied)) as ledger, _without_process_group() as graph_task:
        coordinator = coordination.PartitionedParameterCoordinator(
            prefetch_bucket_sz=int(zero.prefetch_bucket_size),
            max_reuse_distance_in_numel=int(zero.max_reuse_distance),
            max_available_parameters_in_numel=int(zero.max_live_parameters),
            allgather_stream=coordination.get_accelerator().default_stream(),
            inflight_param_registry=coordination.InflightParamRegistry(),
            prefetch_nvme=False,
        )
        for step in range(_STEPS):
            if step > 0:
                ledger.optimizer_step(model)
            for _ in range(min(passes, 2)):
                ledger.start_pass()
                coordinator.reset_step()
                for event in profile.events:
                    graph_task.return_value = 0 if event.recomputing else -1
                    _apply(coordinator, event)
                    ledger.finish_event(event)
                coordinator.release_backward_leftovers()
    return ledger.gathers


def _apply(coordinator: Any, event: Event) -> None:
    if not event.fetch:
        coordinator.release_sub_module(event.module, event.forward)
        return
    coordinator.trace_prologue(event.module)
    if coordinator.is_record_trace():
        coordinator.record_module(event.module)
    coordinator.fetch_sub_module(event.module, event.forward)


class _Ledger:
    """Counts gathers and what they hold; stands in for DeepSpeed's partitioned storage."""

    def __init__(self, world: int, copied: bool):
        self.world = world
        self._copied = copied or world > 1  # one rank uses the weights that it keeps, unless they are kept elsewhere
        self.gathers = Gathers()
        self._live = self._peak = 0

    def start_pass(self) -> None:
        kept = self.gathers
        self.gathers = Gathers(persistent_bytes=kept.persistent_bytes, persistent_parameters=kept.persistent_parameters)
        self.gathers.live.append(self._live)
        self._peak = self._live

    def optimizer_step(self, model: nn.Module) -> None:
        """Everything is sharded, and what persists is gathered again."""
        parameter: Any  # with what DeepSpeed's partitioning gives it
        for parameter in model.parameters():
            status = ZeroParamStatus.AVAILABLE if parameter.ds_persist else ZeroParamStatus.NOT_AVAILABLE
            parameter.ds_status = status
        self._live = 0

    def finish_event(self, event: Event) -> None:
        if not event.backward_begun:
            self.gathers.saved = self._live
        self.gathers.live.append(self._peak)
        self._peak = self._live

    def gather(self, parameters: Iterable[Any], quantize: bool = False) -> Any:
        parameters = list(parameters)
        for parameter in parameters:
            parameter.ds_status = ZeroParamStatus.INFLIGHT
        if self.world > 1:
            # One collective for each type, as its buffer has one.
            self.gathers.count += len({p.dtype for p in parameters})
        size = sum(map(self.padded, parameters))
        self.gathers.gathered_bytes += size
        handle = _Handle(self, parameters, size)
        self._hold(size)
        if len(parameters) > 1 and self.world > 1:
            # Each is copied out of the common buffer, which stays until the last of them has been asked for.
            weakref.finalize(handle, self._hold, -size)
        return handle

    def arrive(self, parameters: list[Any], size: int) -> None:
        for parameter in parameters:
            parameter.ds_status = ZeroParamStatus.AVAILABLE
        if len(parameters) > 1 and self.world > 1:
            self._hold(size)

    def release(self, parameter: Any, free_data: bool = True) -> None:
        parameter.ds_status = ZeroParamStatus.NOT_AVAILABLE
        self._hold(-self.padded(parameter))

    def padded(self, parameter: nn.Parameter) -> int:
        return math.ceil(parameter.numel() / self.world) * self.world * parameter.itemsize

    def _hold(self, size: int) -> None:
        self._live += size if self._copied else 0
        self._peak = max(self._peak, self._live)


class _Handle:
    def __init__(self, ledger: _Ledger, parameters: list[Any], size: int):
        self._arrived = False
        self._arrive = partial(ledger.arrive, parameters, size)

    def wait(self, handle_dependency: bool = True) -> None:
        if not self._arrived:
            self._arrived = True
            self._arrive()


@contextmanager
def _sharded(model: nn.Module, zero: DeepSpeedZeroConfig, ledger: _Ledger) -> Iterator[_Ledger]:
    """Give the parameters what DeepSpeed's partitioning gives them, but for the data."""
    for module in model.modules():
        _init_external_params(module)
        if isinstance(module, RoutedLinear):  # as its forward does
            for tensor in module.adapter_tensors():
                cast(Any, module)._external_params[id(tensor)] = tensor
    persistent = 0
    parameter: Any
    for number, parameter in enumerate(model.parameters()):
        size = parameter.numel()
        parameter.ds_id, parameter.ds_numel, parameter.ds_shape = number, size, parameter.shape
        parameter.ds_persist = size <= zero.param_persistence_threshold and (
            persistent + size <= zero.model_persistence_threshold
        )
        if parameter.ds_persist:
            persistent += size
            ledger.gathers.persistent_parameters += 1
            ledger.gathers.persistent_bytes += ledger.padded(parameter)
        parameter.ds_status = ZeroParamStatus.NOT_AVAILABLE
        parameter.ds_active_sub_modules = set()
        parameter.is_external_param = False
        parameter.ds_secondary_tensor = parameter.nvme_swapper = None
        parameter.ds_tensor = SimpleNamespace(final_location=None)
        parameter.partition_numel = lambda size=size: math.ceil(size / ledger.world)
        parameter.all_gather_coalesced = ledger.gather
        parameter.partition = lambda p=parameter, free_data=True: ledger.release(p, free_data)
        parameter.ds_summary = lambda use_debug_name=False, number=number: {"id": number}
    try:
        yield ledger
    finally:
        for parameter in model.parameters():
            for name in [name for name in vars(parameter) if name.startswith("ds_")]:
                delattr(parameter, name)
            for name in ("is_external_param", "nvme_swapper", "partition_numel", "all_gather_coalesced", "partition"):
                delattr(parameter, name)


@contextmanager
def _without_process_group() -> Iterator[mock.MagicMock]:
    """Let the coordinator run in one process; the yielded mock answers for the autograd engine."""
    quiet, agreed = (mock.patch.object(coordination, n) for n in ("print_rank_0", "assert_ints_same_as_other_ranks"))
    with quiet, agreed, mock.patch.object(torch._C, "_current_graph_task_id") as graph_task:
        yield graph_task
