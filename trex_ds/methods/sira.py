"""SiRA: LoRA experts of which each token uses its top k, with a capacity and a balance loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.molora import MoLoraFields
from trex_ds.methods.routed import RoutedMethod


@dataclass
class SiraFields(MoLoraFields):
    """Fields of SiRA."""

    top_k: int = 4
    """Experts that a token uses."""
    capacity_factor: float = 1.25
    """Most tokens of a training batch that an expert takes, over its even share of them."""
    balance_weight: float = 0.01
    """Weight of the balance loss."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        sizes = super().problems() + checks.whole(self, "top_k")
        found = sizes or checks.at_most(self, "top_k", "num_experts")
        return found + checks.positive(self, "capacity_factor") + checks.not_negative(self, "balance_weight")


@method
class Sira(SiraFields, RoutedMethod):
    """SiRA (arXiv 2311.09179): the top k LoRA experts that have room."""

    method: Literal["sira"] = "sira"

    peft_type = "SIRA"
