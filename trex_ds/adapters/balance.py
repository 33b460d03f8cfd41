"""Load balancing without a loss: a bias that only chooses, moved against each LoRA rank's load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from trex_ds.adapters.router import Router


class BalancedRouter(Router):
    """A router with a bias for each LoRA rank that is added where LoRA ranks are chosen, and nowhere else.

    `RoutedModel.update_balance` gives a LoRA rank that more than the mean share of tokens chose in the latest training
    pass a bias smaller by `bias_update_rate`, one that fewer chose a larger one (arXiv 2408.15664).
    """

    bias: Tensor

    def __init__(self, r: int, bias_update_rate: float):
        super().__init__()
        self.register_buffer("bias", torch.zeros(r))
        self.bias_update_rate = bias_update_rate

    def others(self) -> dict[str, Tensor]:
        """The bias."""
        return {"bias": self.bias}

    def update_balance(self, load: Tensor) -> None:
        """Move the bias against `load`, the share of tokens that chose each LoRA rank, (r,)."""
        # A new tensor: a pass that waits for its backward keeps the one that it saw.
        self.bias = self.bias + self.bias_update_rate * torch.sign(load.mean() - load).to(self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Steps of 0.001 are lost on a bias of 0.3 in bfloat16, so the bias stays in float32.
        before = self.bias
        super()._apply(fn, recurse)
        if self.bias.dtype in (torch.bfloat16, torch.float16):
            self.bias = self.bias.float() if before.is_meta else before.float().to(self.bias.device)
        return self


def update_balances(loads: Mapping[Any, Tensor]) -> None:
    """Update the routers by their loads, averaged over processes: a collective where there are several.

    Every process calls it with the same routers in the same order, so their biases stay equal.
    """
    if not loads:
        return
    counts = [load.numel() for load in loads.values()]
    first = next(iter(loads.values()))
    joined = torch.cat([load.float().to(first.device) for load in loads.values()])
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(joined)
        joined /= dist.get_world_size()
    for router, load in zip(loads, joined.split(counts), strict=True):
        assert isinstance(router, BalancedRouter)
        router.update_balance(load)
