"""Parameters of models that only a configuration is there of; the numbers are those of docs and papers."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig

from tests.planning.jobs import planned_recipe
from trex_ds.config import ConfigError
from trex_ds.modeling.held import held_by_this_rank
from trex_ds.planning.meta_model import meta_model

LLAMA2 = {
    # width, inner width, layers, heads, key heads; parameters of the base and of T-REX(4, 8) on all linears
    "7b": (4096, 11008, 32, 32, 32, 6_738_415_616, 51_872_192),
    "13b": (5120, 13824, 40, 40, 40, 13_015_864_320, 81_183_280),
    "70b": (8192, 28672, 80, 64, 8, 68_976_648_192, 277_873_760),
}


def write_config(folder, size):
    width, inner, layers, heads, key_heads, *_ = LLAMA2[size]
    LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=32000,
    ).save_pretrained(folder)


@pytest.mark.parametrize("size", LLAMA2)
def test_parameters_of_llama_2_from_its_configuration(size, tmp_path):
    write_config(tmp_path / size, size)
    model = meta_model(planned_recipe(tmp_path, model__name=str(tmp_path / size), adapter={}))
    *_, base, trained = LLAMA2[size]
    roles = held_by_this_rank(model).roles
    assert roles["base"].parameters == base
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_linears_in_4_bits_store_what_the_real_ones_do(tmp_path):
    write_config(tmp_path / "7b", "7b")
    recipe = planned_recipe(tmp_path, model__name=str(tmp_path / "7b"), model__quantization="nf4", adapter={})
    share = held_by_this_rank(meta_model(recipe)).roles["base"]
    embeddings_and_norms = 2 * 32000 * 4096 + 65 * 4096
    linears = share.parameters - embeddings_and_norms
    assert share.parameters == LLAMA2["7b"][5]
    # Half a byte a weight, a byte a block of 64, four a block of 256 of those.
    expected = linears * (1 / 2 + 1 / 64 + 4 / 64 / 256) + 4 * embeddings_and_norms  # float32
    assert share.stored_bytes == pytest.approx(expected, rel=1e-6)


def test_a_configuration_of_no_causal_model_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConfigError, match="other' describes no model that could be planned"):
        meta_model(planned_recipe(tmp_path, model__name=str(tmp_path / "other")))
