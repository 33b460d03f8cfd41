"""HydraLoRA: one A that all share, several heads B, mixed by a softmax of the token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trex_ds.adapters.molora import SoftmaxExperts
from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32
from trex_ds.methods.hydralora import HydraLoraFields


@routed_method("HYDRALORA")
@dataclass
class HydraLoraConfig(HydraLoraFields, RoutedConfig):
    """Configuration of HydraLoRA (arXiv 2404.19245, section 3).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return HydraLoraRouter(in_features, self.num_heads, self.r, self.scale)


class HydraLoraRouter(SoftmaxExperts):
    """G = [s_1 I | ... | s_K I] with s = softmax(W_r x):  y = W0 x + scale * sum_k s_k B_k A x."""

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        gates = torch.softmax(at_least_float32(given.logits), dim=-1)
        return Mixed(self.scale * (gates.unsqueeze(-1) * at_least_float32(given.a).unsqueeze(-2)).flatten(-2))
