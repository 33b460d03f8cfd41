"""SMoRA: each rank of one LoRA is an expert, and each token uses its top k."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from trex_ds.adapters.balance import BalancedRouter
from trex_ds.adapters.peft_type import add_peft_type
from trex_ds.adapters.routed_config import RoutedConfig
from trex_ds.adapters.router import Mixed, Router, at_least_float32, top_k_mask

add_peft_type("SMORA")


@dataclass
class SparseRankConfig(RoutedConfig):
    """What methods that choose the top k of a LoRA's ranks have in common."""

    r: int = field(default=32, metadata={"help": "ranks in all"})
    top_k: int = field(default=8, metadata={"help": "ranks that a token uses"})
    lora_alpha: float | None = field(
        default=None, metadata={"help": "the update is scaled by lora_alpha / r; 2 r if null"}
    )

    def problems(self) -> list[str]:
        """See `RoutedConfig.problems`."""
        found = self.not_positive("r", "top_k")
        if not found and self.top_k > self.r:
            found.append(f"top_k must be at most r = {self.r}, got {self.top_k}")
        return found

    @property
    def scale(self) -> float:
        """lora_alpha / r."""
        return 2.0 if self.lora_alpha is None else self.lora_alpha / self.r

    @property
    def num_in(self) -> int:
        """Ranks in all."""
        return self.r


@dataclass
class SmoraConfig(SparseRankConfig):
    """Configuration of SMoRA (arXiv 2501.15103, section 3).

    Raises:
        ValueError: naming every field whose value makes no adapter.
    """

    method: ClassVar[str] = "smora"

    bias_update_rate: float = field(
        default=1e-3, metadata={"help": "how far a training pass moves the bias that balances the ranks' loads"}
    )

    def make_router(self, in_features: int) -> Router:
        """See `RoutedConfig.make_router`."""
        return SmoraRouter(in_features, self.r, self.top_k, self.scale, self.bias_update_rate)


class SmoraRouter(BalancedRouter):
    """Diagonal G: sigmoid(W_r x) at the k ranks for which it is largest after a balancing bias is added, else 0.

    Args:
        in_features: n, size of the linear's input.
        r: ranks in all.
        top_k: ranks that a token uses.
        scale: of the whole update.
        bias_update_rate: step of the bias.
    """

    def __init__(self, in_features: int, r: int, top_k: int, scale: float, bias_update_rate: float):
        super().__init__(r, bias_update_rate)
        W_r = torch.empty(r, in_features)
        nn.init.kaiming_uniform_(W_r, a=math.sqrt(5))
        self.W_r = nn.Parameter(W_r)
        self.top_k = top_k
        self.scale = scale

    def rows(self) -> Tensor:
        """W_r, (r, n)."""
        return self.W_r

    def others(self) -> tuple[Tensor, ...]:
        """The bias."""
        return (self.bias,)

    def mix(
        self, a: Tensor, logits: Tensor, others: tuple[Tensor, ...], scores: Tensor | None, token_rows: Tensor | None
    ) -> Mixed:
        """See `Router.mix`."""
        weights = torch.sigmoid(at_least_float32(logits))
        chosen = top_k_mask(weights + others[0], self.top_k)
        return Mixed(self.scale * weights * chosen * at_least_float32(a), load=chosen.flatten(0, -2).mean(dim=0))
