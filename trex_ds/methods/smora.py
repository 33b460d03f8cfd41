"""SMoRA: each rank of one LoRA is an expert, and each token uses its top k."""

from __future__ import annotations

from typing import Literal

from trex_ds.methods.base import method
from trex_ds.methods.routed import BalancedRankFields, RoutedMethod


@method
class Smora(BalancedRankFields, RoutedMethod):
    """SMoRA (arXiv 2501.15103): the top k of a LoRA's rank-one parts, chosen by a router."""

    method: Literal["smora"] = "smora"

    peft_type = "SMORA"
