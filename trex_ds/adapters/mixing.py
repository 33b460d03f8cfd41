"""The update  y + sigmoid(k * gamma) * B (G^T A x):  a readable reference and the fast path.

Both compute the same function of the same tensors. `routed_update_reference` is what the formula
says, with autograd's own backward. `routed_update` is what the layer runs: one GEMM reads x for
experts and router together, and the backward recomputes the small routing tensors instead of
keeping them, so that a token costs I + I*J saved values a layer (plus x, which its neighbours
share) instead of several full activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trex_ds.adapters.routers import trex_gates
from trex_ds.products import addmm, matmul


@dataclass(frozen=True)
class RoutingScales:
    """The constants of the routing: see `trex_gates` for their meaning and the paper's values."""

    token_scale: float
    intuition_scale: float
    gate_sharpness: float


def routed_update_reference(
    y: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    W_r: Tensor,
    omega: Tensor,
    gamma: Tensor,
    intuition: Tensor,
    scales: RoutingScales,
    token_rows: Tensor | None = None,
    expert_input: Tensor | None = None,
) -> Tensor:
    """Y + sigmoid(k * gamma) * B (G^T A x), the formula of docs/method.md (arXiv 2404.08985).

    Args:
        y: the base layer's output, (batch, seq, out_features).
        x: input of the base layer and of the token router, (batch, seq, in_features).
        A: input-side experts, (I, in_features).
        B: output-side experts, (out_features, J).
        W_r: token router, (I*J, in_features).
        omega: balance of the two routings, (1,).
        gamma: gate of the whole update, (1,).
        intuition: p(c), one row a sample, (samples, I*J).
        scales: the routing's constants.
        token_rows: each token's row of intuition, (batch, seq), int64; None: samples are the batch's rows.
        expert_input: what A reads in place of x (x after dropout), the same shape as x.

    Returns:
        (batch, seq, out_features), in y's dtype.
    """
    read = x if expert_input is None else expert_input
    bottleneck = torch.nn.functional.linear(read, A.to(x.dtype))
    logits = torch.nn.functional.linear(x, W_r.to(x.dtype))
    z = _mix(bottleneck, logits, omega, gamma, intuition, token_rows, scales)
    return y + torch.nn.functional.linear(z.to(x.dtype), B.to(x.dtype)).to(y.dtype)


def routed_update(
    y: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    W_r: Tensor,
    omega: Tensor,
    gamma: Tensor,
    intuition: Tensor,
    scales: RoutingScales,
    token_rows: Tensor | None = None,
) -> Tensor:
    """The same as `routed_update_reference` without dropout, faster and with less memory.

    Parameters may be kept in float32 while x is bfloat16: they are cast to x's dtype for the
    matrix products, the routing itself runs in float32, and their gradients come back in their own
    dtype. First derivatives only.
    """
    return _RoutedUpdate.apply(y, x, A, B, W_r, omega, gamma, intuition, token_rows, scales)


def _mix(
    bottleneck: Tensor,
    logits: Tensor,
    omega: Tensor,
    gamma: Tensor,
    intuition: Tensor,
    token_rows: Tensor | None,
    scales: RoutingScales,
) -> Tensor:
    """sigmoid(k * gamma) * G^T a for every token: (batch, seq, J), in float32 at least."""
    if token_rows is None:
        intuition = intuition.unsqueeze(1)
    else:
        # Here and not in the layer: gathered scores are as large as the logits, and would be kept for backward.
        intuition = intuition.index_select(0, token_rows.flatten()).view(*token_rows.shape, -1)
    gates = trex_gates(
        logits,
        intuition,
        omega,
        token_scale=scales.token_scale,
        intuition_scale=scales.intuition_scale,
        gate_sharpness=scales.gate_sharpness,
    )
    num_in = bottleneck.shape[-1]
    gates = gates.unflatten(-1, (num_in, -1))  # (batch, seq, I, J)
    # Multiply and sum: I is tiny, and a batched (1, I) @ (I, J) product is slower than this.
    mixed = (gates * bottleneck.to(gates.dtype).unsqueeze(-1)).sum(dim=-2)
    return torch.sigmoid(scales.gate_sharpness * gamma.to(gates.dtype)) * mixed


class _RoutedUpdate(torch.autograd.Function):
    # Only the parameters themselves, x and h are saved: ZeRO-3 empties and refills parameters in
    # place, so a saved copy or concatenation of them would keep gathered weights alive.
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y, x, A, B, W_r, omega, gamma, intuition, token_rows, scales = inputs
        num_in = A.shape[0]
        h = matmul(x, torch.cat((A, W_r)).to(x.dtype).t())
        z = _mix(h[..., :num_in], h[..., num_in:], omega, gamma, intuition, token_rows, scales)
        ctx.save_for_backward(x, h, A, B, W_r, omega, gamma, intuition, token_rows)
        ctx.scales = scales
        rows = addmm(y.flatten(0, -2), z.to(y.dtype).flatten(0, -2), B.to(y.dtype).t())
        return rows.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, h, A, B, W_r, omega, gamma, intuition, token_rows = ctx.saved_tensors
        num_in = A.shape[0]
        with torch.enable_grad():
            h_, omega_, gamma_ = (t.detach().requires_grad_() for t in (h, omega, gamma))
            intuition_ = intuition.detach().requires_grad_(intuition.requires_grad)
            z = _mix(h_[..., :num_in], h_[..., num_in:], omega_, gamma_, intuition_, token_rows, ctx.scales)
        dz = matmul(dy, B.to(dy.dtype))
        inputs = (h_, omega_, gamma_, *((intuition_,) if intuition.requires_grad else ()))
        dh, domega, dgamma, *dintuition = torch.autograd.grad(z, inputs, dz.to(z.dtype))

        z_rows, dy_rows, dh_rows, x_rows = (t.flatten(0, -2) for t in (z.detach(), dy, dh, x))
        dB = matmul(z_rows.to(dy.dtype).t(), dy_rows).t()  # (J, T) @ (T, m): dy is read row by row
        dAW = matmul(dh_rows.t(), x_rows)
        dx = matmul(dh, torch.cat((A, W_r)).to(x.dtype)) if ctx.needs_input_grad[1] else None
        return (
            dy,
            dx,
            dAW[:num_in].to(A.dtype),
            dB.to(B.dtype),
            dAW[num_in:].to(W_r.dtype),
            domega,
            dgamma,
            dintuition[0] if dintuition else None,
            None,
            None,
        )
