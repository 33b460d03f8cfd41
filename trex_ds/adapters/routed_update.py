"""The update  y + B (G^T A x):  a readable reference and the fast path, for every router.

Both compute the same function of the same tensors. `routed_update_reference` is what the formula
says, with autograd's own backward. `routed_update` is what the layer runs: one GEMM reads x for
experts and router together, and the backward recomputes the small routing tensors instead of
keeping them, so that a token costs I + R saved values a layer (plus x, which its neighbors
share) instead of several full activations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trex_ds.adapters.router import Given, Router
from trex_ds.bf16_matmul import addmm, matmul


class Updated(NamedTuple):
    """An adapted linear's output, and what its router says of the pass: see `Mixed`."""

    y: Tensor
    loss: Tensor | None
    load: Tensor | None


def routed_update_reference(
    y: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    router: Router,
    scores: Tensor | None = None,
    token_rows: Tensor | None = None,
    expert_input: Tensor | None = None,
) -> Updated:
    """Y + B (G^T A x), the formula of docs/method.md (arXiv 2404.08985).

    Args:
        y: the base layer's output, (batch, seq, out_features).
        x: input of the base layer and of the router, (batch, seq, in_features).
        A: input-side experts, (I, in_features).
        B: output-side experts, (out_features, J).
        router: makes G.
        scores: the samples' intuition scores, (samples, num_clusters), where the router takes them.
        token_rows: each token's row of scores, (batch, seq), int64; None: samples are the batch's rows.
        expert_input: what A reads in place of x (x after dropout), the same shape as x.

    Returns:
        Output (batch, seq, out_features), in y's dtype.
    """
    read = x if expert_input is None else expert_input
    a = torch.nn.functional.linear(read, A.to(x.dtype))
    reading = router.reading_weights()
    logits = x[..., :0] if reading is None else torch.nn.functional.linear(x, reading.to(x.dtype))
    mixed = router.mix(Given(a, logits, router.others(), scores, token_rows))
    updated = y + torch.nn.functional.linear(mixed.z.to(x.dtype), B.to(x.dtype)).to(y.dtype)
    return Updated(updated, mixed.loss, mixed.load)


def routed_update(
    y: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    router: Router,
    scores: Tensor | None = None,
    token_rows: Tensor | None = None,
) -> Updated:
    """The same as `routed_update_reference` without dropout, faster and with less memory.

    Parameters may be kept in float32 while x is bfloat16: they are cast to x's dtype for the
    matrix products, the routing itself runs in float32, and their gradients come back in their own
    dtype. First derivatives only.
    """
    others = router.others()
    flat, loss, load = _RoutedUpdate.apply(
        y, x, A, B, router.reading_weights(), router, scores, token_rows, others, *others.values()
    )
    # Viewed out here: a model may add to the output in place, which autograd refuses on a view of a function's own.
    return Updated(flat.view_as(y), loss, load)


def _joined(A: Tensor, reading: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Everything that reads x, as one matrix."""
    return (A if reading is None else torch.cat((A, reading))).to(dtype)


class _RoutedUpdate(torch.autograd.Function):
    # Only the parameters themselves, x and h are saved: ZeRO-3 empties and refills parameters in
    # place, so a saved copy or concatenation of them would keep gathered weights alive.
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        y, x, A, B, reading, router, scores, token_rows, named, *others = inputs
        num_in = A.shape[0]
        h = matmul(x, _joined(A, reading, x.dtype).t())
        mixed = router.mix(Given(h[..., :num_in], h[..., num_in:], named, scores, token_rows))
        ctx.save_for_backward(x, h, A, B, reading, scores, token_rows, *others)
        ctx.router, ctx.names = router, tuple(named)
        if mixed.load is not None:
            ctx.mark_non_differentiable(mixed.load)
        flat = addmm(y.flatten(0, -2), mixed.z.to(y.dtype).flatten(0, -2), B.to(y.dtype).t())
        return flat, mixed.loss, mixed.load

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dloss: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        x, h, A, B, reading, scores, token_rows, *others = ctx.saved_tensors
        dy = dy.view(*x.shape[:-1], -1)
        _, needs_x, needs_A, needs_B, needs_reading, _, _, _, _, *needs_others = ctx.needs_input_grad
        num_in = A.shape[0]
        with torch.enable_grad():
            h_ = h.detach().requires_grad_()
            others_ = [t.detach().requires_grad_(n) for t, n in zip(others, needs_others, strict=True)]
            tensors = dict(zip(ctx.names, others_, strict=True))
            mixed = ctx.router.mix(Given(h_[..., :num_in], h_[..., num_in:], tensors, scores, token_rows))
        z = mixed.z
        outputs, gradients = [z], [matmul(dy, B.to(dy.dtype)).to(z.dtype)]
        if mixed.loss is not None:
            outputs.append(mixed.loss)
            assert dloss is not None
            gradients.append(dloss)
        wanted = [h_, *(t for t in others_ if t.requires_grad)]
        # A router without token routing reads no logits, and one of A alone has no other tensors.
        dh, *dothers = torch.autograd.grad(outputs, wanted, gradients)
        given = iter(dothers)

        z_rows, dy_rows, dh_rows, x_rows = (t.flatten(0, -2) for t in (z.detach(), dy, dh, x))
        # (J, T) @ (T, m): dy is read row by row.
        dB = matmul(z_rows.to(dy.dtype).t(), dy_rows).t().to(B.dtype) if needs_B else None
        first = 0 if needs_A else num_in
        dread = matmul(dh_rows[:, first:].t(), x_rows)
        return (
            dy,
            matmul(dh, _joined(A, reading, x.dtype)) if needs_x else None,
            dread[:num_in].to(A.dtype) if needs_A else None,
            dB,
            dread[num_in - first :].to(reading.dtype) if needs_reading else None,
            None,
            None,
            None,
            None,
            *(next(given) if needed else None for needed in needs_others),
        )
