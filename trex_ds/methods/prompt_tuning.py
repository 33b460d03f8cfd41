"""Prompt tuning: embeddings in front of the prompt are trained."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.limits import PACKING
from trex_ds.methods.peft import PeftMethod


@method
class PromptTuning(PeftMethod):
    """Prompt tuning (arXiv 2104.08691)."""

    method: Literal["prompt_tuning"] = "prompt_tuning"
    num_virtual_tokens: int = 20
    """Trained embeddings in front of every prompt."""

    peft_type = "PROMPT_TUNING"
    refuses = {PACKING: "the trained embeddings stand in front of a row, and only its first example has them before it"}
    not_planned = "its passes are longer than their rows, and a plan's are not"
