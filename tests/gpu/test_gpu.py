"""The same figures on a GPU as on a CPU: layer, 4-bit weights, packed attention, jobs. `make gpu-check` runs them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from tests.adapters.test_packing import IDS, POSITIONS, SEGMENTS, packed_scores
from tests.adapters.test_packing import logits as packed_logits
from tests.adapters.test_peft import perturb
from tests.adapters.test_routed_update import SCALES, tensors
from tests.conftest import tiny_llama
from tests.ranks import run_ranks
from tests.training.jobs import ZERO3, run_job, write_recipe
from trex_ds import TRexConfig
from trex_ds.adapters.routed_update import routed_update, routed_update_reference
from trex_ds.modeling.quantized import Linear4bit, pack, unpack

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here; `make gpu-check` runs these on a machine with one"
)


def update_and_gradients(function, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    inputs = [t.to(device=device, dtype=dtype).requires_grad_() for t in tensors(4, 8, 3, 17, n=64, m=96)]
    out = function(*inputs, SCALES)
    dy = torch.linspace(-1, 1, out.numel(), device=device).view(out.shape).to(out.dtype)
    return [t.detach().double().cpu() for t in (out, *torch.autograd.grad(out, inputs, dy))]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 5e-2)]
)
@pytest.mark.parametrize("function", [routed_update, routed_update_reference])
def test_update_and_gradients_are_those_of_float64_on_the_cpu(function, dtype, tolerance):
    expected = update_and_gradients(routed_update_reference, torch.float64, "cpu")
    for mine, theirs in zip(update_and_gradients(function, dtype, DEVICE), expected, strict=True):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_packed_weight_is_read_alike_on_gpu_and_cpu(dtype):
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    for packed in (pack(weight, dtype), pack(weight.to(DEVICE), dtype).cpu()):
        on_cpu, on_gpu = unpack(packed, (96, 256), torch.float32), unpack(packed.to(DEVICE), (96, 256), torch.float32)
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-6, atol=1e-7)
        assert (on_cpu - weight).abs().mean() < 0.1


def test_linear_in_4_bits_has_the_gradient_of_its_weight():
    layer = Linear4bit(torch.nn.Linear(128, 64, bias=False))
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    layer.weight = torch.nn.Parameter(pack(weight, torch.float32), requires_grad=False)
    layer = layer.to(DEVICE)
    x = torch.randn(2, 5, 128, device=DEVICE, requires_grad=True)
    dequantized = unpack(layer.weight, (64, 128), torch.float32)
    torch.testing.assert_close(layer(x), x @ dequantized.t(), rtol=1e-4, atol=1e-4)
    (dx,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(dx, dequantized.sum(0).expand_as(dx), rtol=1e-4, atol=1e-4)


FLASH = ["flash_attention_2"] if importlib.util.find_spec("flash_attn") is not None else []


@pytest.mark.parametrize("attention", ["sdpa", *FLASH])
def test_packed_rows_have_the_logits_of_eager_attention_on_the_cpu(attention):
    def adapted(attention: str) -> torch.nn.Module:
        model = get_peft_model(tiny_llama(attn_implementation=attention), TRexConfig())
        perturb(model)
        return model.eval()

    expected = packed_logits(adapted("eager"))
    half = attention != "sdpa"  # flash attention has 16 bits only
    model = adapted(attention).to(DEVICE, torch.bfloat16 if half else torch.float32)
    inputs = {"input_ids": IDS, "position_ids": POSITIONS, "segment_ids": SEGMENTS, "intuition": packed_scores()}
    found = packed_logits(model, **{name: tensor.to(DEVICE) for name, tensor in inputs.items()}).float().cpu()
    torch.testing.assert_close(found, expected, rtol=0.1 if half else 1e-3, atol=0.1 if half else 1e-3)


def jobs_of_one_process(files: list[Path]) -> list[dict]:
    return [run_job(file) for file in files]


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_jobs_under_zero3_have_the_losses_of_one_without_it(tmp_path, quantization):
    model = {"name": str(tmp_path / "model"), "dtype": "float32", "quantization": quantization}
    stages = {"plain": {"stage": 0}, "sharded": ZERO3["zero_optimization"]}
    files = []
    for name, zero in {**stages, "checkpointed": stages["sharded"]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**ZERO3, "zero_optimization": zero}))
        settings = {"model": model, "training__deepspeed": str(tmp_path / f"{name}.json")}
        checkpointing = name == "checkpointed"
        settings |= {"output_dir": str(tmp_path / name), "training__gradient_checkpointing": checkpointing}
        files.append(write_recipe(tmp_path, **settings))
    plain, *others = run_ranks(1, tmp_path, jobs_of_one_process, files)[0]
    assert len(set(plain["losses"].values())) == 3
    for other in others:
        assert other["losses"] == pytest.approx(plain["losses"], abs=1e-5)
        assert other["adapted"] == plain["adapted"]
