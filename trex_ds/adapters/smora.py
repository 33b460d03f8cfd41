"""SMoRA: each LoRA rank is an expert, and each token uses its top k."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trex_ds.adapters.balance import BalancedRouter
from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32, drawn, top_k_mask
from trex_ds.methods.routed import BalancedRankFields


@routed_method("SMORA")
@dataclass
class SmoraConfig(BalancedRankFields, RoutedConfig):
    """Configuration of SMoRA (arXiv 2501.15103, section 3).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return SmoraRouter(in_features, self.r, self.top_k, self.scale, self.bias_update_rate)


class SmoraRouter(BalancedRouter):
    """Diagonal G: sigmoid(W_r x) at the k LoRA ranks for which it is largest after a balancing bias is added, else 0.

    Args:
        in_features: n, size of the linear's input.
        r: LoRA rank.
        top_k: ranks that a token uses.
        scale: of the whole update.
        bias_update_rate: step of the bias.
    """

    def __init__(self, in_features: int, r: int, top_k: int, scale: float, bias_update_rate: float):
        super().__init__(r, bias_update_rate)
        self.W_r = drawn(r, in_features)
        self.top_k = top_k
        self.scale = scale

    def reading_weights(self) -> Tensor:
        """W_r, (r, n)."""
        return self.W_r

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        weights = torch.sigmoid(at_least_float32(given.logits))
        chosen = top_k_mask(weights + given.tensors["bias"], self.top_k)
        return Mixed(self.scale * weights * chosen * at_least_float32(given.a), load=chosen.flatten(0, -2).mean(dim=0))
