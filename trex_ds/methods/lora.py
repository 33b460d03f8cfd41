"""LoRA, and its kinds in PEFT that differ in a switch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.limits import FOUR_BITS
from trex_ds.methods.peft import READS_WEIGHT, Excluded, Layers, PeftMethod, Targets

EQUAL_LORA = "lora_equal"
"""Name of the LoRA with as many trained parameters as what it is compared with, on the same linears."""


@dataclass
class LoraFields(Layers, Excluded, Targets):
    """Fields of every kind of LoRA."""

    r: int = 8
    """LoRA rank."""
    lora_alpha: int = 8
    """Scale: updates are multiplied by lora_alpha / r (by lora_alpha / sqrt(r) in rslora)."""
    lora_dropout: float = 0.0
    """Dropout on the adapter's input."""


@method
class Lora(LoraFields, PeftMethod):
    """LoRA (arXiv 2106.09685)."""

    method: Literal["lora"] = "lora"

    peft_type = "LORA"
    lora_based = True


@method
class RsLora(LoraFields, PeftMethod):
    """rsLoRA (arXiv 2312.03732): LoRA with another scale."""

    method: Literal["rslora"] = "rslora"

    peft_type = "LORA"
    constants = {"use_rslora": True}
    lora_based = True


@method
class Dora(LoraFields, PeftMethod):
    """DoRA (arXiv 2402.09353): LoRA, and the norm of each row of the weight."""

    method: Literal["dora"] = "dora"

    peft_type = "LORA"
    constants = {"use_dora": True}
    refuses = {FOUR_BITS: READS_WEIGHT}
    lora_based = True
