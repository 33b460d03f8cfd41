"""The routing weights that a report looks at are those that the layers use."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import get_peft_model

from tests.conftest import tiny_llama
from trex_ds import TRexConfig
from trex_ds.adapters.router import Given
from trex_ds.intuition.centroids import placeholder_centroids
from trex_ds.reporting.routing import (
    RANDOM_ROUTERS,
    _against_random,
    _RandomRouters,
    _routing,
    between_clusters,
    cluster_meaning,
    specialization,
)


def randomized(**options):
    torch.manual_seed(1)
    config = TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6, gate_sharpness=1.0, **options)
    config.attach_centroids(placeholder_centroids(6))
    model = get_peft_model(tiny_llama(), config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    return model


def check_random_routers(own, a, x, shares):
    """Check that shares are what the router gives with the weights that were drawn, and are all different."""
    a, x = a / 100, x / 100  # softmaxes are not to be 0 and 1
    draws = _RandomRouters(0)
    expected = draws.shares(own, a, x)
    reading = own.reading_weights()
    for number in (0, RANDOM_ROUTERS - 1):
        logits = a[..., :0] if reading is None else x @ draws.like(reading)[number].t()
        drawn = {name: draws.like(tensor)[number] for name, tensor in own.others().items()}
        alone = own.token_shares(Given(a, logits, drawn))
        torch.testing.assert_close(expected[number], alone[0, 0])
    assert len({tuple(row) for row in expected.tolist()}) == RANDOM_ROUTERS
    assert shares.shape == expected.shape


@pytest.mark.parametrize("router", ["token", "factorized", "bottleneck", "low_rank", "shared", "none"])
def test_g_gives_what_the_router_gives(router):
    model = randomized(router=router)
    scores = torch.rand(6)
    inputs = []
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    found = _routing(model, [7], scores, _RandomRouters(0))  # one token, so that means are its own
    assert len(found) == 14
    G, shares = found[-1].G, found[-1].shares
    own = layer.trex_router["default"]
    a = inputs[0] @ layer.trex_A["default"].t()
    reading = own.reading_weights()
    logits = a[..., :0] if reading is None else inputs[0] @ reading.t()
    with torch.no_grad():
        z = own.mix(Given(a, logits, own.others(), scores.unsqueeze(0))).z
        z = z / torch.sigmoid(own.scales.gate_sharpness * own.gamma)
    np.testing.assert_allclose(G.reshape(2, 3).T @ a.detach().numpy().ravel(), z.numpy().ravel(), rtol=1e-4, atol=1e-5)
    if router != "none":
        check_random_routers(own, a, inputs[0], found[-1].random)
    if router == "none":
        assert (shares.shape, found[-1].random.shape) == ((0,), (RANDOM_ROUTERS, 0))
    else:
        assert shares.sum() == pytest.approx(1.0, abs=1e-5)
        assert found[-1].random.sum(axis=1) == pytest.approx(np.ones(RANDOM_ROUTERS), abs=1e-5)


def test_diagonal_pairs_have_no_others():
    torch.manual_seed(1)
    config = TRexConfig(num_in_experts=4, num_out_experts=4, num_clusters=4, pairs="diagonal")
    found, *_ = _routing(get_peft_model(tiny_llama(), config), [3, 4, 5], torch.rand(4), _RandomRouters(0))
    assert found.G.shape == (4,)
    assert found.shares == pytest.approx(np.full(4, 0.25))


def test_random_routers_are_as_large_as_the_trained_one_and_stay_the_same():
    weight = torch.nn.Parameter(torch.randn(6, 8) * torch.arange(1, 7).unsqueeze(1))
    drawn = _RandomRouters(0).like(weight)
    assert drawn.shape == (RANDOM_ROUTERS, 6, 8)
    torch.testing.assert_close(drawn.norm(dim=-1), weight.norm(dim=-1).expand(RANDOM_ROUTERS, 6))
    torch.testing.assert_close(_RandomRouters(0).like(weight), drawn)
    both = _RandomRouters(0)
    assert both.like(weight) is both.like(weight)


def test_an_untrained_router_does_not_stand_out_and_one_that_knows_the_clusters_does():
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(4), 10)
    means = generator.normal(size=(4, 16))
    x = means[clusters] + generator.normal(size=(40, 16))  # prompts of a cluster are alike
    logits = np.stack([x @ generator.normal(size=(16, 6)) for _ in range(RANDOM_ROUTERS + 1)])
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    untrained = _against_random(shares[0], shares[1:], clusters)
    assert untrained.p > 0.05
    assert untrained.value > 0.1  # permuted clusters would have let it pass
    trained = _against_random(np.eye(6)[clusters], shares[1:], clusters)
    assert trained.value == pytest.approx(1.0)
    assert trained.p == 1 / (RANDOM_ROUTERS + 1)


def test_without_intuition_there_are_no_clusters():
    assert "takes no intuition" in str(cluster_meaning(SimpleNamespace(intuition=None), seed=0))


def test_an_adapter_of_a_model_with_another_vocabulary_is_not_looked_at(tmp_path, monkeypatch):
    own, other = (SimpleNamespace(get_vocab=lambda words=words: words) for words in ({"a": 0}, {"b": 0}))
    answerer = SimpleNamespace(intuition=object(), tokenizer=own)
    monkeypatch.setattr("trex_ds.answering.Answerer.from_adapter", lambda folder, model=None: answerer)
    with pytest.raises(ValueError, match="another vocabulary than the recipe's"):
        specialization(tmp_path, SimpleNamespace(tokenizer=other), seed=0)


def test_weights_that_differ_by_rounding_alone_have_no_share():
    weights = 0.25 + 1e-17 * np.random.default_rng(0).normal(size=(20, 4))
    assert between_clusters(weights, np.arange(20) % 2) == 0.0
