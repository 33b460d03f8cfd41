from __future__ import annotations

import re

import pytest
import torch
from torch import nn

bitsandbytes = pytest.importorskip("bitsandbytes")

from trex_ds.modeling.config import ModelConfig  # noqa: E402
from trex_ds.modeling.quantized import Linear4bit, pack, packed_bytes, unpack  # noqa: E402


def linear4bit(rows: int, columns: int, dtype=torch.float32, bias: bool = False) -> tuple[Linear4bit, torch.Tensor]:
    """A layer and the weight that it should compute with."""
    torch.manual_seed(rows)
    linear = nn.Linear(columns, rows, bias=bias, dtype=dtype)
    layer = Linear4bit(linear)
    layer.weight = nn.Parameter(pack(linear.weight.detach(), dtype), requires_grad=False)
    return layer, unpack(layer.weight, (rows, columns), torch.float32)


# Whole blocks, a last block that is not full, several blocks of constants, and less than one block.
@pytest.mark.parametrize("shape", [(32, 64), (3, 50), (130, 256), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weight_is_bitsandbytes_own_nf4_with_double_quantization(shape, dtype):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=dtype)
    theirs = bitsandbytes.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True, blocksize=64
    ).to("cpu")
    expected = bitsandbytes.functional.dequantize_4bit(theirs.data, theirs.quant_state)
    packed = pack(weight, dtype)
    assert packed.dtype == dtype
    assert packed.dim() == 1
    assert packed.nbytes == packed_bytes(*shape)
    assert torch.equal(unpack(packed, shape, dtype), expected)
    assert (expected - weight).abs().max() < 0.5 * weight.abs().max()


def test_a_weight_takes_little_more_than_half_a_byte():
    assert packed_bytes(4096, 4096) / 4096**2 == pytest.approx(0.5 + 1 / 64 + 4 / 64 / 256, rel=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_output_and_gradient_are_those_of_the_dequantized_weight(bias):
    layer, weight = linear4bit(6, 10, bias=bias)
    x = torch.randn(2, 3, 10, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.linear(x, weight.double(), layer.bias.double() if bias else None)
    y = layer(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy)
    torch.testing.assert_close(dx, dy @ weight.double(), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(layer, (x,))


def test_bfloat16_input_gives_bfloat16_and_rounds_once():
    layer, weight = linear4bit(64, 128, torch.bfloat16)
    x = torch.randn(4, 128, dtype=torch.bfloat16)
    y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), x.float() @ weight.t(), rtol=2e-2, atol=2e-2)


def test_nothing_is_kept_for_the_backward_pass():
    layer, _ = linear4bit(32, 64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(2, 5, 64, requires_grad=True))
    assert kept == []


def test_evaluation_does_not_change_the_weight():
    layer, _ = linear4bit(32, 64, torch.bfloat16)
    x = torch.randn(2, 64, dtype=torch.bfloat16)
    before, packed = layer.train()(x), layer.weight.clone()
    with torch.no_grad():
        layer.eval()(x)
    assert torch.equal(layer.weight.view(torch.uint8), packed.view(torch.uint8))
    assert torch.equal(layer.train()(x), before)


def test_odd_number_of_weights_is_refused():
    with pytest.raises(ValueError, match="3 x 5 weights cannot be packed in pairs"):
        Linear4bit(nn.Linear(3, 5))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8", "8-bit weights give wrong losses when ZeRO-3 shards them.*; use nf4"),
        ("fp4", "'fp4' is not known; use nf4"),
    ],
)
def test_other_quantizations_are_refused_with_reason_and_alternative(name, message):
    (problem,) = ModelConfig(quantization=name).problems()
    assert re.search(message, problem)


def test_missing_bitsandbytes_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("trex_ds.modeling.config.find_spec", lambda name: None)
    problem = str(ModelConfig(quantization="nf4").quantization_problem())
    assert "pip install bitsandbytes (or the extra 4bit: " in problem
