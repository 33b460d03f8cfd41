"""T-REX's cheaper routers and ablations against their formulas, pair by pair in float64."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, get_peft_model

from tests.adapters.test_peft import IDS, adapted, logits, scores
from tests.adapters.test_routed_update import SCALES, some_rows, tensors, trex_router
from tests.conftest import tiny_llama
from tests.intuition.planted import planted_centroids
from trex_ds import TRexConfig
from trex_ds.adapters.intuition_transform import initial_map, moments, of_linear, of_pass
from trex_ds.adapters.routed_update import routed_update, routed_update_reference
from trex_ds.adapters.trex_router import RoutingScales, TRexRouter, matching_scale

NUM_IN, NUM_OUT = 2, 3


def shares(router, A, x):
    """The token routing of one token: each pair's share."""
    if router.token == "factorized":
        of_in, of_out = (router.W_r @ x).split([NUM_IN, NUM_OUT])
        return torch.outer(of_in.softmax(0), of_out.softmax(0)).flatten()
    if router.token == "bottleneck":
        return (router.W_a @ (A @ x)).softmax(0)
    if router.token == "low_rank":
        return (router.V @ router.U @ x).softmax(0)
    return (router.W_r @ x).softmax(0)


@pytest.mark.parametrize("function", [routed_update, routed_update_reference])
@pytest.mark.parametrize("token", ["token", "factorized", "bottleneck", "low_rank", "shared"])
@pytest.mark.parametrize("samples", [None, 4])
def test_every_token_routing_equals_its_formula(function, token, samples):
    y, x, A, B, p = tensors(NUM_IN, NUM_OUT, 2, 3, samples=samples)
    router = trex_router(NUM_IN, NUM_OUT, token=token)
    token_rows = None if samples is None else some_rows(samples, 2, 3)
    found = function(y, x, A, B, router, p, token_rows).y
    w, gate = torch.sigmoid(100 * router.omega), torch.sigmoid(100 * router.gamma)
    for b, t in [(0, 0), (1, 2)]:
        own = p[b if token_rows is None else token_rows[b, t]]
        G = (6 * w * shares(router, A, x[b, t]) + 4 * (1 - w) * own).unflatten(0, (NUM_IN, NUM_OUT))
        expected = y[b, t] + gate * B @ (G.t() @ (A @ x[b, t]))
        torch.testing.assert_close(found[b, t], expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("token", ["factorized", "bottleneck", "low_rank", "none"])
@pytest.mark.parametrize("mapped", [False, True])
def test_gradients(token, mapped):
    y, x, A, B, p = tensors(NUM_IN, NUM_OUT, 2, 3)
    router = trex_router(NUM_IN, NUM_OUT, token=token, mapped=mapped)
    arguments = [t.requires_grad_() for t in (y, x, A, B)] + list(router.parameters())
    assert torch.autograd.gradcheck(lambda *a: routed_update(*a[:4], router, p).y, tuple(arguments))


def test_diagonal_pairs_are_mor1e():
    y, x, A, B, _ = tensors(3, 3, 2, 3)
    p = torch.rand(2, 3, dtype=torch.float64)
    router = trex_router(3, 3, pairs="diagonal", num_clusters=3)
    found = routed_update(y, x, A, B, router, p).y
    w, gate = torch.sigmoid(100 * router.omega), torch.sigmoid(100 * router.gamma)
    g = 6 * w * (router.W_r @ x[1, 2]).softmax(0) + 4 * (1 - w) * p[1]
    expected = y[1, 2] + gate * sum(g[i] * B[:, i] * (A[i] @ x[1, 2]) for i in range(3))
    torch.testing.assert_close(found[1, 2], expected.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("token", "num_clusters"), [("none", 6), ("token", 0)])
def test_ablations_have_no_balance_and_their_matched_scale(token, num_clusters):
    y, x, A, B, p = tensors(NUM_IN, NUM_OUT, 2, 3)
    scales = RoutingScales(6.0, 4.0, 100.0, matched=1.7)
    router = TRexRouter(
        5, NUM_IN, NUM_OUT, pairs="full", token=token, rank=1, num_clusters=num_clusters, mapped=False, scales=scales
    ).double()
    assert "omega" not in dict(router.named_parameters())
    G = 4 * p[0] if token == "none" else torch.full((6,), 6 / 6, dtype=torch.float64)
    expected = y[0, 0] + 0.5 * 1.7 * B @ (G.unflatten(0, (NUM_IN, NUM_OUT)).t() @ (A @ x[0, 0]))
    torch.testing.assert_close(routed_update(y, x, A, B, router, p).y[0, 0].detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kept", ["token", "intuition"])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.05)])
def test_matching_scale_gives_the_root_mean_square_of_the_whole(kept, mean, std):
    p = mean + std * torch.randn(200_000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = 0.5 * SCALES.token_scale / 6 + 0.5 * SCALES.intuition_scale * p
    alone = torch.full_like(p, SCALES.token_scale / 6) if kept == "token" else SCALES.intuition_scale * p
    found = matching_scale(6, SCALES, p.mean(0), p.var(0), kept)
    assert found * alone.square().mean().sqrt().item() == pytest.approx(whole.square().mean().sqrt().item(), rel=1e-4)


@pytest.mark.parametrize(("kind", "num_pairs"), [("raw", 6), ("centered", 6), ("mapped", 4), ("mapped", 9)])
def test_moments_are_those_of_the_transformed_scores(kind, num_pairs):
    centroids = planted_centroids(6)
    generator = torch.Generator().manual_seed(0)
    scores = centroids.mean + centroids.std * torch.randn(100_000, 6, generator=generator)
    mapper = initial_map(num_pairs, 6) if kind == "mapped" else None
    p = of_linear(of_pass(kind, scores, centroids), mapper)
    mean, variance = moments(kind, num_pairs, centroids)
    torch.testing.assert_close(mean, p.mean(0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(variance, p.var(0), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("fields", [{"router": "none"}, {"intuition_transform": "none"}])
def test_ablations_in_a_model_start_at_the_base_and_train(base, fields):
    config = TRexConfig(**({"intuition_transform": "centered"} | fields))
    if config.needs_intuition:
        config.attach_centroids(planted_centroids(32))
    expected = logits(base)
    model = get_peft_model(base, config)
    given = {"intuition": scores()} if config.needs_intuition else {}
    torch.testing.assert_close(logits(model, **given), expected, rtol=0, atol=0)
    model(input_ids=IDS, labels=IDS, **given).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("transform", ["raw", "centered"])
def test_intuition_alone_needs_the_statistics_that_its_scale_is_matched_by(base, transform):
    with pytest.raises(ValueError, match=f"intuition_transform='{transform}' with router='none'.*attach_centroids"):
        get_peft_model(base, TRexConfig(router="none", intuition_transform=transform))


def routers(model, name):
    layer = model.base_model.model.model.layers[1]
    found = dict(layer.named_modules())[name]
    return found.trex_router["default"]


def test_shared_router_is_one_for_the_linears_that_read_the_same(base, tmp_path):
    model = adapted(base, router="shared")
    query, key, value = (routers(model, f"self_attn.{n}_proj") for n in "qkv")
    assert key.reading_weights() is query.W_r
    assert value.reading_weights() is query.W_r
    assert routers(model, "mlp.up_proj").reading_weights() is routers(model, "mlp.gate_proj").W_r
    assert routers(model, "self_attn.o_proj").reading_weights() is not query.W_r
    names = {name for name, _ in model.named_parameters() if name.endswith("W_r")}
    assert len(names) == 4 * 2  # qkv, o, gate and up, down; two layers
    model(input_ids=IDS, labels=IDS, intuition=scores()).loss.backward()
    assert query.W_r.grad.abs().max() > 0

    expected = logits(model, intuition=scores())
    model.save_pretrained(tmp_path)
    restored = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert routers(restored, "self_attn.k_proj").reading_weights() is routers(restored, "self_attn.q_proj").W_r
    torch.testing.assert_close(logits(restored, intuition=scores()), expected, rtol=0, atol=0)


def test_shared_router_starts_with_the_first_linear_that_is_adapted(base):
    model = adapted(base, router="shared", target_modules=["k_proj", "v_proj"])
    assert routers(model, "self_attn.v_proj").reading_weights() is routers(model, "self_attn.k_proj").W_r


def test_shared_router_without_anything_to_share_is_refused(base):
    with pytest.raises(ValueError, match=r"router='shared' has nothing to share.*q_proj, k_proj, v_proj"):
        adapted(base, router="shared", target_modules=["o_proj", "down_proj"])
