"""MoRA of "Little by Little": each rank tells from its own activation whether a token needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.routed import RoutedMethod, TopRankFields


@dataclass
class MoraFields(TopRankFields):
    """Fields of MoRA."""

    temperature: float = 1.0
    """Temperature of the softmax over the normalized activations."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        return super().problems() + checks.positive(self, "temperature")


@method
class Mora(MoraFields, RoutedMethod):
    """MoRA (arXiv 2506.21035): the top k of a LoRA's rank-one parts, by their own activations."""

    method: Literal["mora"] = "mora"

    peft_type = "MORA"
