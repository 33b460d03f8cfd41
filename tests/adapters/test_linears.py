"""Linears of every kind: inputs of any number of dimensions, GPT-2's, outputs that are added to in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from tests.adapters.test_peft import IDS, adapted, perturb, scores
from tests.conftest import tiny_llama
from trex_ds import TRexConfig
from trex_ds.adapters.layer import RoutedLinear
from trex_ds.adapters.passes import Pass
from trex_ds.adapters.side_input import SideInput


def make_layer(base: nn.Module | None = None) -> RoutedLinear:
    torch.manual_seed(0)
    layer = RoutedLinear(base or nn.Linear(6, 5), SideInput(), "model.layers.0.fc1")
    layer._active_adapter = ["default"]  # type: ignore[assignment]
    layer.update_layer("default", TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6))
    perturb_layer(layer)
    return layer.double()


def perturb_layer(layer: RoutedLinear) -> None:
    for name, parameter in layer.named_parameters():
        if "trex_" in name:
            parameter.data.copy_(torch.randn(parameter.shape) * (0.01 if parameter.numel() == 1 else 0.5))


X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
C = torch.rand(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def expected(layer: RoutedLinear) -> torch.Tensor:
    """The formula, token by token."""
    A, B = layer.trex_A["default"], layer.trex_B["default"]
    router: Any = layer.trex_router["default"]
    w, gate = torch.sigmoid(100 * router.omega), torch.sigmoid(100 * router.gamma)
    out = layer.base_layer(X)
    rows = []
    for b in range(3):
        for t in range(4):
            G = (6 * w * torch.softmax(router.W_r @ X[b, t], 0) + 4 * (1 - w) * C[b]).reshape(2, 3)
            rows.append(out[b, t] + gate * B @ (G.T @ (A @ X[b, t])))
    return torch.stack(rows).view(3, 4, 5)


KEPT = torch.tensor([[True, False, True, False], [False, False, False, True], [True, True, False, False]])
SEGMENTS = torch.arange(3).repeat_interleave(4).view(2, 6)


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (lambda t: t, Pass({"default": C}, (3, 4))),
        (lambda t: t.reshape(12, -1), Pass({"default": C}, (3, 4))),
        (lambda t: t.reshape(1, 12, -1), Pass({"default": C}, (3, 4))),
        (lambda t: t[:, :, None], Pass({"default": C}, (3, 4))),
        (lambda t: t.transpose(1, 2)[:, :, None].transpose(1, 3), Pass({"default": C}, (3, 4))),
        (lambda t: t[:, 0], Pass({"default": C}, (3, 4))),
        (lambda t: t[:, -2:], Pass({"default": C}, (3, 4), kept=2)),
        (lambda t: t[KEPT], Pass({"default": C}, (3, 4), kept=KEPT)),
        (lambda t: t.reshape(2, 6, -1), Pass({"default": C}, (2, 6), SEGMENTS)),
        (lambda t: t.reshape(12, -1), Pass({"default": C}, (2, 6), SEGMENTS)),
        (lambda t: t.reshape(2, 6, 1, -1), Pass({"default": C}, (2, 6), SEGMENTS)),
        (lambda t: t.reshape(2, 1, 6, -1), Pass({"default": C}, (2, 6), SEGMENTS)),
        (lambda t: t.reshape(2, 6, -1)[:, -3:], Pass({"default": C}, (2, 6), SEGMENTS, kept=3)),
        (lambda t: t.reshape(2, 6, -1)[KEPT.view(2, 6)], Pass({"default": C}, (2, 6), SEGMENTS, kept=KEPT.view(2, 6))),
        (lambda t: t.reshape(2, 6, -1)[:, [1, 4]], Pass({"default": C}, (2, 6), SEGMENTS, kept=torch.tensor([1, 4]))),
    ],
)
def test_each_token_has_its_samples_update_whatever_the_form_of_the_input(given, passed):
    layer = make_layer()
    layer.side_input.current = passed
    torch.testing.assert_close(layer(given(X)), given(expected(layer)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (X[:, :3].reshape(9, 6), Pass({"default": C}, (3, 4))),
        (X.reshape(2, 6, 6)[:, :5], Pass({"default": C}, (2, 6), SEGMENTS)),
        (torch.zeros(2, 6, 6, 6, dtype=torch.float64), Pass({"default": C}, (2, 6), SEGMENTS)),
    ],
)
def test_an_input_whose_tokens_cannot_be_told_is_refused_by_the_linears_name(given, passed):
    layer = make_layer()
    layer.side_input.current = passed
    with pytest.raises(ValueError, match=r"model\.layers\.0\.fc1"):
        layer(given)


def test_gpt2s_linear_is_the_transposed_one():
    conv = Conv1D(5, 6)
    layer = make_layer(conv)
    linear = nn.Linear(6, 5)
    linear.weight.data, linear.bias.data = conv.weight.data.t(), conv.bias.data
    same = make_layer(linear.double())
    layer.side_input.current = same.side_input.current = Pass({"default": C}, (3, 4))
    torch.testing.assert_close(layer(X), same(X), rtol=1e-12, atol=1e-12)
    assert (layer.in_features, layer.out_features) == (6, 5)


def test_gpt2_is_adapted_whole():
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    model = get_peft_model(base, TRexConfig())
    names = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, RoutedLinear)}
    assert names == {"c_attn", "c_proj", "c_fc"}
    perturb(model)
    model(input_ids=IDS, labels=IDS, intuition=scores()).loss.backward()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_model_may_add_to_the_output_in_place(dropout):
    layer = make_layer()
    layer.dropout["default"] = dropout
    layer.train().side_input.current = Pass({"default": C}, (3, 4))
    residual = torch.randn(3, 4, 5, dtype=torch.float64)
    gradients = []
    for in_place in (False, True):
        torch.manual_seed(0)
        x = X.clone().requires_grad_()
        y = layer(x)
        y = y.add_(residual) if in_place else y + residual
        y.square().sum().backward()
        gradients.append([x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
        layer.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_output_head_is_routed_where_logits_are_kept():
    model = adapted(tiny_llama().double(), target_modules=["q_proj", "lm_head"])
    with torch.no_grad():
        whole = model(input_ids=IDS, intuition=scores()).logits
        keep = torch.zeros_like(IDS, dtype=torch.bool)
        keep[0, 1], keep[0, 4], keep[1, 3] = True, True, True
        some = model(input_ids=IDS, intuition=scores(), logits_to_keep=keep).logits
    torch.testing.assert_close(some, whole[keep])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": ["q_proj", "vproj"]}, "target_modules: 'vproj' .* did you mean 'v_proj'"),
        ({"target_modules": ["Q_proj"]}, "did you mean 'q_proj'"),
        ({"target_modules": r".*\.qproj"}, "regular expression .* did you mean 'q_proj'"),
        ({"exclude_modules": ["qq_proj"]}, "exclude_modules: 'qq_proj' .* did you mean 'q_proj'"),
        ({"layers_to_transform": [0, 7]}, "layers_to_transform: the model has no layer 7; its layers are 0 to 1"),
        ({"modules_to_save": ["lm_hed"]}, "modules_to_save: 'lm_hed' .* did you mean 'lm_head'"),
    ],
)
def test_names_that_match_nothing_are_refused_with_the_nearest(base, fields, message):
    with pytest.raises(ValueError, match=message):
        get_peft_model(base, TRexConfig(**fields))
