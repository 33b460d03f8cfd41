"""FlyLoRA: a frozen sparse random A routes by itself; only B is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.routed import BalancedRankFields, RoutedMethod


@dataclass
class FlyLoraFields(BalancedRankFields):
    """Fields of FlyLoRA."""

    density: float = 0.25
    """Share of a row of A that is not zero."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        return super().problems() + checks.check(self, ("density",), lambda d: 0 < d <= 1, "must lie in (0, 1]")


@method
class FlyLora(FlyLoraFields, RoutedMethod):
    """FlyLoRA (arXiv 2510.08396): the top k of a LoRA's rank-one parts, whose A is sparse, random and frozen."""

    method: Literal["flylora"] = "flylora"

    peft_type = "FLYLORA"
