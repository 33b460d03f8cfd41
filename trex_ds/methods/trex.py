"""T-REX, and MoR1E, the first version of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trex_ds.methods import checks
from trex_ds.methods.base import method
from trex_ds.methods.routed import RoutedFields, RoutedMethod

Pairs = Literal["full", "diagonal"]
TokenRouting = Literal["token", "factorized", "bottleneck", "low_rank", "shared", "none"]
IntuitionTransform = Literal["raw", "centered", "mapped", "none"]


@dataclass
class RoutingFields(RoutedFields):
    """How pairs of rank-one experts are weighted: by the token, and by the sample's intuition."""

    num_clusters: int = 32
    """N, semantic clusters."""
    router: TokenRouting = "token"
    """Token routing: 'token' W_r of (I*J, n), the paper's; 'factorized' (I + J, n); 'bottleneck' reads A x, (I*J, I);
    'low_rank' of router_rank; 'shared' by the linears that read the same input; 'none'."""
    router_rank: int = 4
    """q of router='low_rank': U (q, n) and V (I*J, q)."""
    intuition_scale: float = 4.0
    """Weight of the intuition in the routing."""
    token_scale: float | None = None
    """Weight of the token routing; I*J if null, as in the paper."""
    gate_sharpness: float = 100.0
    """k in sigmoid(k * omega), sigmoid(k * gamma)."""
    intuition_transform: IntuitionTransform = "raw"
    """p(c): 'raw' cosines as in the reference; 'centered' standardizes them by the training set's statistics; 'mapped'
    learns an N -> I*J map; 'none' leaves the intuition out."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        found = [
            *super().problems(),
            *checks.whole(self, "num_clusters", "router_rank", *self.sizes()),
            *checks.positive(self, "gate_sharpness"),
            *checks.one_of(self, "router", TokenRouting),
            *checks.one_of(self, "intuition_transform", IntuitionTransform),
        ]
        if self.router == "none" and not self.needs_intuition:
            found.append("router: 'none' and intuition_transform: 'none' leave nothing that routes; keep one of them")
        elif self.router == "none" and self.intuition_scale == 0:
            found.append("intuition_scale: 0 leaves nothing that routes with router: 'none'; choose another")
        elif not self.needs_intuition and self.token_scale == 0:
            found.append("token_scale: 0 leaves nothing that routes with intuition_transform: 'none'; choose another")
        return found

    def sizes(self) -> tuple[str, ...]:
        """Names of the fields that say how many experts there are."""
        raise NotImplementedError

    @property
    def num_pairs(self) -> int:
        """The number of rank-one experts that can be mixed."""
        raise NotImplementedError

    def cluster_problems(self) -> list[str]:
        """A line if p(c) has not as many values as there are pairs; for fields that are sound by themselves."""
        if self.intuition_transform not in ("raw", "centered") or self.num_clusters == self.num_pairs:
            return []
        return [
            f"num_clusters: is {self.num_clusters} but {' * '.join(self.sizes())} is {self.num_pairs}; "
            f"intuition_transform={self.intuition_transform!r} needs them equal, 'mapped' takes any number"
        ]

    @property
    def needs_intuition(self) -> bool:
        """False only for the ablation without it."""
        return self.intuition_transform != "none"


@dataclass
class TRexFields(RoutingFields):
    """Fields of T-REX."""

    num_in_experts: int = 4
    """I, input-side rank-one experts."""
    num_out_experts: int = 8
    """J, output-side rank-one experts."""
    pairs: Pairs = "full"
    """Rank-one experts that are mixed: 'full' all I*J, 'diagonal' (i, i) only, I = J."""

    def problems(self) -> list[str]:
        """See `RoutedFields.problems`."""
        found = super().problems() + checks.one_of(self, "pairs", Pairs)
        if found:
            return found
        if self.pairs == "diagonal":
            if self.num_in_experts != self.num_out_experts:
                found.append(
                    f"pairs: 'diagonal' needs num_in_experts = num_out_experts, got {self.num_in_experts} and "
                    f"{self.num_out_experts}"
                )
            if self.router == "factorized":
                found.append("router: 'factorized' makes a product over pairs, which pairs: 'diagonal' has not")
        return found + self.cluster_problems()

    def sizes(self) -> tuple[str, ...]:
        """See `RoutingFields.sizes`."""
        return ("num_in_experts",) if self.pairs == "diagonal" else ("num_in_experts", "num_out_experts")

    @property
    def num_pairs(self) -> int:
        """I*J, or I where pairs are diagonal."""
        return self.num_in_experts * (1 if self.pairs == "diagonal" else self.num_out_experts)

    @property
    def num_in(self) -> int:
        """I, input-side experts."""
        return self.num_in_experts

    @property
    def num_out(self) -> int:
        """J, output-side experts."""
        return self.num_out_experts


@method
class TRex(TRexFields, RoutedMethod):
    """T-REX (arXiv 2404.08985): all pairs of rank-one experts, mixed by the token and the sample's intuition."""

    method: Literal["trex"] = "trex"

    peft_type = "TREX"
    lora_based = False


@method
class MoR1E(RoutingFields, RoutedMethod):
    """MoR1E (arXiv 2404.08985v1): T-REX with as many input as output experts, of which pairs (i, i) are mixed."""

    method: Literal["mor1e"] = "mor1e"
    num_experts: int = 32
    """I = J, rank-one experts."""

    peft_type = "TREX"

    def problems(self) -> list[str]:
        """See `Method.problems`."""
        found = super().problems()
        if found:
            return found
        if self.router == "factorized":
            found.append("router: 'factorized' makes a product over pairs, which method: mor1e has not")
        return found + self.cluster_problems()

    def sizes(self) -> tuple[str, ...]:
        """See `RoutingFields.sizes`."""
        return ("num_experts",)

    @property
    def num_pairs(self) -> int:
        """I."""
        return self.num_experts

    def peft_fields(self) -> dict[str, Any]:
        """T-REX's, with diagonal pairs."""
        values = super().peft_fields()
        experts = values.pop("num_experts")
        return values | {"num_in_experts": experts, "num_out_experts": experts, "pairs": "diagonal"}
