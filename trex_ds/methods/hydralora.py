"""HydraLoRA: one A that all share, several heads B, mixed by a softmax of the token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.routed import RankFields, RoutedMethod


@dataclass
class HydraLoraFields(RankFields):
    """Fields of HydraLoRA."""

    num_heads: int = 3
    """Heads B_k that share one A."""
    r: int = 8
    """LoRA rank of A and of each head."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        return super().problems() + checks.whole(self, "num_heads")

    @property
    def num_out(self) -> int:
        """The heads' columns, one head after the other."""
        return self.num_heads * self.r


@method
class HydraLora(HydraLoraFields, RoutedMethod):
    """HydraLoRA (arXiv 2404.19245): one A, and a softmax over several B."""

    method: Literal["hydralora"] = "hydralora"

    peft_type = "HYDRALORA"
