"""What every method of the family is: one layer  y = W0 x + B (G(x)^T A x),  and a router that makes G."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Mixed(NamedTuple):
    """What a router makes of a linear's input."""

    z: Tensor
    """G^T A x with all scales and gates, (batch, seq, columns of B), float32 or wider."""
    loss: Tensor | None = None
    """What the method adds to the training loss, (1,), already weighted; None: nothing."""
    load: Tensor | None = None
    """Share of the tokens that chose each rank, (ranks,), without gradient; None: the router has no balance."""


class Router(nn.Module):
    """Makes the routing weights G of one adapted linear and applies them; its own parameters are all of G's.

    `mix` is given every tensor that it depends on, because the layer runs it again in the backward pass
    on detached ones. It has no branch on data: under ZeRO-3 each rank must touch the same parameters.
    """

    trains_in = True
    """False: A stays as it was drawn."""

    def rows(self) -> Tensor | None:
        """Parameters that read the linear's input in one product with A, (R, in_features); None: there are none."""
        return None

    def others(self) -> tuple[Tensor, ...]:
        """The other tensors that `mix` needs; those that require gradients get them."""
        return ()

    def tensors(self) -> list[Tensor]:
        """All parameters that a forward pass needs, another layer's among them if the router uses any."""
        return list(self.parameters())

    def mix(
        self,
        a: Tensor,
        logits: Tensor,
        others: tuple[Tensor, ...],
        scores: Tensor | None,
        token_rows: Tensor | None,
    ) -> Mixed:
        """G^T a for every token.

        Args:
            a: A x, (batch, seq, rows of A).
            logits: `rows()` x, (batch, seq, R); R is 0 where there are no rows.
            others: what `others()` returns, or detached copies.
            scores: the samples' intuition scores, (samples, num_clusters); None for methods without.
            token_rows: each token's row of `scores`, (batch, seq), int64; None: samples are the batch's rows.
        """
        raise NotImplementedError


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
