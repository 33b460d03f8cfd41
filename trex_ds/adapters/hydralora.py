"""HydraLoRA: one A that all share, several heads B, mixed by a softmax of the token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trex_ds.adapters.molora import SoftmaxExperts
from trex_ds.adapters.peft_type import add_peft_type
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Mixed, Router, at_least_float32

add_peft_type("HYDRALORA")


@dataclass
class HydraLoraConfig(RoutedConfig):
    """Configuration of HydraLoRA (arXiv 2404.19245, section 3).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    method: ClassVar[str] = "hydralora"

    num_heads: int = field(default=3, metadata={"help": "heads B_k that share one A"})
    r: int = field(default=8, metadata={"help": "rank of A and of each head"})
    lora_alpha: float | None = field(
        default=None, metadata={"help": "the update is scaled by lora_alpha / r; 2 r if null"}
    )

    def problems(self) -> list[str]:
        """See `RoutedConfig.problems`."""
        return self.not_positive("num_heads", "r")

    @property
    def num_in(self) -> int:
        """Ranks in all."""
        return self.r

    @property
    def num_out(self) -> int:
        """The heads, one after the other."""
        return self.num_heads * self.r

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        scale = 2.0 if self.lora_alpha is None else self.lora_alpha / self.r
        return HydraLoraRouter(in_features, self.num_heads, self.r, scale)


class HydraLoraRouter(SoftmaxExperts):
    """G = [s_1 I | ... | s_K I] with s = softmax(W_r x):  y = W0 x + scale * sum_k s_k B_k A x."""

    def mix(
        self, a: Tensor, logits: Tensor, others: tuple[Tensor, ...], scores: Tensor | None, token_rows: Tensor | None
    ) -> Mixed:
        """See `Router.mix`."""
        gates = torch.softmax(at_least_float32(logits), dim=-1)
        return Mixed(self.scale * (gates.unsqueeze(-1) * at_least_float32(a).unsqueeze(-2)).flatten(-2))
