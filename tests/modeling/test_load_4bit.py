from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

pytest.importorskip("bitsandbytes")

from tests.conftest import tiny_llama
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.load_4bit import load_in_4bit
from trex_ds.modeling.quantized import Linear4bit, pack, unpack

IDS = torch.tensor([[1, 5, 9, 3, 7], [2, 8, 4, 6, 0]])


def load(folder, dtype=torch.float32):
    return load_in_4bit(str(folder), None, dtype, "sdpa")


def rounded(model: Any) -> Any:
    """`model` with the linears' weights as nf4 keeps them."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if type(module) is nn.Linear and module is not head:
            packed = pack(module.weight.detach(), torch.float32)
            module.weight.data = unpack(packed, (module.out_features, module.in_features), torch.float32)
    return model.eval()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_size", ["5GB", "10KB"])
def test_model_computes_with_quantized_linears_and_the_rest_as_saved(tmp_path, tied, shard_size):
    model = tiny_llama(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors").is_file() == (shard_size == "5GB")
    loaded = load(tmp_path)
    assert sum(isinstance(m, Linear4bit) for m in loaded.modules()) == 14
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())
    torch.testing.assert_close(loaded(IDS).logits, rounded(model)(IDS).logits)


def test_model_generates_with_its_own_generation_config(tmp_path):
    model = tiny_llama()
    model.generation_config.max_new_tokens = 4
    model.generation_config.eos_token_id = 3
    model.save_pretrained(tmp_path)
    loaded = load_base_model(ModelConfig(str(tmp_path), dtype="float32", quantization="nf4"))
    assert loaded.generation_config.eos_token_id == 3
    expected = rounded(model).generate(IDS[:, :-1], do_sample=False)
    assert torch.equal(loaded.generate(IDS[:, :-1], do_sample=False), expected)


def test_all_but_the_linears_has_the_asked_type(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    loaded = load(tmp_path, torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert loaded.model.rotary_emb.inv_freq.dtype == torch.float32


def test_saved_buffers_are_read(tmp_path):
    config = Gemma4TextConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size_per_layer_input=96,
        hidden_size_per_layer_input=8,
    )
    model = Gemma4ForCausalLM(config)
    for layer in model.model.layers:
        layer.layer_scalar.fill_(0.25)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert [layer.layer_scalar.item() for layer in loaded.model.layers] == [0.25, 0.25]
    torch.testing.assert_close(loaded(IDS).logits, rounded(model)(IDS).logits)


def problem(folder) -> str | None:
    return ModelConfig(str(folder), quantization="nf4").quantization_problem()


def test_sound_folder_has_no_problems(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    assert problem(tmp_path) is None


def test_missing_tensor_is_named(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 tensors of a LlamaForCausalLM, model.norm.weight for one"):
        load(tmp_path)


def test_weights_that_are_quantized_already_are_refused(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    assert (problem(tmp_path) or "").startswith("the weights in ")
    with pytest.raises(ValueError, match=r"quantized already \(gptq\); name the original model"):
        load(tmp_path)


def test_folder_without_safetensors_is_refused(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "holds no model.safetensors" in (problem(tmp_path) or "")
