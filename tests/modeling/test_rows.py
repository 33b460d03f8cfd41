"""How rows of an architecture are packed is tried; the families' own results are in tests/families."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from tests.families.models import FAMILIES, family_config, family_model
from trex_ds.modeling import rows
from trex_ds.modeling.rows import PackedForm, Rows, rows_of
from trex_ds.modeling.twin import tiny_twin


@pytest.mark.parametrize(
    ("name", "attention", "form"),
    [
        ("llama", "flash_attention_2", PackedForm("none")),
        ("gpt_oss", "flash_attention_2", PackedForm("none")),
        ("xglm", "flash_attention_2", None),
        ("opt", "eager", PackedForm("additive")),
        ("opt", "sdpa", PackedForm("boolean")),
        ("falcon", "eager", PackedForm("additive")),
        ("lfm2", "flash_attention_2", None),
    ],
)
def test_the_form_depends_on_the_attention(name, attention, form):
    assert rows_of(family_config(name), attention).packed == form


@pytest.mark.parametrize(
    ("name", "left"), [("llama", True), ("mamba", True), ("rwkv", False), ("recurrent_gemma", False)]
)
def test_padding_in_front_is_tried_too(name, left):
    assert rows_of(family_config(name), "eager").left_padding is left


@pytest.mark.parametrize(
    ("name", "is_decoder", "fault"),
    [
        ("bert", True, ""),
        ("bert", False, "in a bert tokens see those that follow them, so there is nothing to predict"),
        ("roberta", True, "a roberta gives other logits where positions from 0 are passed or padding follows"),
    ],
)
def test_what_cannot_be_trained_is_found(name, is_decoder, fault):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(name, **sizes, is_decoder=is_decoder)
    assert rows_of(config, "eager").fault == fault


@pytest.mark.parametrize("name", FAMILIES)
def test_all_families_can_be_trained(name):
    assert rows_of(family_config(name), "eager").fault == ""


@pytest.mark.parametrize("by_layer_type", [False, True])
@pytest.mark.parametrize("mask", ["boolean", "additive"])
def test_masks_let_a_token_see_its_own_segment_up_to_itself(mask, by_layer_type):
    config = family_config("gpt_oss")
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0], [0, 1, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0]])
    found = PackedForm(mask, by_layer_type).arguments(positions, config, torch.float32)["attention_mask"]
    masks = found if by_layer_type else {"full_attention": found}
    assert masks.keys() == ({"full_attention", "sliding_attention"} if by_layer_type else {"full_attention"})
    starts = [[0] * 9 + [9] * 2 + [11], [0] * 2 + [2] * 3 + list(range(5, 12))]
    for kind, made in masks.items():
        window = config.sliding_window if kind == "sliding_attention" else 99
        allowed = made if mask == "boolean" else made == 0
        for row in range(2):
            for query in range(12):
                seen = {key for key in range(starts[row][query], query + 1) if query - key < window}
                assert set(allowed[row, 0, query].nonzero().flatten().tolist()) == seen


@pytest.mark.parametrize("around", [lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta")])
def test_what_is_found_does_not_depend_on_the_pass_that_asks(around):
    rows._tried.cache_clear()
    config = family_config("llama")
    with around():
        found = rows_of(config, "sdpa")
    assert found == Rows(PackedForm("none"), left_padding=True, reason="", fault="")


def test_a_model_of_which_no_twin_can_be_made_is_not_packed(monkeypatch):
    monkeypatch.setattr(rows, "tiny_twin", lambda *_: None)
    config = family_config("llama").__class__(num_hidden_layers=3)
    found = rows_of(config, "sdpa")
    assert (found.packed, found.left_padding) == (None, False)
    assert found.reason.startswith("no tiny llama could be made")


def test_a_twin_that_sees_no_other_segment_shows_nothing(monkeypatch):
    """One layer of attention that is switched off would let any form pass."""

    def blind(config, attention):
        twin = tiny_twin(config, attention)
        for layer in twin.model.layers:
            layer.self_attn.o_proj.weight.data.zero_()
        return twin

    monkeypatch.setattr(rows, "tiny_twin", blind)
    found = rows_of(family_config("llama").__class__(num_hidden_layers=4), "sdpa")
    assert found.packed is None
    assert "did not show" in found.reason


def test_a_twin_has_layers_of_every_kind_and_the_same_weights_each_time():
    config = family_config("gemma3_text").__class__(hidden_size=1152, num_hidden_layers=26, vocab_size=262144)
    one, other = (tiny_twin(config, "eager") for _ in range(2))
    assert set(one.config.layer_types) == set(config.layer_types)
    assert one.config.vocab_size == 128
    assert sum(p.numel() for p in one.parameters()) < 5_000_000
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert config.num_hidden_layers == 26


def test_a_twin_has_layers_that_share_keys_as_its_model_has():
    sizes = {"hidden_size": 64, "intermediate_size": 64, "hidden_size_per_layer_input": 64, "head_dim": 16}
    config = AutoConfig.for_model("gemma3n_text", **sizes, num_attention_heads=4, num_key_value_heads=2)
    assert (config.num_hidden_layers, config.num_kv_shared_layers) == (35, 15)
    twin = tiny_twin(config, "sdpa")
    assert twin.config.num_hidden_layers < 35
    assert "reuse" in twin.config.kv_sharing_modes
    assert rows_of(config, "sdpa").packed == PackedForm("none")


def test_a_packed_pass_that_would_leak_is_refused_in_python_too():
    from peft import get_peft_model

    from tests.adapters.test_peft import IDS, scores
    from trex_ds import TRexConfig

    model = get_peft_model(family_model("bloom"), TRexConfig())
    arguments = {"segment_ids": torch.zeros_like(IDS), "position_ids": torch.arange(6).repeat(2, 1)}
    with pytest.raises(ValueError, match="in bloom the segments of a packed row would see each other; pass one sample"):
        model(input_ids=IDS, intuition=scores().unsqueeze(1), **arguments)
