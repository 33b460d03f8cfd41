"""IA3, BEFT and layer norm tuning: vectors and biases of a model are trained, no matrices."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.limits import ZERO3
from trex_ds.methods.peft import Excluded, PeftMethod, Targets


@method
class IA3(Excluded, Targets, PeftMethod):
    """IA3 (arXiv 2205.05638)."""

    method: Literal["ia3"] = "ia3"
    target_modules: list[str] | str | None = None
    """Names or regex of the modules to adapt; null: PEFT's choice for the kind of model."""
    feedforward_modules: list[str] | str | None = None
    """Modules among target_modules whose input is scaled, not their output; null: PEFT's choice."""

    peft_type = "IA3"

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        found = super().problems()
        targets, feedforward = self.target_modules, self.feedforward_modules
        if isinstance(feedforward, list) and isinstance(targets, list) and (others := set(feedforward) - set(targets)):
            found.append(
                f"feedforward_modules: {', '.join(sorted(others))} must be among target_modules too, which are "
                f"{', '.join(targets)}"
            )
        return found


@method
class Beft(Targets, PeftMethod):
    """BEFT (arXiv 2509.15974)."""

    method: Literal["beft"] = "beft"

    peft_type = "BEFT"


@method
class LnTuning(Excluded, PeftMethod):
    """Layer norm tuning (arXiv 2312.11420)."""

    method: Literal["ln_tuning"] = "ln_tuning"
    target_modules: list[str] | str | None = None
    """Names or regex of the modules to adapt; null: PEFT's choice for the kind of model."""
    modules_to_save: list[str] | str | None = None
    """Other modules to train in full and to save with the adapter."""

    peft_type = "LN_TUNING"
    refuses = {ZERO3: "PEFT trains copies of the norms, and sharded ones cannot be copied"}
