"""What every method of the family is: one layer  y = W0 x + B (G(x)^T A x),  and a router that makes G."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class Mixed(NamedTuple):
    """What a router makes of a linear's input."""

    z: Tensor
    """G^T A x with all scales and gates, (batch, seq, columns of B), float32 or wider."""
    loss: Tensor | None = None
    """What the method adds to the training loss, (1,), already weighted; None: nothing."""
    load: Tensor | None = None
    """Share of the tokens that chose each LoRA rank, (r,), without gradient; None: the router has no balance."""


class Given(NamedTuple):
    """What a router is given of a linear's input and of the pass."""

    a: Tensor
    """A x, (batch, seq, rows of A)."""
    logits: Tensor
    """The reading weights' product with x, (batch, seq, R); R is 0 where there are none."""
    tensors: Mapping[str, Tensor]
    """What `Router.others` returns, or detached copies."""
    scores: Tensor | None = None
    """The samples' intuition scores, (samples, num_clusters); None for methods without."""
    token_rows: Tensor | None = None
    """Each token's row of `scores`, (batch, seq), int64; None: samples are the batch's rows."""


class Router(nn.Module):
    """Makes the routing weights G of one adapted linear and applies them; its own parameters are all of G's.

    `mix` is given every tensor that it depends on, because the layer runs it again in the backward pass
    on detached ones. It has no branch on data: under ZeRO-3 each process must touch the same parameters.
    """

    trains_in = True
    """False: A stays as it was drawn."""

    def reading_weights(self) -> Tensor | None:
        """Parameters that read the linear's input in one product with A, (R, in_features); None: there are none."""
        return None

    def others(self) -> dict[str, Tensor]:
        """The other tensors that `mix` needs, by names of its own; those that require gradients get them."""
        return {}

    def tensors(self) -> list[Tensor]:
        """All parameters that a forward pass needs, another layer's among them if the router uses any."""
        return list(self.parameters())

    def share(self, owner: Self) -> None:
        """Read with the weights of `owner`, whose linear reads the same input, instead of its own."""
        raise NotImplementedError

    def mix(self, given: Given) -> Mixed:
        """G^T a for every token."""
        raise NotImplementedError


def drawn(rows: int, in_features: int) -> nn.Parameter:
    """Weights that read a linear's input, (rows, in_features), drawn as torch draws those of a linear."""
    weights = torch.empty(rows, in_features)
    nn.init.kaiming_uniform_(weights, a=math.sqrt(5))
    return nn.Parameter(weights)


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or in its own type if that is wider: routing is not computed in less."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def of_each_token(samples: Tensor, token_rows: Tensor | None) -> Tensor:
    """Values of samples as values of their tokens, ready to broadcast.

    Args:
        samples: (samples, values).
        token_rows: each token's sample, (batch, seq), int64; None: samples are the batch's rows.

    Returns:
        (batch, 1, values), or (batch, seq, values) where rows are packed.
    """
    if token_rows is None:
        return samples.unsqueeze(1)
    # Here and not before the layer: gathered values are as large as the logits, and would be kept for backward.
    return samples.index_select(0, token_rows.flatten()).view(*token_rows.shape, -1)


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """1 at the k largest of the last dimension, else 0; in the type and shape of `scores`, without gradient."""
    return torch.zeros_like(scores).scatter(-1, scores.detach().topk(k, dim=-1).indices, 1.0)
