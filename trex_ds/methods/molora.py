"""MoLoRA, and the forward of LoRAMoE: LoRA experts, all of them mixed by a softmax of the token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.routed import RankFields, RoutedMethod


@dataclass
class MoLoraFields(RankFields):
    """Fields of MoLoRA."""

    num_experts: int = 8
    """LoRA experts of each linear."""
    r: int = 4
    """LoRA rank of each expert."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        return super().problems() + checks.whole(self, "num_experts")

    @property
    def num_in(self) -> int:
        """The experts' LoRA ranks, one expert after the other."""
        return self.num_experts * self.r


@method
class MoLora(MoLoraFields, RoutedMethod):
    """MoLoRA (arXiv 2309.05444): a softmax over LoRA experts."""

    method: Literal["molora"] = "molora"

    peft_type = "MOLORA"
