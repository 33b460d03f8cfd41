"""MoRA of "Little by Little": each LoRA rank tells from its own activation whether a token needs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32, top_k_mask
from trex_ds.methods.mora import MoraFields

_SMALLEST_NORM = 1e-6


@routed_method("MORA")
@dataclass
class MoraConfig(MoraFields, RoutedConfig):
    """Configuration of MoRA's forward ("Little by Little", arXiv 2506.21035), without its pruning between tasks.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return MoraRouter(self.top_k, self.temperature, self.scale)


class MoraRouter(Router):
    """Diagonal G: softmax of A x / (|A x| * temperature) at its k largest, else 0; times r and the scale.

    It has no parameters: the LoRA ranks route themselves. The factor r makes an even softmax LoRA's update.

    Args:
        top_k: ranks that a token uses.
        temperature: of the softmax.
        scale: of the whole update.
    """

    def __init__(self, top_k: int, temperature: float, scale: float):
        super().__init__()
        self.top_k = top_k
        self.temperature = temperature
        self.scale = scale

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        a = at_least_float32(given.a)
        normalized = a / a.norm(dim=-1, keepdim=True).clamp(min=_SMALLEST_NORM)
        weights = torch.softmax(normalized / self.temperature, dim=-1)
        return Mixed(self.scale * a.shape[-1] * weights * top_k_mask(weights, self.top_k) * a)
