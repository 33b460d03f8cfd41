"""A forward and a backward pass on the meta device: what they keep and compute, and when they need weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
from torch import Tensor, nn

from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.config import ConfigError
from trex_ds.planning.attention import FusedAttention
from trex_ds.planning.live_bytes import LiveBytes


class Event(NamedTuple):
    """A moment at which ZeRO-3 gathers or frees the weights of a module."""

    module: nn.Module
    fetch: bool
    forward: bool
    recomputing: bool
    """Whether checkpointing runs the module's forward within a backward pass."""
    backward_begun: bool


@dataclass
class StepProfile:
    """A pass over one row of tokens; what rows take grows with their number, and weights are left out."""

    events: list[Event]
    peaks: list[int]
    """The most bytes alive before the first event, and after each of them until the next."""
    saved: int
    """Bytes alive when the backward pass begins: activations, or with checkpointing the blocks' inputs, and logits."""
    flops: int
    """Floating-point operations of both passes, without element-wise ones; causality saves none."""


def profile(model: Any, row_length: int, answers: int, checkpointing: bool, attention: str) -> StepProfile:
    """Run `TRexTrainer.compute_loss` and its backward for one row.

    Args:
        model: of `meta_model`.
        row_length: tokens of the row.
        answers: how many of them are predicted, at least 1.
        checkpointing: whether blocks are recomputed in backward.
        attention: `ModelConfig.attention`; flash attention takes no mask.

    Raises:
        ConfigError: for a model that cannot run on the meta device.
    """
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    elif model.is_gradient_checkpointing:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
    # What a rank keeps of gradients is counted apart, since it does not grow with the rows.
    freeing = [
        p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        for p in model.parameters()
        if p.requires_grad
    ]
    recorder = _Recorder()
    hooks = _zero3_hooks(model, recorder)
    attention_flops = FusedAttention.flops
    try:
        with LiveBytes() as tracker:
            recorder.tracker = tracker
            loss = _loss(model, row_length, answers, "flash" not in attention)
            recorder.saved = tracker.live
            loss.backward()
            recorder.peaks.append(tracker.take_peak())
    except RuntimeError as error:
        reason = "cannot be planned, because it does not run without data (on the meta device)"
        raise ConfigError([f"model.name: a {type(model.get_base_model()).__name__} {reason}: {error}"]) from error
    finally:
        for handle in (*freeing, *hooks.forward_hooks, *hooks.backward_hooks, hooks.fwd_pre_hook):
            handle.remove()
    flops = tracker.flops + FusedAttention.flops - attention_flops
    return StepProfile(recorder.events, recorder.peaks, recorder.saved, flops)


def _loss(model: Any, row_length: int, answers: int, mask: bool) -> Tensor:
    empty = partial(torch.empty, device="meta")
    whole = torch.int64
    ids, positions, labels = (empty(1, row_length, dtype=whole) for _ in range(3))
    chosen = empty(answers, dtype=whole)
    config = model.active_peft_config
    routed = isinstance(config, RoutedConfig) and config.needs_intuition
    side_input = {"intuition": empty(1, config.num_clusters)} if routed else {}
    outputs = model(
        input_ids=ids,
        position_ids=positions,
        # Rows of several examples have a mask of every token for every other.
        attention_mask=empty(1, 1, row_length, row_length, dtype=torch.bool) if mask else None,
        **side_input,
        logits_to_keep=chosen,
        use_cache=False,
    )
    logits = outputs.logits.flatten(0, 1).to(torch.promote_types(outputs.logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(logits, labels[0][chosen], reduction="sum")


def _zero3_hooks(model: nn.Module, recorder: _Recorder) -> DeepSpeedZeRoOffload:
    """DeepSpeed's own hooks on every module, reporting to `recorder` in place of what gathers and frees."""
    hooks = object.__new__(DeepSpeedZeRoOffload)
    hooks.module, hooks.param_coordinator, hooks.zenflow = model, recorder, False
    hooks.forward_hooks, hooks.backward_hooks = [], []
    for module in model.modules():
        # They keep the class of the hooks that were first set, with its recorder.
        for made in ("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt"):
            module.__dict__.pop(made, None)
    hooks.setup_zero_stage3_hooks()
    return hooks


class _Recorder:
    """Stands in for DeepSpeed's PartitionedParameterCoordinator."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.peaks: list[int] = []
        self.saved = 0
        self.tracker: LiveBytes | None = None

    def fetch_sub_module(self, module: nn.Module, forward: bool) -> None:
        self._record(module, True, forward)

    def release_sub_module(self, module: nn.Module, forward: bool) -> None:
        self._record(module, False, forward)

    def _record(self, module: nn.Module, fetch: bool, forward: bool) -> None:
        assert self.tracker is not None
        self.peaks.append(self.tracker.take_peak())
        # DeepSpeed tells a recomputation by the same means.
        recomputing = forward and torch._C._current_graph_task_id() != -1
        self.events.append(Event(module, fetch, forward, recomputing, self.saved > 0))

    def reset_step(self) -> None:
        pass

    def trace_prologue(self, module: nn.Module) -> None:
        pass

    def is_record_trace(self) -> bool:
        return False

    def is_invalid_trace(self) -> bool:
        return True
