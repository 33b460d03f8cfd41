"""The papers' counts (docs/methods.md), to the parameter, on LLaMA-2's shapes without its weights."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trex_ds.adapters.peft_config import peft_config
from trex_ds.methods.config import METHODS

SHAPES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}
CHEAPER = {"factorized": (44, 62), "bottleneck": (70, 100), "low_rank": (61, 87), "shared": (24, 35)}
NO_INTUITION = {"intuition_transform": "none"}


def linears(size):
    """(in, out) of the seven linears of a layer, and the number of layers."""
    hidden, inner = SHAPES[size]["hidden_size"], SHAPES[size]["intermediate_size"]
    return [(hidden, hidden)] * 4 + [(hidden, inner)] * 2 + [(inner, hidden)], SHAPES[size]["num_hidden_layers"]


def trainable(size, method, **fields):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, **SHAPES[size]))
        model = get_peft_model(model, peft_config(METHODS[method](**fields)))
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("method", "fields", "of_7b", "of_13b"),
    [
        ("trex", {}, 51_872_192, 81_183_280),
        ("trex", {"num_in_experts": 8, "num_clusters": 64}, 92_864_960, 145_326_640),
        ("lora", {"r": 16}, 39_976_960, 62_586_880),
        ("lora", {"r": 32}, 79_953_920, 125_173_760),
        ("molora", {}, 89_063_424, 139_427_840),
        ("sira", {}, 89_063_424, 139_427_840),
        ("hydralora", {"r": 8}, 45_162_496, 70_717_440),
        ("hydralora", {"r": 16}, 86_908_928, 136_089_600),
        ("mor1e", {}, 116_392_384, 182_190_640),
        ("flylora", {}, 43_515_904, 68_157_440),
    ],
)
def test_trainable_parameters(method, fields, of_7b, of_13b):
    assert sum(trainable("7b", method, **fields).values()) == of_7b
    assert sum(trainable("13b", method, **fields).values()) == of_13b


def test_experts_alone():
    found = trainable("7b", "trex")
    assert sum(count for name, count in found.items() if not name.endswith("W_r")) == 15_434_176


@pytest.mark.parametrize(
    ("method", "fields", "per_linear"),
    [
        ("smora", {"r": 32}, lambda n, m: 32 * (n + m) + 32 * n),
        ("mora", {"r": 32}, lambda n, m: 32 * (n + m)),
        ("trex", {"router": "factorized"}, lambda n, m: 4 * n + 8 * m + 12 * n + 2),
        ("trex", {"router": "bottleneck"}, lambda n, m: 4 * n + 8 * m + 32 * 4 + 2),
        ("trex", {"router": "low_rank", "router_rank": 3}, lambda n, m: 4 * n + 8 * m + 3 * (n + 32) + 2),
        ("trex", {"intuition_transform": "mapped", "num_clusters": 20}, lambda n, m: 4 * n + 8 * m + 32 * n + 2 + 640),
        ("trex", NO_INTUITION, lambda n, m: 4 * n + 8 * m + 32 * n + 1),
    ],
)
def test_formulas(method, fields, per_linear):
    sizes, layers = linears("7b")
    assert sum(trainable("7b", method, **fields).values()) == layers * sum(per_linear(n, m) for n, m in sizes)


def test_cheaper_routers_save_what_the_docs_say():
    """Cheaper routers keep the pairs of the paper's setting; percentages of all its parameters, and of its router's."""
    counts = {kind: trainable("7b", "trex", router=kind) for kind in ("token", *CHEAPER)}
    whole = sum(counts["token"].values())
    router = whole - 15_434_176
    saved = {kind: whole - sum(counts[kind].values()) for kind in CHEAPER}
    assert {kind: (round(100 * s / whole), round(100 * s / router)) for kind, s in saved.items()} == CHEAPER
