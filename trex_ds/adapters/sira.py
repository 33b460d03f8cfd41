"""SiRA: LoRA experts of which each token uses its top k, with a capacity and a balance loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trex_ds.adapters.molora import SoftmaxExperts
from trex_ds.adapters.peft_type import routed_method
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32, top_k_mask
from trex_ds.methods.sira import SiraFields


@routed_method("SIRA")
@dataclass
class SiraConfig(SiraFields, RoutedConfig):
    """Configuration of SiRA (arXiv 2311.09179, section 3), without its expert dropout.

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return SiraRouter(
            in_features,
            self.num_experts,
            self.r,
            self.scale,
            top_k=self.top_k,
            capacity_factor=self.capacity_factor,
            balance_weight=self.balance_weight,
        )


class SiraRouter(SoftmaxExperts):
    """Diagonal G: the softmax over experts where a token chose the expert and the expert had room, else 0.

    Room is counted over the tokens of the whole batch in their order, padding among them, so rows should be
    packed; and in training only: answers must not depend on what else is in a batch. The balance loss is that
    of switch transformers (arXiv 2101.03961, section 2.2): E times the sum over experts of the share of choices
    times the mean of the softmax.

    Args:
        in_features: n, size of the linear's input.
        num_experts: E.
        r: LoRA rank of an expert.
        scale: of the whole update.
        top_k: experts that a token uses.
        capacity_factor: an expert's room over its even share, top_k * tokens / E.
        balance_weight: of the balance loss.
    """

    def __init__(
        self,
        in_features: int,
        num_experts: int,
        r: int,
        scale: float,
        *,
        top_k: int,
        capacity_factor: float,
        balance_weight: float,
    ):
        super().__init__(in_features, num_experts, r, scale)
        self.top_k = top_k
        self.capacity_factor = capacity_factor
        self.balance_weight = balance_weight

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        gates = torch.softmax(at_least_float32(given.logits), dim=-1)
        num_experts = gates.shape[-1]
        chosen = top_k_mask(gates, self.top_k)
        share = chosen.flatten(0, -2).mean(dim=0) / self.top_k
        loss = num_experts * (share * gates.flatten(0, -2).mean(dim=0)).sum()
        if self.training:
            tokens = gates.shape[:-1].numel()
            capacity = math.ceil(self.capacity_factor * self.top_k * tokens / num_experts)
            place = chosen.flatten(0, -2).cumsum(dim=0).view_as(chosen)
            chosen = chosen * (place <= capacity)
        G = (self.scale * gates * chosen).repeat_interleave(self.r, dim=-1)
        return Mixed(G * at_least_float32(given.a), self.balance_weight * loss.unsqueeze(0))
