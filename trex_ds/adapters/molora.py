"""MoLoRA, and the forward of LoRAMoE: LoRA experts, all of them mixed by a softmax of the token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32, drawn
from trex_ds.methods.molora import MoLoraFields


@routed_method("MOLORA")
@dataclass
class MoLoraConfig(MoLoraFields, RoutedConfig):
    """Configuration of MoLoRA (arXiv 2309.05444, section 3; LoRAMoE, arXiv 2312.09979, without its balance loss).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return SoftmaxExperts(in_features, self.num_experts, self.r, self.scale)


class SoftmaxExperts(Router):
    """Diagonal G: the softmax of W_r x over the experts, repeated over the LoRA ranks of each.

        y = W0 x + scale * sum_e softmax(W_r x)_e B_e A_e x

    Args:
        in_features: n, size of the linear's input.
        num_experts: E.
        r: LoRA rank of an expert.
        scale: of the whole update.
    """

    def __init__(self, in_features: int, num_experts: int, r: int, scale: float):
        super().__init__()
        self.W_r = drawn(num_experts, in_features)
        self.r = r
        self.scale = scale

    def reading_weights(self) -> Tensor:
        """W_r, (E, n)."""
        return self.W_r

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        gates = torch.softmax(at_least_float32(given.logits), dim=-1)
        return Mixed(self.scale * gates.repeat_interleave(self.r, dim=-1) * at_least_float32(given.a))
