"""AdaLoRA: LoRA ranks are pruned while it trains."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.limits import BFLOAT16, HELD_OUT, RESUMING, ZERO
from trex_ds.methods.peft import Excluded, Layers, PeftMethod, Targets

_UNKNOWN_STEPS = 2**31  # PEFT wants a number before training has one


@method
class AdaLora(Layers, Excluded, Targets, PeftMethod):
    """AdaLoRA (arXiv 2303.10512)."""

    method: Literal["adalora"] = "adalora"
    init_r: int = 12
    """LoRA rank of every linear at the start."""
    target_r: int = 8
    """Mean LoRA rank of the linears at the end."""
    lora_alpha: int = 8
    """Scale: updates are multiplied by lora_alpha / r."""
    lora_dropout: float = 0.0
    """Dropout on the adapter's input."""
    tinit: int = 0
    """Training steps before AdaLoRA starts pruning."""
    tfinal: int = 0
    """Training steps at the end, after the last LoRA ranks are pruned."""

    peft_type = "ADALORA"
    constants = {"total_step": _UNKNOWN_STEPS}
    refuses = {
        ZERO: "AdaLoRA sets weights to zero between steps, and ZeRO's own copies would bring them back",
        BFLOAT16: "AdaLoRA sets weights to zero between steps, and float32 copies would bring them back",
        HELD_OUT: "an adapter whose LoRA ranks have changed since cannot be put back into the model",
        RESUMING: "AdaLoRA's LoRA ranks and their scores are not part of a checkpoint",
    }
    lora_based = True
    not_planned = "it trains without ZeRO, and a plan knows stages 1 to 3"

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        found = super().problems()
        if not found and self.target_r >= self.init_r:
            found.append(f"target_r: must lie between 0 and init_r = {self.init_r}, got {self.target_r!r}")
        return found or self.problems_with_steps(_UNKNOWN_STEPS)

    def problems_with_steps(self, steps: int) -> list[str]:
        """A line if no step is left to prune in."""
        problem = no_steps_left(self.tinit, self.tfinal, steps)
        return [] if problem is None else [problem]


def no_steps_left(tinit: int, tfinal: int, steps: int) -> str | None:
    """What is wrong with AdaLoRA's two fields in a training of `steps` optimizer steps; None: nothing."""
    if tinit + tfinal < steps:
        return None
    return (
        f"tinit: {tinit} and tfinal {tfinal} leave none of the {steps} steps of training to prune LoRA ranks in; "
        "make them smaller"
    )
