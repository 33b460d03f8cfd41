"""Each method of the family against its paper's forward, written out expert by expert in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trex_ds.adapters.flylora import FlyLoraConfig
from trex_ds.adapters.hydralora import HydraLoraConfig
from trex_ds.adapters.molora import MoLoraConfig
from trex_ds.adapters.mora import MoraConfig
from trex_ds.adapters.routed_update import routed_update, routed_update_reference
from trex_ds.adapters.sira import SiraConfig
from trex_ds.adapters.smora import SmoraConfig
from trex_ds.adapters.trex import TRexConfig

BATCH, SEQ, IN, OUT = 2, 5, 6, 7


def softmax(values):
    exponents = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponents) for e in exponents]


def largest(values, k):
    return sorted(range(len(values)), key=lambda i: -values[i])[:k]


def experts(A, B, r):
    """The LoRA experts of which rows of A and columns of B are stacked: (B_e, A_e) each."""
    return [(B[:, e : e + r], A[e : e + r]) for e in range(0, len(A), r)]


def molora(config, router, A, B, x):
    gates = softmax((router.W_r @ x).tolist())
    return 2.0 * sum(g * B_e @ (A_e @ x) for g, (B_e, A_e) in zip(gates, experts(A, B, config.r), strict=True))


def sira(config, router, A, B, x):
    gates = softmax((router.W_r @ x).tolist())
    all_experts = experts(A, B, config.r)
    return 2.0 * sum(gates[e] * all_experts[e][0] @ (all_experts[e][1] @ x) for e in largest(gates, config.top_k))


def smora(config, router, A, B, x):
    weights = torch.sigmoid(router.W_r @ x)
    chosen = largest((weights + router.bias).tolist(), config.top_k)
    return 2.0 * sum(weights[i] * B[:, i] * (A[i] @ x) for i in chosen)


def hydralora(config, router, A, B, x):
    gates = softmax((router.W_r @ x).tolist())
    heads = B.split(config.r, dim=1)
    return 2.0 * sum(g * head @ (A @ x) for g, head in zip(gates, heads, strict=True))


def flylora(config, router, A, B, x):
    chosen = largest((A @ x + router.bias).abs().tolist(), config.top_k)
    return 2.0 * sum(B[:, i] * (A[i] @ x) for i in chosen)


def mora(config, router, A, B, x):
    a = A @ x
    weights = softmax((a / a.norm() / config.temperature).tolist())
    return 2.0 * config.r * sum(weights[i] * B[:, i] * a[i] for i in largest(weights, config.top_k))


METHODS: list[tuple[Any, Any]] = [
    (MoLoraConfig(num_experts=3, r=2), molora),
    (SiraConfig(num_experts=4, r=2, top_k=2), sira),
    (SmoraConfig(r=6, top_k=3), smora),
    (HydraLoraConfig(num_heads=3, r=2), hydralora),
    (FlyLoraConfig(r=6, top_k=2, density=0.5), flylora),
    (MoraConfig(r=6, top_k=3, temperature=0.5), mora),
]
WITH_IDS = pytest.mark.parametrize(("config", "paper"), METHODS, ids=[c.peft_type.value for c, _ in METHODS])


def drawn(config):
    """y, x, A, B and a router with everything random, in float64."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    torch.manual_seed(0)
    router = config.make_router(IN).double().eval()
    for parameter in router.parameters():
        parameter.data = normal(*parameter.shape)
    if hasattr(router, "bias"):
        router.bias = 0.1 * normal(*router.bias.shape)
    A = config.draw_in(IN).double()
    return normal(BATCH, SEQ, OUT), normal(BATCH, SEQ, IN), A, normal(OUT, config.num_out), router


@WITH_IDS
@pytest.mark.parametrize("function", [routed_update, routed_update_reference])
def test_forward_is_the_papers(config, paper, function):
    y, x, A, B, router = drawn(config)
    found = function(y, x, A, B, router).y
    for b in range(BATCH):
        for t in range(SEQ):
            expected = y[b, t] + paper(config, router, A, B, x[b, t]).detach()
            torch.testing.assert_close(found[b, t], expected, rtol=1e-12, atol=1e-12)


@WITH_IDS
def test_gradients(config, paper):
    y, x, A, B, router = drawn(config)
    leaves = [t.requires_grad_() for t in (y, x, B, *([A] if router.trains_in else []))]
    arguments = (*leaves, *router.parameters())
    assert torch.autograd.gradcheck(lambda y, x, B, *rest: routed_update(y, x, A, B, router).y, arguments)


def test_sira_balance_loss_and_its_gradient():
    y, x, A, B, router = drawn(SiraConfig(num_experts=4, r=2, top_k=2, balance_weight=0.5))
    gates = torch.softmax(x @ router.W_r.t(), -1).flatten(0, 1)
    counts = torch.zeros(4, dtype=torch.float64)
    for token in gates:
        counts[largest(token.tolist(), 2)] += 1
    expected = 0.5 * 4 * (counts / counts.sum() * gates.mean(0)).sum()
    (wanted,) = torch.autograd.grad(expected, router.W_r)
    updated = routed_update(y, x, A.requires_grad_(), B, router)
    torch.testing.assert_close(updated.loss, expected.detach().unsqueeze(0), rtol=1e-12, atol=0)
    (found,) = torch.autograd.grad(updated.loss.sum(), router.W_r)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_sira_capacity_drops_the_last_tokens_in_training_only():
    y, x, A, B, router = drawn(SiraConfig(num_experts=4, r=2, top_k=1, capacity_factor=0.4))
    router.W_r.data = torch.zeros_like(router.W_r)
    router.W_r.data[2] = x.flatten(0, 1).mean(0)
    x = x.flatten(0, 1).mean(0).expand(BATCH, SEQ, IN)  # every token chooses expert 2, whose room is 0.4 * 10 / 4 = 1
    full = routed_update(y, x, A, B, router).y - y
    assert (full.norm(dim=-1) > 0).all()
    limited = routed_update(y, x, A, B, router.train()).y - y
    torch.testing.assert_close(limited[0, 0], full[0, 0])
    assert (limited.flatten(0, 1)[1:] == 0).all()


@pytest.mark.parametrize("config", [SmoraConfig(r=6, top_k=2), FlyLoraConfig(r=6, top_k=2)], ids=["smora", "flylora"])
def test_balance_moves_the_bias_against_the_load(config):
    y, x, A, B, router = drawn(config)
    router.bias.zero_()
    load = routed_update(y, x, A, B, router).load
    assert load.sum().item() == pytest.approx(2)
    router.update_balance(load)
    assert torch.equal(router.bias, config.bias_update_rate * torch.sign(load.mean() - load).to(router.bias))


def test_balance_spreads_the_load():
    _, _, A, B, router = drawn(SmoraConfig(r=6, top_k=2, bias_update_rate=0.02))
    router.bias.zero_()
    x = torch.randn(1, 400, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    y = torch.zeros(1, 400, OUT, dtype=torch.float64)
    first = load = routed_update(y, x, A, B, router).load
    for _ in range(200):
        router.update_balance(load)
        load = routed_update(y, x, A, B, router).load
    assert load.std() < 0.5 * first.std()


def test_bias_stays_in_float32_in_a_bfloat16_model():
    router = SmoraConfig(r=4, top_k=2).make_router(8).bfloat16()
    assert (router.W_r.dtype, router.bias.dtype) == (torch.bfloat16, torch.float32)


def test_flylora_draws_sparse_rows_of_unit_length():
    torch.manual_seed(0)
    A = FlyLoraConfig(r=400, density=0.25).draw_in(64)
    assert ((A != 0).sum(dim=1) == 16).all()
    assert A.square().sum(dim=1).mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("config_cls", "fields", "message"),
    [
        (MoLoraConfig, {"num_experts": 0}, "num_experts.*at least 1.*0"),
        (SiraConfig, {"top_k": 9}, "top_k: must be at most num_experts = 8, got 9"),
        (SiraConfig, {"capacity_factor": 0.0, "balance_weight": -1.0}, "capacity_factor.*0.0; balance_weight.*-1.0"),
        (SmoraConfig, {"top_k": 33}, "top_k: must be at most r = 32, got 33"),
        (FlyLoraConfig, {"density": 1.5}, r"density: must lie in \(0, 1\], got 1.5"),
        (MoraConfig, {"temperature": 0.0}, "temperature: must be a finite number above 0, got 0.0"),
        (HydraLoraConfig, {"r": 0, "dropout": 1.0}, r"dropout: must lie in \[0, 1\), got 1.0; r: must be.*0"),
        (TRexConfig, {"router": "tokn"}, "router: must be one of token, factorized.*'tokn'"),
        (TRexConfig, {"router": "none", "intuition_transform": "none"}, "nothing that routes"),
        (TRexConfig, {"pairs": "diagonal"}, "num_in_experts = num_out_experts, got 4 and 8"),
        (
            TRexConfig,
            {"pairs": "diagonal", "num_in_experts": 8, "router": "factorized", "num_clusters": 8},
            "'factorized' makes a product",
        ),
    ],
)
def test_configurations_that_make_no_adapter_are_refused(config_cls, fields, message):
    with pytest.raises(ValueError, match=message):
        config_cls(**fields)
