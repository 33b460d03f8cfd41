"""The routing weights that a report looks at are those that the layers use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import get_peft_model

from tests.conftest import tiny_llama
from trex_ds import TRexConfig
from trex_ds.intuition.centroids import placeholder_centroids
from trex_ds.reporting.routing import _routing


def randomized(**options):
    torch.manual_seed(1)
    config = TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6, gate_sharpness=1.0, **options)
    config.attach_centroids(placeholder_centroids(6))
    model = get_peft_model(tiny_llama(), config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("router", ["token", "factorized", "bottleneck", "low_rank", "shared", "none"])
def test_g_gives_what_the_router_gives(router):
    model = randomized(router=router)
    scores = torch.rand(6)
    inputs = []
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    found = _routing(model, [7], scores)  # one token, so that means are its own
    assert len(found) == 14
    G, shares = found[-1]
    own = layer.trex_router["default"]
    a = inputs[0] @ layer.trex_A["default"].t()
    logits = a[..., :0] if own.rows() is None else inputs[0] @ own.rows().t()
    with torch.no_grad():
        z = own.mix(a, logits, own.others(), scores.unsqueeze(0), None).z / torch.sigmoid(
            own.scales.gate_sharpness * own.gamma
        )
    np.testing.assert_allclose(G.reshape(2, 3).T @ a.detach().numpy().ravel(), z.numpy().ravel(), rtol=1e-4, atol=1e-5)
    if router == "none":
        assert shares is None
    else:
        assert shares.sum() == pytest.approx(1.0, abs=1e-5)


def test_diagonal_pairs_have_no_others():
    torch.manual_seed(1)
    config = TRexConfig(num_in_experts=4, num_out_experts=4, num_clusters=4, pairs="diagonal")
    (G, shares), *_ = _routing(get_peft_model(tiny_llama(), config), [3, 4, 5], torch.rand(4))
    assert G.shape == (4,)
    assert shares == pytest.approx(np.full(4, 0.25))
