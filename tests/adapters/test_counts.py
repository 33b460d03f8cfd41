"""The published table (docs/report.md), to the parameter, from meta models alone."""

from __future__ import annotations

import pytest
from peft import LoraConfig

from tests.adapters.methods import METHODS, TASKS, adapted, section, trained
from tests.conftest import tiny_llama
from trex_ds import TRexConfig
from trex_ds.adapters import counts
from trex_ds.adapters.architectures import ARCHITECTURES
from trex_ds.adapters.flylora import FlyLoraConfig
from trex_ds.adapters.hydralora import HydraLoraConfig
from trex_ds.adapters.molora import MoLoraConfig
from trex_ds.adapters.peft_config import peft_config
from trex_ds.adapters.sira import SiraConfig
from trex_ds.config import ConfigError
from trex_ds.methods.trex import MoR1E

TABLE = {
    "trex": (TRexConfig(intuition_transform="centered"), 51_872_192, 81_183_280),
    "lora_r16": (LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"), 39_976_960, 62_586_880),
    "lora_r32": (LoraConfig(r=32, target_modules="all-linear", task_type="CAUSAL_LM"), 79_953_920, 125_173_760),
    "molora_8x4": (MoLoraConfig(num_experts=8, r=4), 89_063_424, 139_427_840),
    "sira_8x4": (SiraConfig(num_experts=8, r=4), 89_063_424, 139_427_840),
    "hydralora_3x8": (HydraLoraConfig(num_heads=3, r=8), 45_162_496, 70_717_440),
    "hydralora_3x16": (HydraLoraConfig(num_heads=3, r=16), 86_908_928, 136_089_600),
    "mor1e_32": (peft_config(MoR1E(num_experts=32)), 116_392_384, 182_190_640),
    "flylora_r32": (FlyLoraConfig(r=32), 43_515_904, 68_157_440),
    "trex_8x8": (TRexConfig(num_in_experts=8, num_out_experts=8, num_clusters=64), 92_864_960, 145_326_640),
}


@pytest.mark.battery
@pytest.mark.parametrize("method", TABLE)
def test_trained_parameters_of_the_table(method):
    adapter, small, large = TABLE[method]
    for model, expected in (("LLaMA-2-7B", small), ("LLaMA-2-13B", large)):
        assert counts.trained(counts.count(counts.model_config(model), adapter)) == expected


@pytest.mark.parametrize("method", METHODS)
def test_counts_are_those_of_a_real_model(method):
    model = adapted(method, tiny_llama())
    own = peft_config(section(method))
    found = counts.count(model.config, own, tasks=len(TASKS))
    assert counts.trained(found) == sum(parameter.numel() for parameter in trained(model).values())
    assert own == peft_config(section(method))


def test_how_many_tasks_are_learned_apart_must_be_said():
    with pytest.raises(ValueError, match="count needs their number: pass tasks"):
        counts.count(tiny_llama().config, peft_config(section("poly")))


@pytest.mark.parametrize("model", ["LLaMA-3-8B", "Qwen2.5-7B", "SmolLM2-135M"])
def test_other_models_by_role(model):
    sizes = ARCHITECTURES[model]
    width, wide = sizes["hidden_size"], sizes["intermediate_size"]
    key = width * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    linears = [(width, width), (width, key), (width, key), (width, width), (width, wide), (width, wide), (wide, width)]
    layers = sizes["num_hidden_layers"]
    found = counts.count(counts.model_config(model), TRexConfig())
    assert found[counts.A] == layers * sum(4 * n for n, _ in linears)
    assert found[counts.B] == layers * sum(8 * m for _, m in linears)
    assert found[counts.ROUTER] == layers * sum(32 * n for n, _ in linears)
    assert found[counts.GATES] == layers * 7 * 2
    assert sum(found.values()) == counts.trained(found) == sum(found[role] for role in counts.ROLES[:4])


def test_experts_alone_mapper_and_what_is_not_trained():
    config = counts.model_config("LLaMA-2-7B")
    trex = counts.count(config, TRexConfig(intuition_transform="mapped"))
    assert trex[counts.A] + trex[counts.B] + trex[counts.GATES] == 15_434_176
    assert trex[counts.MAPPER] == 32 * 7 * 32 * 32
    fly = counts.count(config, FlyLoraConfig(r=32))
    assert fly[counts.FROZEN] == 79_953_920 - 43_515_904
    assert fly[counts.A] == 0


@pytest.mark.battery
def test_equal_parameter_rank():
    config = counts.model_config("LLaMA-2-7B")
    assert counts.equal_parameter_rank(config, TRexConfig()) == 21
    assert counts.equal_parameter_rank(config, LoraConfig(r=16, target_modules="all-linear")) == 16
    only = counts.equal_parameter_rank(config, TRexConfig(target_modules=["q_proj"]))
    assert only == -(-(4 * 4096 + 8 * 4096 + 32 * 4096 + 2) // (2 * 4096))


def test_unknown_model(tmp_path):
    with pytest.raises(ConfigError, match="describes no model whose parameters could be counted"):
        counts.model_config(str(tmp_path))
