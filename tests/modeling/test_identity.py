"""A base model is known by its weights, wherever it lies and however it was saved."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import tiny_llama
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.identity import BaseIdentity, base_identity, check_base


def weights_of(folder) -> str:
    found = base_identity(ModelConfig(name=str(folder)))
    assert found is not None
    return found.weights


@pytest.fixture
def saved(tmp_path):
    model = tiny_llama(
        hidden_size=64, intermediate_size=600, vocab_size=700
    )  # 44,800 embeddings: more than all samples
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_moved_a_resharded_and_a_wider_copy_are_the_same_model(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "moved")
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    half = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    half.float().save_pretrained(tmp_path / "wider")
    assert weights_of(tmp_path / "moved") == weights_of(saved)
    assert weights_of(tmp_path / "shards") == weights_of(saved)
    assert weights_of(tmp_path / "half") != weights_of(saved)
    assert weights_of(tmp_path / "wider") == weights_of(tmp_path / "half")


def test_any_tensor_that_is_trained_makes_another_model(saved, tmp_path):
    tensors = load_file(saved / "model.safetensors")
    assert len(tensors) > 20
    for name in tensors:
        copy = shutil.copytree(saved, tmp_path / name)
        save_file(tensors | {name: tensors[name] * 1.01}, copy / "model.safetensors")
        assert weights_of(copy) != weights_of(saved)


def test_each_element_of_a_small_tensor_counts(saved, tmp_path):
    tensors = load_file(saved / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    for position in (0, 2047, 2048, tensors[name].numel() - 1):
        changed = tensors[name].clone()
        changed.view(-1)[position] += 1
        copy = shutil.copytree(saved, tmp_path / str(position))
        save_file(tensors | {name: changed}, copy / "model.safetensors")
        assert weights_of(copy) != weights_of(saved)


def test_pickled_weights_are_told_apart_too(saved, tmp_path):
    for name, factor in (("a", 1.0), ("b", 2.0)):
        folder = shutil.copytree(saved, tmp_path / name)
        (folder / "model.safetensors").unlink()
        torch.save({"x": factor * torch.ones(3)}, folder / "pytorch_model.bin")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "copy") != weights_of(tmp_path / "b")


def test_the_same_weights_with_another_config_are_another_model(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["num_attention_heads"] *= 2
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 77.0}
    (copy / "config.json").write_text(json.dumps(config))
    found, other = (base_identity(ModelConfig(name=str(folder))) for folder in (saved, copy))
    assert found is not None
    assert other is not None
    heads = found.config["num_attention_heads"]
    assert found.difference(other) == (
        f"num_attention_heads {heads}, not {2 * heads}; rope_theta {found.config['rope_theta']}, not 77.0"
    )
    older = BaseIdentity(other.name, other.weights, {"model_type": "llama"})  # that knew fewer fields
    assert found.difference(older) == ""


def test_another_stretch_of_the_rotation_is_another_model(saved, tmp_path):
    found = []
    for factor in (2.0, 4.0):
        copy = tmp_path / str(factor)
        shutil.copytree(saved, copy)
        config = json.loads((copy / "config.json").read_text())
        config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 10000.0, "factor": factor}
        (copy / "config.json").write_text(json.dumps(config))
        found.append(base_identity(ModelConfig(name=str(copy))))
    assert found[0].difference(found[1]) == "rope_factor 2.0, not 4.0"


def test_an_adapter_refuses_another_base_model_and_names_both(saved, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    model = ModelConfig(name=str(saved))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    check_base(model, adapter)
    assert caplog.messages == [f"{adapter} does not say what weights its base model had; make sure that {saved} is it"]
    trained_on = BaseIdentity("org/first", "0" * 16, {"model_type": "llama"})
    trained_on.save(adapter)
    with pytest.raises(
        ValueError, match=r"trained on org/first \(llama, weights 0{16}\), and .*/model \(llama, weights"
    ):
        check_base(model, adapter)
    (adapter / "base_model.json").write_text("{")
    with pytest.raises(ValueError, match=r"base_model.json is damaged"):
        check_base(model, adapter)
    found = base_identity(model)
    assert found is not None
    found.save(adapter)
    check_base(model, adapter)
    assert len(caplog.messages) == 1
