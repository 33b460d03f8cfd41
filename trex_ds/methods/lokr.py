"""LoHa and LoKr: products of low-rank matrices, entry by entry and by Kronecker's."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.limits import FOUR_BITS, ZERO3
from trex_ds.methods.peft import READS_WEIGHT, Excluded, Layers, PeftMethod, Targets


@method
class LoHa(Layers, Excluded, Targets, PeftMethod):
    """LoHa (arXiv 2108.06098)."""

    method: Literal["loha"] = "loha"
    r: int = 8
    """LoRA rank of each of the two products."""
    alpha: int = 8
    """Scale: updates are multiplied by alpha / r."""
    rank_dropout: float = 0.0
    """Probability with which each LoRA rank is dropped in training."""

    peft_type = "LOHA"
    refuses = {
        FOUR_BITS: READS_WEIGHT,
        ZERO3: "PEFT's LoHa takes its sizes from the weight, and a sharded weight has none",
    }


@method
class LoKr(Layers, Excluded, Targets, PeftMethod):
    """LoKr (arXiv 2309.14859)."""

    method: Literal["lokr"] = "lokr"
    r: int = 8
    """LoRA rank of the larger factor."""
    alpha: int = 8
    """Scale: updates are multiplied by alpha / r."""
    rank_dropout: float = 0.0
    """Probability with which each LoRA rank is dropped in training."""
    decompose_both: bool = False
    """Make both Kronecker factors products of LoRA rank r, not only the larger."""
    decompose_factor: int = -1
    """Size of the smaller Kronecker factor; -1: as near to the square root as divides."""

    peft_type = "LOKR"
    refuses = {FOUR_BITS: READS_WEIGHT}

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        return super().problems() + checks.check(
            self, ("decompose_factor",), lambda value: value == -1 or value >= 1, "must be -1 or at least 1"
        )
