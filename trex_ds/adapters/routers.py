"""Routing weights G: how much each pair (i, j) of rank-one experts takes part, token by token."""

from __future__ import annotations

import torch
from torch import Tensor


def trex_gates(
    logits: Tensor,
    intuition: Tensor,
    omega: Tensor,
    *,
    token_scale: float,
    intuition_scale: float,
    gate_sharpness: float,
) -> Tensor:
    """T-REX's routing weights (arXiv 2404.08985, section 3; v1 of the paper has the diagonal case).

        G = token_scale * w * softmax(logits) + intuition_scale * (1 - w) * p(c),  w = sigmoid(k * omega)

    The softmax runs over all I*J pairs jointly. Computed in float32 at least, whatever the input.

    Args:
        logits: token router's output W_r x, (batch, seq, I*J).
        intuition: p(c), one row a sample (batch, 1, I*J), or one a token (batch, seq, I*J) where rows are packed.
        omega: balance of token routing and intuition, (1,).
        token_scale: weight of the token routing; the paper's value is I*J.
        intuition_scale: weight of the intuition; the paper's value is 4.
        gate_sharpness: k, slope of the sigmoid; the paper's value is 100.

    Returns:
        G, (batch, seq, I*J); pair (i, j) is entry i * J + j.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    w = torch.sigmoid(gate_sharpness * omega.to(dtype))
    token = torch.softmax(logits.to(dtype), dim=-1)
    return token_scale * w * token + intuition_scale * (1 - w) * intuition.to(dtype)
