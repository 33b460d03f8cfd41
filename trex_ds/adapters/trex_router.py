"""T-REX's router: token routing, of several sizes, and the intuition of the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trex_ds.adapters.intuition_transform import initial_map, of_linear
from trex_ds.adapters.router import Given, Mixed, Router, at_least_float32, drawn, of_each_token
from trex_ds.methods.trex import Pairs, TokenRouting


@dataclass(frozen=True)
class RoutingScales:
    """The routing's constants; the paper's are I*J, 4 and 100."""

    token_scale: float
    """Weight of the token routing."""
    intuition_scale: float
    """Weight of the intuition."""
    gate_sharpness: float
    """k in sigmoid(k * omega) and sigmoid(k * gamma)."""
    matched: float = 1.0
    """Factor, where one of the two routings is left out, that makes the other one's G as large as both would be."""


class TRexRouter(Router):
    """G(x) of T-REX (arXiv 2404.08985, method section; v1 of the paper has the diagonal pairs).

        G = sigmoid(k * gamma) * (token_scale * w * softmax(logits) + intuition_scale * (1 - w) * p(c))
        w = sigmoid(k * omega)

    The softmax runs over all pairs jointly. Without one of the two terms the other stands alone, times
    `scales.matched` and without w.

    Args:
        in_features: n, size of the linear's input.
        num_in: I, rows of A.
        num_out: J, columns of B.
        pairs: "full" mixes all I*J pairs, "diagonal" only (i, i), I = J.
        token: where the logits come from: "token" W_r x of (pairs, n); "factorized" the product of a softmax over I
            and one over J, (I + J, n); "bottleneck" W_a A x, (pairs, I), after dropout; "low_rank" V U x of rank
            `rank`; "shared" another linear's W_r, set with `share`; "none" no token routing.
        rank: q of "low_rank".
        num_clusters: N; 0: no intuition.
        mapped: whether p(c) is a learned (pairs, N) map of the scores, or the scores themselves.
        scales: the routing's constants.
    """

    def __init__(
        self,
        in_features: int,
        num_in: int,
        num_out: int,
        *,
        pairs: Pairs,
        token: TokenRouting,
        rank: int,
        num_clusters: int,
        mapped: bool,
        scales: RoutingScales,
    ):
        super().__init__()
        num_pairs = num_in if pairs == "diagonal" else num_in * num_out
        self.num_in, self.diagonal, self.token, self.scales = num_in, pairs == "diagonal", token, scales
        self.has_intuition = num_clusters > 0
        self._owner: tuple[TRexRouter, ...] = ()  # in a tuple, so that it is not a submodule
        if token in ("token", "shared"):
            self.W_r = nn.Parameter(torch.zeros(num_pairs, in_features))
        elif token == "factorized":
            self.W_r = nn.Parameter(torch.zeros(num_in + num_out, in_features))
        elif token == "low_rank":
            self.U = drawn(rank, in_features)
            self.V = nn.Parameter(torch.zeros(num_pairs, rank))
        elif token == "bottleneck":
            self.W_a = nn.Parameter(torch.zeros(num_pairs, num_in))
        # One element rather than a scalar: ZeRO-3 cannot shard 0-dimensional parameters.
        if token != "none" and self.has_intuition:
            self.omega = nn.Parameter(torch.zeros(1))
        self.gamma = nn.Parameter(torch.zeros(1))
        if mapped:
            self.mapper = nn.Parameter(initial_map(num_pairs, num_clusters))
        self._others = tuple(name for name in self._parameters if name not in ("W_r", "U"))

    def share(self, owner: TRexRouter) -> None:
        """Use the W_r of another linear that reads the same input, instead of its own."""
        del self.W_r
        self._owner = (owner,)

    def reading_weights(self) -> Tensor | None:
        """W_r, or U of a low-rank one."""
        if self._owner:
            return self._owner[0].W_r
        return self._parameters.get("W_r", self._parameters.get("U"))

    def others(self) -> dict[str, Tensor]:
        """What there is of V, W_a, gamma, omega and mapper."""
        return {name: self._parameters[name] for name in self._others}  # type: ignore[misc]

    def tensors(self) -> list[Tensor]:
        """The parameters, and the W_r that is shared."""
        return [*self.parameters(), *(owner.W_r for owner in self._owner)]

    def mix(self, given: Given) -> Mixed:
        """See `Router.mix`."""
        G, a = self.weights(given), at_least_float32(given.a)
        # Multiply and sum: I is tiny, and a batched (1, I) @ (I, J) product is slower than this.
        mixed = G * a if self.diagonal else (G.unflatten(-1, (self.num_in, -1)) * a.unsqueeze(-1)).sum(dim=-2)
        gamma = given.tensors["gamma"].to(a.dtype)
        return Mixed(torch.sigmoid(self.scales.gate_sharpness * gamma) * mixed)

    def weights(self, given: Given) -> Tensor:
        """G without the gate sigmoid(k * gamma), which all pairs share: (batch, seq or 1, pairs).

        Pair (i, j) is entry i * J + j.
        """
        scales = self.scales
        terms: list[Tensor] = []
        token = self.token_shares(given)
        if token is not None:
            terms.append(scales.token_scale * token)
        if self.has_intuition:
            assert given.scores is not None
            scores = given.scores.to(torch.promote_types(given.a.dtype, torch.float32))
            p = of_linear(scores, given.tensors.get("mapper"))
            terms.append(scales.intuition_scale * of_each_token(p, given.token_rows))
        if len(terms) == 1:
            return scales.matched * terms[0]
        w = torch.sigmoid(scales.gate_sharpness * at_least_float32(given.tensors["omega"]))
        return w * terms[0] + (1 - w) * terms[1]

    def token_shares(self, given: Given) -> Tensor | None:
        """What the token routing gives each pair, (batch, seq, pairs), which sums to 1; None where there is none.

        V and W_a may have a dimension in front that is the batch's: another router for each row.
        """
        if self.token == "none":
            return None
        logits = at_least_float32(given.logits)
        if self.token == "factorized":
            of_in, of_out = logits[..., : self.num_in], logits[..., self.num_in :]
            return (torch.softmax(of_in, -1).unsqueeze(-1) * torch.softmax(of_out, -1).unsqueeze(-2)).flatten(-2)
        if self.token == "bottleneck":
            a = at_least_float32(given.a)
            logits = a @ given.tensors["W_a"].to(a.dtype).mT
        elif self.token == "low_rank":
            logits = logits @ given.tensors["V"].to(logits.dtype).mT
        return torch.softmax(logits, dim=-1)


def matching_scale(
    num_pairs: int,
    scales: RoutingScales,
    p_mean: Tensor,
    p_variance: Tensor,
    kept: Literal["token", "intuition"],
) -> float:
    """What brings an ablated G to the root mean square that the whole G has at the start (w = 1/2, uniform softmax).

    Then the update starts at the same size whichever routing is left out, for the same A and B.

    Args:
        num_pairs: number of pairs.
        scales: the whole routing's constants.
        p_mean: mean of each p(c)_k over the training samples, (pairs,).
        p_variance: its variance, (pairs,).
        kept: the routing that stays.
    """
    token = scales.token_scale / num_pairs
    whole = (0.5 * token + 0.5 * scales.intuition_scale * p_mean).square()
    whole = whole + (0.5 * scales.intuition_scale) ** 2 * p_variance
    alone = token**2 if kept == "token" else scales.intuition_scale**2 * (p_mean.square() + p_variance).mean()
    return float((whole.mean() / alone).sqrt())
