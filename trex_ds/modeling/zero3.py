"""ZeRO-3's sharded weights: switched on and off, made whole for a while, and freed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def own_sharding() -> Iterator[None]:
    """Keep a training's ZeRO-3 configuration to the block.

    transformers shards every model that is loaded while it knows of a ZeRO-3 configuration, which each Trainer leaves
    behind: an embedder that the block loads first, or a model that the process loads after it.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        unset_hf_deepspeed_config()


@contextmanager
def whole_weights(engine: Any) -> Iterator[None]:
    """Give every rank the whole model for the block; a collective.

    Generation under ZeRO-3 otherwise gathers every weight again for every new token. With the weights
    whole and DeepSpeed's gathering hooks taken off, a forward pass costs what it costs without ZeRO-3.
    Every rank must have memory for all weights. Outside ZeRO-3 this does nothing.

    Args:
        engine: the DeepSpeed engine, or any model, which is left as it is.
    """
    offload = getattr(getattr(engine, "optimizer", None), "parameter_offload", None)
    if offload is None:
        yield
        return
    import deepspeed

    parameters = list(engine.parameters())
    with deepspeed.zero.GatheredParameters(parameters):
        # Left on, the hooks would shard each module again after its forward.
        for hook in (*offload.forward_hooks, *offload.backward_hooks, offload.fwd_pre_hook):
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        for parameter in parameters:
            parameter.ds_active_sub_modules.clear()
        try:
            yield
        finally:
            offload.setup_zero_stage3_hooks()


def forget_models() -> None:
    """Free the models that trainings have left behind; none may be in use any more.

    DeepSpeed 0.19 keeps them for the whole process: by hooks on gradients, which Python's collector does not see
    through, and under ZeRO-3 in FWD_MODULE_STACK and as arguments in the cache of a method.
    """
    from deepspeed import DeepSpeedEngine
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    # After a failure nobody has a name for the engine.
    for engine in [thing for thing in gc.get_objects() if issubclass(type(thing), DeepSpeedEngine)]:
        engine.destroy()
    parameter_offload.FWD_MODULE_STACK.clear()
    cached = vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
    for cell in cached.__closure__:  # of a wrapper that has no other way to what it wraps
        getattr(cell.cell_contents, "cache_clear", lambda: None)()
    gc.collect()  # engines, optimizers and hooks refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
