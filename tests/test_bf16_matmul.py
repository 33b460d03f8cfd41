"""Products in float32 for bfloat16 tensors, forced on whatever this CPU can do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.conftest import tiny_llama
from trex_ds import bf16_matmul


@pytest.fixture
def slow_cpu(monkeypatch):
    monkeypatch.setattr(bf16_matmul, "cpu_lacks_bfloat16", lambda: True)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_equals_its_float64_self_within_bfloat16(slow_cpu, trainable, bias):
    torch.manual_seed(0)
    layer = nn.Linear(40, 24, bias=bias).bfloat16().requires_grad_(trainable)
    exact = nn.Linear(40, 24, bias=bias).double()
    exact.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
    bf16_matmul.use_float32_products(layer)
    x = torch.randn(2, 5, 40).bfloat16().requires_grad_()
    x64 = x.detach().double().requires_grad_()
    dy = torch.randn(2, 5, 24).bfloat16()
    layer(x).backward(dy)
    exact(x64).backward(dy.double())
    torch.testing.assert_close(layer(x).double(), exact(x64), rtol=8e-3, atol=8e-3)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=8e-3, atol=8e-3)
    if trainable:
        for mine, theirs in zip(layer.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=8e-3, atol=3e-2)
    else:
        assert all(p.grad is None for p in layer.parameters())


def test_float32_models_are_left_as_they_are(slow_cpu, base):
    ids = torch.arange(6)[None]
    before = base(ids).logits
    bf16_matmul.use_float32_products(base)
    assert torch.equal(base(ids).logits, before)


def test_bfloat16_model_keeps_its_weights_and_nothing_in_float32(slow_cpu):
    model = tiny_llama().bfloat16()
    keys = model.state_dict().keys()
    bf16_matmul.use_float32_products(model)
    kept = []
    embeddings = model.get_input_embeddings()(torch.arange(6)[None]).detach().requires_grad_()
    model.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(inputs_embeds=embeddings).logits.sum().backward()
    weights = {p.data_ptr() for p in model.parameters()}
    copies = [t for t in kept if t.dtype is torch.float32 and t.shape in {p.shape for p in model.parameters()}]
    assert not copies
    assert any(t.data_ptr() in weights for t in kept)
    assert model.state_dict().keys() == keys
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert embeddings.grad.abs().max() > 0


def test_matmul_keeps_the_type(slow_cpu):
    a, b = torch.randn(3, 4).bfloat16(), torch.randn(4, 5).bfloat16()
    torch.testing.assert_close(bf16_matmul.matmul(a, b), (a.double() @ b.double()).bfloat16(), rtol=8e-3, atol=1e-2)
    assert bf16_matmul.matmul(a.float(), b.float()).dtype is torch.float32


@pytest.mark.parametrize("packed", [False, True])
def test_attention_equals_its_float64_self_within_bfloat16(slow_cpu, packed):
    model = tiny_llama(attn_implementation="sdpa").bfloat16()
    exact = tiny_llama(attn_implementation="sdpa").double()
    exact.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    bf16_matmul.use_float32_products(model)
    assert model.config._attn_implementation != exact.config._attn_implementation == "sdpa"
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 0, 1, 2, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])
    inputs = {"position_ids": positions, "use_cache": False} if packed else {"attention_mask": mask}
    ids = torch.arange(16).reshape(2, 8)
    mine, theirs = model(ids, **inputs).logits, exact(ids, **inputs).logits
    shown = mask.bool() if not packed else torch.ones(2, 8, dtype=torch.bool)
    torch.testing.assert_close(mine[shown].double(), theirs[shown], rtol=2e-2, atol=2e-2)
    unmasked = exact(ids).logits
    assert (unmasked - theirs)[shown].abs().max() > 0.1  # what is masked matters
