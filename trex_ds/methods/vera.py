"""VeRA and RandLoRA: trained scales of random matrices that all linears share."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.peft import Layers, PeftMethod, Targets, is_finite_and_not_zero


@method
class Vera(Layers, Targets, PeftMethod):
    """VeRA (arXiv 2310.11454)."""

    method: Literal["vera"] = "vera"
    r: int = 256
    """LoRA rank of the shared projections."""
    d_initial: float = 0.1
    """Start of the trained scales of the projections."""
    vera_dropout: float = 0.0
    """Dropout on the adapter's input."""

    peft_type = "VERA"
    lora_based = True

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        what = "must be finite and not 0, from which nothing is learned"
        return super().problems() + checks.check(self, ("d_initial",), is_finite_and_not_zero, what)


@method
class RandLora(Layers, Targets, PeftMethod):
    """RandLoRA (arXiv 2502.00987)."""

    method: Literal["randlora"] = "randlora"
    r: int = 32
    """LoRA rank of each random matrix."""
    randlora_alpha: int = 640
    """Scale: updates are multiplied by randlora_alpha / r."""
    randlora_dropout: float = 0.0
    """Dropout on the adapter's input."""

    peft_type = "RANDLORA"
    lora_based = True
