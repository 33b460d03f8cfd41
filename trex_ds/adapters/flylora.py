"""FlyLoRA: a frozen sparse random A routes by itself; only B is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trex_ds.adapters.balance import BalancedRouter
from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32, top_k_mask
from trex_ds.methods.flylora import FlyLoraFields


@routed_method("FLYLORA")
@dataclass
class FlyLoraConfig(FlyLoraFields, RoutedConfig):
    """Configuration of FlyLoRA (arXiv 2510.08396, section 3).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    def draw_in(self, in_features: int) -> Tensor:
        """Rows of normal numbers at `density * in_features` random places, of unit expected length."""
        ones = max(1, round(self.density * in_features))
        places = torch.rand(self.r, in_features).topk(ones, dim=1).indices
        return torch.zeros(self.r, in_features).scatter(1, places, torch.randn(self.r, ones) / ones**0.5)

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return FlyLoraRouter(self.r, self.top_k, self.scale, self.bias_update_rate)


class FlyLoraRouter(BalancedRouter):
    """Diagonal G: 1 at the k LoRA ranks for which |A x + bias| is largest, else 0; times the scale.

    Args:
        r: LoRA rank.
        top_k: ranks that a token uses.
        scale: of the whole update.
        bias_update_rate: step of the bias.
    """

    trains_in = False

    def __init__(self, r: int, top_k: int, scale: float, bias_update_rate: float):
        super().__init__(r, bias_update_rate)
        self.top_k = top_k
        self.scale = scale

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        a = at_least_float32(given.a)
        chosen = top_k_mask((a + given.tensors["bias"]).abs(), self.top_k)
        return Mixed(self.scale * chosen * a, load=chosen.flatten(0, -2).mean(dim=0))
