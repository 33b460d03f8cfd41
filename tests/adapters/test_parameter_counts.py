"""The paper's counts (docs/method.md), to the parameter, on LLaMA-2's shapes without its weights."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trex_ds import TRexConfig

SHAPES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}


@pytest.mark.parametrize(
    ("size", "num_in", "num_out", "expected"),
    [
        ("7b", 4, 8, 51_872_192),
        ("13b", 4, 8, 81_183_280),
        ("7b", 8, 8, 92_864_960),
        ("13b", 8, 8, 145_326_640),
    ],
)
def test_trainable_parameters(size, num_in, num_out, expected):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, **SHAPES[size]))
        config = TRexConfig(num_in_experts=num_in, num_out_experts=num_out, num_clusters=num_in * num_out)
        model = get_peft_model(model, config)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_experts_alone():
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, **SHAPES["7b"]))
        model = get_peft_model(model, TRexConfig())
    experts = sum(p.numel() for n, p in model.named_parameters() if ".trex_" in n and not n.endswith("W_r"))
    assert experts == 15_434_176
