"""What the sections of PEFT's own methods share: fields of its configurations that recipes offer, and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trex_ds.methods import checks
from trex_ds.methods.base import NAME_MODULES, Method

READS_WEIGHT = "PEFT's layer reads the base weight as a matrix, and in 4 bits it is packed"
"""Why some methods refuse 4 bits."""

# What fields may hold. PEFT checks most of it when the model has been loaded, or never.
_CHECKS: dict[str, Callable[[Any, str], list[str]]] = {
    **dict.fromkeys(("r", "init_r", "target_r", "num_virtual_tokens", "n_skills", "n_splits"), checks.whole),
    **dict.fromkeys(("lora_alpha", "alpha", "randlora_alpha"), checks.positive),
    **dict.fromkeys(("lora_dropout", "vera_dropout", "randlora_dropout", "rank_dropout"), checks.dropout),
    **dict.fromkeys(("tinit", "tfinal"), checks.not_negative),
}


@dataclass
class Targets:
    """Fields that say what is adapted."""

    target_modules: list[str] | str | None = "all-linear"
    """Names or regex of the modules to adapt; null: PEFT's choice for the kind of model."""
    modules_to_save: list[str] | None = None
    """Other modules to train in full and to save with the adapter."""


@dataclass
class Excluded:
    """A field that says what is left alone."""

    exclude_modules: list[str] | str | None = None
    """Names or regex of modules to leave alone."""


@dataclass
class Layers:
    """A field that says which layers are adapted."""

    layers_to_transform: list[int] | int | None = None
    """Indices of the layers to adapt; null: all."""


class PeftMethod(Method):
    """A method of PEFT; fields have the names, types and, but for a few, the defaults of its configuration class."""

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        found = checks.places(self)
        for name, check in _CHECKS.items():
            if hasattr(self, name):
                found += check(self, name)
        if not found and self.picks_unnamed:
            found.append(
                f"layers_to_transform: PEFT forgets it, or refuses it, where target_modules is "
                f"{self.target_modules!r}; {NAME_MODULES}"  # type: ignore[attr-defined]
            )
        return found


def is_finite_and_not_zero(value: float) -> bool:
    """Whether training can start from `value`."""
    return value != 0 and math.isfinite(value)
