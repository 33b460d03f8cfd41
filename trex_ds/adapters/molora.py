"""MoLoRA, and the forward of LoRAMoE: LoRA experts, all of them mixed by a softmax of the token."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from trex_ds.adapters.peft_type import add_peft_type
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Mixed, Router, at_least_float32

add_peft_type("MOLORA")


@dataclass
class MoLoraConfig(RoutedConfig):
    """Configuration of MoLoRA (arXiv 2309.05444, section 3; LoRAMoE, arXiv 2312.09979, without its balance loss).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    method: ClassVar[str] = "molora"

    num_experts: int = field(default=8, metadata={"help": "LoRA experts of each linear"})
    r: int = field(default=4, metadata={"help": "rank of each expert"})
    lora_alpha: float | None = field(
        default=None, metadata={"help": "the update is scaled by lora_alpha / r; 2 r if null"}
    )

    def problems(self) -> list[str]:
        """See `RoutedConfig.problems`."""
        return self.not_positive("num_experts", "r")

    @property
    def scale(self) -> float:
        """lora_alpha / r."""
        return 2.0 if self.lora_alpha is None else self.lora_alpha / self.r

    @property
    def num_in(self) -> int:
        """The experts' ranks, one expert after the other."""
        return self.num_experts * self.r

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return SoftmaxExperts(in_features, self.num_experts, self.r, self.scale)


class SoftmaxExperts(Router):
    """Diagonal G: the softmax of W_r x over the experts, repeated over the ranks of each.

        y = W0 x + scale * sum_e softmax(W_r x)_e B_e A_e x

    Args:
        in_features: n, size of the linear's input.
        num_experts: E.
        r: ranks of an expert.
        scale: of the whole update.
    """

    def __init__(self, in_features: int, num_experts: int, r: int, scale: float):
        super().__init__()
        W_r = torch.empty(num_experts, in_features)
        nn.init.kaiming_uniform_(W_r, a=math.sqrt(5))
        self.W_r = nn.Parameter(W_r)
        self.r = r
        self.scale = scale

    def rows(self) -> Tensor:
        """W_r, (E, n)."""
        return self.W_r

    def mix(
        self, a: Tensor, logits: Tensor, others: tuple[Tensor, ...], scores: Tensor | None, token_rows: Tensor | None
    ) -> Mixed:
        """See `Router.mix`."""
        gates = torch.softmax(at_least_float32(logits), dim=-1)
        return Mixed(self.scale * gates.repeat_interleave(self.r, dim=-1) * at_least_float32(a))
