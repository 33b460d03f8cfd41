"""Fields that the routed methods share: y = W0 x + B (G(x)^T A x), with a router that makes G.

Fields are plain dataclasses, because a recipe section and the method's PEFT configuration both inherit them.
"""

from __future__ import annotations

from dataclasses import dataclass

from trex_ds.methods import checks
from trex_ds.methods.base import Method, WithoutIntuition


@dataclass
class RoutedFields(WithoutIntuition):
    """Fields that say which linears are adapted; a subclass says how."""

    target_modules: list[str] | str | None = "all-linear"
    """Names or regex of the linears to adapt."""
    exclude_modules: list[str] | str | None = None
    """Names or regex of linears to leave alone."""
    layers_to_transform: list[int] | int | None = None
    """Indices of the layers to adapt (the first number in a module's name); null: all."""
    modules_to_save: list[str] | None = None
    """Other modules to train in full and to save with the adapter."""
    dropout: float = 0.0
    """Dropout on A's input; the router reads the input itself."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one line each, headed by the field's name."""
        found = checks.dropout(self, "dropout") + checks.places(self)
        if self.target_modules is None:
            found.append("target_modules: must name the linears to adapt, as all-linear or [q_proj, v_proj]; got null")
        return found

    @property
    def num_in(self) -> int:
        """Rows of A."""
        raise NotImplementedError

    @property
    def num_out(self) -> int:
        """Columns of B."""
        return self.num_in


@dataclass
class RankFields(RoutedFields):
    """A LoRA rank, and the scale of the update that depends on it."""

    r: int = 8
    """LoRA rank."""
    lora_alpha: float | None = None
    """The update is scaled by lora_alpha / r; 2 r if null."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        return super().problems() + checks.whole(self, "r") + checks.positive(self, "lora_alpha")

    @property
    def scale(self) -> float:
        """lora_alpha / r."""
        return 2.0 if self.lora_alpha is None else self.lora_alpha / self.r

    @property
    def num_in(self) -> int:
        """The LoRA rank."""
        return self.r


@dataclass
class TopRankFields(RankFields):
    """Fields of methods in which each token uses the top k of a LoRA's rank-one parts."""

    r: int = 32
    """LoRA rank: rank-one experts in all."""
    top_k: int = 8
    """Rank-one experts that a token uses."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        found = super().problems() + checks.whole(self, "top_k")
        return found or checks.at_most(self, "top_k", "r")


@dataclass
class BalancedRankFields(TopRankFields):
    """Fields of such methods with a bias that spreads the load over the LoRA's rank-one parts."""

    bias_update_rate: float = 1e-3
    """How far a training pass moves the bias that balances the loads of the rank-one experts."""


class RoutedMethod(RoutedFields, Method):
    """A routed method's section; LoRA-based, if it does not say otherwise."""

    lora_based = True
    leaves_experts = "all experts of a layer are one parameter, and a routed update differs from token to token"
