"""The operator against oracles in float64, for every router."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trex_ds.adapters.routed_update import routed_update, routed_update_reference
from trex_ds.adapters.trex_router import RoutingScales, TRexRouter

SCALES = RoutingScales(token_scale=6.0, intuition_scale=4.0, gate_sharpness=100.0)


def trex_router(num_in, num_out, n=5, dtype=torch.float64, **changes):
    """A router with every parameter drawn at random."""
    settings = {"pairs": "full", "token": "token", "rank": 2, "num_clusters": num_in * num_out, "mapped": False}
    router = TRexRouter(n, num_in, num_out, scales=SCALES, **(settings | changes))
    generator = torch.Generator().manual_seed(num_in * 100 + num_out)
    for parameter in router.parameters():
        scale = 0.01 if parameter.numel() == 1 else 1.0
        parameter.data = (scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)).to(dtype)
    return router


def oracle(y, x, A, B, router, p, token_rows=None):
    """The formula of docs/method.md, one token and one rank-one expert b_j a_i^T at a time."""
    y, x, A, B, W_r, p = (t.detach().double().numpy() for t in (y, x, A, B, router.W_r, p))
    k = SCALES.gate_sharpness
    w = 1 / (1 + math.exp(-k * router.omega.item()))
    gate = 1 / (1 + math.exp(-k * router.gamma.item()))
    out = y.copy()
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            logits = W_r @ x[b, t]
            exponents = np.exp(logits - logits.max())
            softmax = exponents / exponents.sum()
            scores = p[b if token_rows is None else token_rows[b, t]]
            for i in range(A.shape[0]):
                for j in range(B.shape[1]):
                    pair = i * B.shape[1] + j
                    g = SCALES.token_scale * w * softmax[pair] + SCALES.intuition_scale * (1 - w) * scores[pair]
                    out[b, t] += gate * g * B[:, j] * (A[i] @ x[b, t])
    return torch.from_numpy(out)


def tensors(num_in, num_out, batch, seq, n=5, m=7, samples=None, dtype=torch.float64):
    """y, x, A, B and scores."""
    generator = torch.Generator().manual_seed(num_in * 100 + num_out * 10 + batch)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    sizes = ((batch, seq, m), (batch, seq, n), (num_in, n), (m, num_out))
    return (*(normal(*size) for size in sizes), normal(batch if samples is None else samples, num_in * num_out))


def some_rows(samples, batch, seq):
    """Rows that return to a sample and leave others out."""
    return torch.randint(samples, (batch, seq), generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("function", [routed_update, routed_update_reference])
@pytest.mark.parametrize(("num_in", "num_out"), [(1, 1), (4, 8), (3, 2), (2, 5)])
@pytest.mark.parametrize(("batch", "seq"), [(1, 1), (3, 4)])
@pytest.mark.parametrize("samples", [None, 1, 5])
def test_float64_equals_the_oracle(function, num_in, num_out, batch, seq, samples):
    *given, p = tensors(num_in, num_out, batch, seq, samples=samples)
    arguments = (*given, trex_router(num_in, num_out), p)
    if samples is not None:
        arguments += (some_rows(samples, batch, seq),)
    torch.testing.assert_close(function(*arguments).y, oracle(*arguments), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", [routed_update, routed_update_reference])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_lower_precision_stays_near_the_oracle(function, dtype, tolerance):
    *given, p = tensors(4, 8, 2, 6, n=32, m=24, dtype=dtype)
    arguments = (*given, trex_router(4, 8, n=32, dtype=dtype), p)
    result, expected = function(*arguments).y, oracle(*arguments)
    assert result.dtype == dtype
    assert ((result.double() - expected).norm() / expected.norm()).item() < tolerance


@pytest.mark.parametrize("samples", [None, 4])
def test_gradients_of_every_tensor(samples):
    *given, p = (t.requires_grad_() for t in tensors(2, 3, 2, 3, samples=samples))
    token_rows = None if samples is None else some_rows(samples, 2, 3)
    router = trex_router(2, 3)
    # gradcheck changes its inputs in place, the router's parameters among them.
    arguments = (*given, *router.parameters())
    assert torch.autograd.gradcheck(lambda *a: routed_update(*a[:4], router, p.detach(), token_rows).y, arguments)


@pytest.mark.parametrize("samples", [None, 5])
@pytest.mark.parametrize("parameter_dtype", [torch.float32, torch.bfloat16])
def test_fast_gradients_equal_the_reference_in_low_precision(parameter_dtype, samples):
    """Parameters in float32 under a bfloat16 input keep float32 gradients of the same value."""
    gradients = []
    for function in (routed_update, routed_update_reference):
        y, x, A, B, p = tensors(4, 8, 2, 16, n=32, m=24, samples=samples, dtype=torch.bfloat16)
        router = trex_router(4, 8, n=32, dtype=parameter_dtype)
        leaves = [t.detach().requires_grad_() for t in (y, x, A.to(parameter_dtype), B.to(parameter_dtype))]
        token_rows = None if samples is None else some_rows(samples, 2, 16)
        function(*leaves, router, p.float(), token_rows).y.square().float().mean().backward()
        leaves += router.parameters()
        assert all(leaf.grad.dtype == leaf.dtype for leaf in leaves)
        gradients.append([leaf.grad.double() for leaf in leaves])
    for fast, reference in zip(*gradients, strict=True):
        assert ((fast - reference).norm() / reference.norm()).item() < 2e-2


def test_what_is_frozen_gets_no_gradient():
    y, x, A, B, p = tensors(2, 2, 1, 3)
    router = trex_router(2, 2)
    B.requires_grad_()
    router.omega.requires_grad_(False)
    routed_update(y, x, A, B, router, p).y.sum().backward()
    assert x.grad is None
    assert A.grad is None
    assert router.omega.grad is None
    expected = B.grad.clone(), router.W_r.grad.clone()
    B.grad = router.W_r.grad = None
    routed_update(y, x.requires_grad_(), A.requires_grad_(), B, router, p).y.sum().backward()
    torch.testing.assert_close((B.grad, router.W_r.grad), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [None, 3])
def test_saved_memory_a_token_is_the_input_and_the_rank_sized_values(samples):
    """Neither output-sized nor routing-sized float32 tensors are kept from forward to backward."""
    y, x, A, B, p = tensors(4, 8, 1, 64, n=32, m=512, samples=samples, dtype=torch.float32)
    token_rows = None if samples is None else some_rows(samples, 1, 64)
    router = trex_router(4, 8, n=32, dtype=torch.float32)
    parameters = [A.requires_grad_(), B.requires_grad_(), *router.parameters()]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        routed_update(y, x, A, B, router, p, token_rows)
    others = {id(t) for t in (x, *parameters, p, token_rows)}
    extra = sum(t.numel() for t in saved if id(t) not in others and t.data_ptr() not in {x.data_ptr(), p.data_ptr()})
    assert extra <= 64 * (4 + 32) + sum(t.numel() for t in parameters)
