"""What is found of a recipe's model and adapter before anything is prepared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.data.tokenizers import CHATML, make_tokenizer
from tests.families.models import family_model
from tests.training.jobs import write_recipe
from trex_ds.config import ConfigError, read_recipe
from trex_ds.modeling.base import load_tokenizer
from trex_ds.preparation.trial import Trial
from trex_ds.training.prepared import try_recipe
from trex_ds.training.recipe import Recipe

_SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT = {**_SIZES, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 600, "max_position_embeddings": 128}
# Images of four patches, so of four positions.
_IMAGES = {**_SIZES, "image_size": 28, "patch_size": 14}


def trial(folder, family: str | Any | None = None, **overrides) -> Trial:
    """Try the tiny llama of all jobs, a family's model, or of a model that a configuration describes."""
    if family is not None and not isinstance(family, str):
        make_tokenizer(CHATML).save_pretrained(folder / "base")
        family.save_pretrained(folder / "base")
        overrides["model__name"] = str(folder / "base")
    elif family is not None:
        tokenizer = make_tokenizer(CHATML)
        tokenizer.save_pretrained(folder / "base")
        model = family_model(family)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder / "base")
        overrides["model__name"] = str(folder / "base")
    recipe = read_recipe(Recipe, ["--config", str(write_recipe(folder, **overrides))], "")
    return try_recipe(recipe, load_tokenizer(recipe.model.name))


def problems(folder, family: str | Any | None = None, **overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        trial(folder, family, **overrides)
    return "\n".join(caught.value.problems)


def test_the_tiny_llama_of_all_jobs_is_packed_by_positions_and_adapted_whole(tmp_path):
    found = trial(tmp_path)
    assert found.rows.packed is not None
    assert found.rows.packed.mask == "none"
    assert found.coverage.share == 1.0
    assert found.notes == [
        "adapter: trex adapts q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj: "
        "100.0% of the values of the base's matrices"
    ]


@pytest.mark.parametrize("method", ["trex", "lora", "ia3"])
def test_names_that_match_nothing_are_named_with_the_nearest_whatever_the_method(tmp_path, method):
    adapter = {"method": method, "target_modules": ["q_proj", "vproj"]}
    if method == "ia3":
        adapter["feedforward_modules"] = []
    assert "adapter.target_modules: 'vproj' is none of the model's: did you mean 'v_proj'?" in problems(
        tmp_path, adapter=adapter
    )


def test_all_problems_are_told_at_once(tmp_path):
    adapter = {"target_modules": ["Q_proj"], "exclude_modules": ["qq_proj"], "layers_to_transform": [5]}
    found = problems(tmp_path, "opt", adapter=adapter, data__max_length=500)
    assert "data.max_length: 500 tokens are more than the 128 positions" in found
    assert "adapter.target_modules: 'Q_proj'" in found
    assert "adapter.exclude_modules: 'qq_proj'" in found
    assert "adapter.layers_to_transform: the model has no layer 5; its layers are 0 to 1" in found


@pytest.mark.parametrize("family", ["gptj", "mpt"])
def test_a_table_of_positions_that_is_not_learned_has_an_end_too(tmp_path, family):
    assert "data.max_length: 500 tokens are more than the 128 positions" in problems(
        tmp_path, family, data__max_length=500
    )
    assert trial(tmp_path, family, data__max_length=128).learned_positions == 128


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_frequencies_that_change_with_the_longest_example_of_a_batch_are_refused(tmp_path, kind):
    longrope = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 128}
    rope = {"rope_type": kind, "rope_theta": 1e4, **(longrope if kind == "longrope" else {"factor": 4.0})}
    longest = 512 if kind == "longrope" else 128
    config = AutoConfig.for_model("llama", **{**_TEXT, "max_position_embeddings": longest}, rope_parameters=rope)
    model = AutoModelForCausalLM.from_config(config)
    # The fault itself: a row of 2 tokens has other logits behind one of 200 in its batch.
    row, both = torch.tensor([[5, 6]]), torch.full((2, 200), 7)
    both[0, :2], mask = row, torch.ones_like(both)
    mask[0, 2:] = 0
    with torch.no_grad():
        together = model(input_ids=both, attention_mask=mask).logits[:1, :2]
        assert not torch.allclose(together, model(input_ids=row).logits, rtol=0, atol=1e-6)
    more = {"data__max_length": 200, "data__packing": False}
    assert "more than 128 tokens changes the rotary frequencies" in problems(
        tmp_path, config, **more, training__micro_batch_size=2
    )
    assert trial(tmp_path, config, **more, training__micro_batch_size=1)
    assert trial(tmp_path, config, data__max_length=128)


def test_what_sees_images_is_left_out_by_the_names_that_are_told_and_its_positions_do_not_count(tmp_path):
    config = AutoConfig.for_model("gemma3", text_config=_TEXT, vision_config=_IMAGES)
    assert problems(tmp_path, config) == (
        "adapter: a gemma3 does not call fc1, fc2, k_proj, out_proj, q_proj, v_proj "
        "(model.vision_tower.encoder.layers.0.self_attn.k_proj for one), but reads its weights or leaves it out, so an "
        "adapter there would learn nothing; set adapter.exclude_modules: '(.*[.])?(vision_tower)([.].*)?'"
    )
    found = trial(tmp_path, config, adapter__exclude_modules="(.*[.])?(vision_tower)([.].*)?")
    assert found.learned_positions is None
    assert sum("language_model" in name for name in found.coverage.adapted) == 2 * 7 == len(found.coverage.adapted)


def test_a_model_whose_rows_cannot_be_trained_is_refused(tmp_path):
    config = AutoConfig.for_model("xlm-roberta", **_SIZES, vocab_size=600, is_decoder=True)
    assert "model.name: a xlm-roberta gives other logits where positions" in problems(tmp_path, config)
    config.is_decoder = False
    assert "model.name: in a xlm-roberta tokens see those that follow" in problems(tmp_path, config)


def test_a_linear_with_a_forward_of_its_own_is_named(tmp_path):
    config = AutoConfig.for_model("phimoe", **_TEXT, num_local_experts=4)
    found = problems(tmp_path, config)
    assert "model.layers.0.mlp.router is a PhimoeTopKRouter with a forward of its own" in found
    assert "exclude_modules: ['router']" in found
    assert trial(tmp_path, config, adapter__exclude_modules=["router"]).coverage.adapted


def test_rows_are_those_of_the_model_that_is_made_of_a_configuration(tmp_path):
    # AutoModelForCausalLM takes the text part, of which it makes no twin.
    found = trial(tmp_path, AutoConfig.for_model("emu3", text_config={**_TEXT, "pad_token_id": 0}), data__packing=True)
    assert found.rows.packed is None
    assert any(note.startswith("data.packing: rows hold one example each") for note in found.notes)


def test_tokens_that_the_model_does_not_know_are_named(tmp_path):
    write_recipe(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "model")
    rows = len(tokenizer) - 1
    assert f"1 tokens that the model, with {rows} rows of embeddings, does not know: '[PAD]' ({rows})" in problems(
        tmp_path
    )


def test_an_attention_that_the_architecture_lacks_falls_back_with_a_note(tmp_path):
    notes = trial(tmp_path, "gemma2", data__max_length=64).notes
    assert notes[0] == "model.attention: gemma2 has no sdpa attention; eager is used"


def test_rows_of_a_model_with_a_state_are_not_packed_with_a_note(tmp_path):
    found = trial(tmp_path, "lfm2", data__packing=True)
    assert found.rows.packed is None
    assert (
        "data.packing: rows hold one example each, because in lfm2 the segments of a packed row would see each other; "
        "micro_batch_size counts these"
    ) in found.notes


def test_experts_that_are_left_out_are_told_with_their_share(tmp_path):
    notes = "\n".join(trial(tmp_path, "mixtral").notes)
    # Of each layer's matrices: attention 32 * (32 + 16 + 16 + 32), experts 4 * 3 * 32 * 64, router 32 * 4.
    share = 3072 / (3072 + 24576 + 128)
    assert f"adapts q_proj, k_proj, v_proj, o_proj: {share:.1%} of the values" in notes
    assert "trex leaves the experts as they are (experts.gate_up_proj, experts.down_proj)" in notes


def test_lora_adapts_mixtrals_experts_as_peft_does(tmp_path):
    found = trial(tmp_path, "mixtral", adapter={"method": "lora"})
    assert not found.coverage.experts_left_out
    assert found.coverage.share == 1.0


@pytest.mark.parametrize(("family", "names"), [("mamba", "x_proj, dt_proj, out_proj"), ("falcon_h1", "out_proj")])
def test_linears_that_a_model_reads_without_calling_are_refused(tmp_path, family, names):
    found = problems(tmp_path, family)
    assert f"a Mamba mixer reads the weights of {names} without calling them" in found
    assert "set exclude_modules: ['" in found


def test_linears_that_are_read_are_refused_whatever_the_method(tmp_path):
    read = ["dt_proj", "out_proj", "x_proj"]
    adapter = {"method": "lora", "target_modules": "all-linear"}
    found = problems(tmp_path, "jamba", adapter=adapter, data__max_length=64)
    assert "a Mamba mixer reads the weights of dt_proj, out_proj, x_proj without calling them" in found
    assert f"set adapter.exclude_modules: {read}" in found
    assert trial(tmp_path, "jamba", adapter={**adapter, "exclude_modules": read}, data__max_length=64).coverage.adapted


def test_a_step_that_fails_on_the_tiny_model_is_a_problem_that_names_the_error(tmp_path, monkeypatch):
    from trex_ds.adapters.layer import RoutedLinear

    def broken(self, x):
        raise RuntimeError(f"no such thing in {self.name}")

    monkeypatch.setattr(RoutedLinear, "forward", broken)
    assert "cannot be trained with it: no such thing in" in problems(tmp_path)


def test_a_linear_that_is_not_called_is_a_problem(tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: self.up_proj(x) @ self.down_proj.weight.t())
    found = problems(tmp_path)
    assert "a llama does not call down_proj, gate_proj" in found
    assert "set adapter.exclude_modules: ['down_proj', 'gate_proj']" in found


def test_nothing_of_the_machine_is_changed(tmp_path):
    recipe = read_recipe(Recipe, ["--config", str(write_recipe(tmp_path))], "")
    tokenizer = load_tokenizer(recipe.model.name)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    try_recipe(recipe, tokenizer)
    assert torch.equal(torch.rand(3), expected)


def test_a_prompt_without_room_for_its_answer_is_refused_before_training(tmp_path):
    from trex_ds.training.prepared import prepare

    trial(tmp_path, "opt")
    file = write_recipe(tmp_path, model__name=str(tmp_path / "base"), evaluation__max_new_tokens=120)
    recipe = read_recipe(Recipe, ["--config", str(file)], "")
    with pytest.raises(ConfigError, match=r"evaluation prompt of \d+ tokens .* 120, are more than the 128 positions"):
        prepare(recipe, torch.device("cpu"))
