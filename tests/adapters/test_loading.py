"""An adapter's file that lacks a tensor is refused, not filled up with what was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftConfig
from safetensors.torch import load_file, save_file

from tests.adapters.methods import METHODS, adapted
from tests.conftest import tiny_llama
from tests.intuition.planted import planted_centroids
from trex_ds import TRexConfig, bf16_matmul
from trex_ds.adapters.counts import count
from trex_ds.adapters.loading import WEIGHTS_FILE, adapt, load_adapted
from trex_ds.adapters.peft_config import peft_config
from trex_ds.methods.lora import Lora
from trex_ds.methods.poly import Mhr
from trex_ds.training.saving import load_adapter


def refused_without_each_kind(folder: Path, model) -> None:
    """Whatever tensor the file lacks, both ways to load it name it; one tensor of each kind is tried."""
    tensors = load_file(folder / WEIGHTS_FILE)
    kinds = {name.rpartition(".")[2]: name for name in tensors}
    for name in kinds.values():
        save_file({key: value for key, value in tensors.items() if key != name}, folder / WEIGHTS_FILE)
        expected = rf"{WEIGHTS_FILE} lacks 1 of the {len(tensors)} tensors of its adapter: {name};"
        with pytest.raises(ValueError, match=expected):
            load_adapted(tiny_llama(), folder)
        with pytest.raises(ValueError, match=expected):
            load_adapter(model, folder)


@pytest.mark.parametrize("method", METHODS)
def test_adapter_without_one_of_its_tensors_is_refused(method, tmp_path):
    model = adapted(method, tiny_llama())
    model.save_pretrained(str(tmp_path))
    load_adapter(model, tmp_path)
    refused_without_each_kind(tmp_path, model)


def test_so_is_one_without_a_module_that_is_trained_in_full(tmp_path):
    model = adapt(tiny_llama(), LoraConfig(modules_to_save=["lm_head"], task_type="CAUSAL_LM"))
    model.save_pretrained(str(tmp_path))
    load_adapter(model, tmp_path)
    refused_without_each_kind(tmp_path, model)


def test_centroids_are_loaded_with_the_adapter_that_reads_them(tmp_path):
    config = TRexConfig(num_in_experts=2, num_out_experts=3, num_clusters=6, intuition_transform="centered")
    config.attach_centroids(planted_centroids(6))
    adapt(tiny_llama(), config).save_pretrained(str(tmp_path))
    loaded = load_adapted(tiny_llama(), tmp_path)
    assert loaded.peft_config["default"].centroids.fingerprint == config.centroids.fingerprint
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_only_the_first_of_many_missing_tensors_are_named(tmp_path):
    adapted("lora", tiny_llama()).save_pretrained(str(tmp_path))
    save_file({}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=r"lacks 28 of the 28 tensors .*, \S+lora_A.weight and 25 more; copy it again"):
        load_adapted(tiny_llama(), tmp_path)


def test_parts_that_do_not_divide_a_linears_features_are_refused():
    config = peft_config(Mhr(r=2, n_skills=2, n_splits=5))
    message = r"n_splits: 5 does not divide the 32 inputs and 32 outputs of \S+q_proj; take a number"
    with pytest.raises(ValueError, match=message):
        adapt(tiny_llama(), config, 1)
    with pytest.raises(ValueError, match=message):
        count(tiny_llama().config, config, tasks=1)


def test_linears_of_an_adapter_multiply_as_those_of_its_base_do(monkeypatch):
    used = []
    monkeypatch.setattr(bf16_matmul, "cpu_lacks_bfloat16", lambda: True)
    real = bf16_matmul._forward
    monkeypatch.setattr(bf16_matmul, "_forward", lambda module, x: used.append(module) or real(module, x))
    model = adapt(tiny_llama().bfloat16(), peft_config(Lora(target_modules=["q_proj"])))
    model(input_ids=torch.arange(5)[None]).logits.sum().backward()
    linears = [module for module in model.modules() if type(module) is torch.nn.Linear]
    assert set(used) == set(linears)
    assert any(module is model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"] for module in used)


def test_a_configuration_of_an_earlier_version_is_read(tmp_path):
    """Names and defaults of the fields in adapter_config.json stay, or adapters could not be loaded any more."""
    written = {
        **{"auto_mapping": None, "base_model_name_or_path": "base", "centroids_fingerprint": None, "dropout": 0.1},
        **{"exclude_modules": None, "gate_sharpness": 100.0, "inference_mode": True, "intuition_scale": 4.0},
        **{"intuition_transform": "mapped", "layers_to_transform": [1], "modules_to_save": None, "num_clusters": 5},
        **{"num_in_experts": 2, "num_out_experts": 3, "pairs": "full", "peft_type": "TREX", "peft_version": "0.21.2"},
        **{"revision": None, "router": "low_rank", "router_rank": 2, "target_modules": ["q_proj", "v_proj"]},
        **{"task_type": "CAUSAL_LM", "token_scale": None},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(written))
    config = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(config, TRexConfig)
    assert (config.num_pairs, config.num_in, config.num_out, config.needs_intuition) == (6, 2, 3, True)
    config.save_pretrained(str(tmp_path / "again"))
    again = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    again["target_modules"].sort()
    assert again == written
