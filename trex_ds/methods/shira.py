"""SHiRA: a few of the weights themselves are trained."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.limits import FOUR_BITS
from trex_ds.methods.peft import READS_WEIGHT, PeftMethod, Targets


@method
class Shira(Targets, PeftMethod):
    """SHiRA (arXiv 2406.13175)."""

    method: Literal["shira"] = "shira"
    r: int = 32
    """LoRA rank with as many parameters as weights are trained."""
    random_seed: int | None = 0
    """Seed of the choice of weights that are trained."""

    peft_type = "SHIRA"
    refuses = {FOUR_BITS: READS_WEIGHT}
    not_planned = "PEFT looks for its weights in a mask, and a plan's tensors have no values"
