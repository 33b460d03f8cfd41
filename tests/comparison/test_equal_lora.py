"""The rank of the LoRA that has as many parameters as the reference."""

from __future__ import annotations

import pytest

from tests.planning.jobs import planned_recipe
from tests.planning.test_meta_model import LLAMA2, write_config
from trex_ds.comparison.equal_lora import equal_lora, trainable_parameters


def test_rank_on_llama_2_7b_is_that_of_the_documents(tmp_path):
    write_config(tmp_path / "7b", "7b")
    recipe = planned_recipe(tmp_path, model__name=str(tmp_path / "7b"), adapter={})
    per_rank = 39_976_960 // 16
    assert trainable_parameters(recipe) == LLAMA2["7b"][6]
    assert equal_lora(recipe).r == 21
    assert 20 * per_rank < LLAMA2["7b"][6] <= 21 * per_rank


@pytest.mark.parametrize("adapter", [{}, {"target_modules": ["q_proj", "down_proj"]}, {"modules_to_save": ["lm_head"]}])
def test_control_adapts_what_the_reference_adapts(tmp_path, adapter):
    recipe = planned_recipe(tmp_path, adapter=adapter)
    section = equal_lora(recipe)
    width, inner, keys, pairs = 32, 48, 16, 32
    linears = {"q_proj": (width, width), "down_proj": (inner, width)}
    if "target_modules" not in adapter:
        linears |= {"k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (width, width)}
        linears |= {"gate_proj": (width, inner), "up_proj": (width, inner)}
    reference = sum(4 * n + 8 * m + pairs * n + 2 for n, m in linears.values())
    per_rank = sum(n + m for n, m in linears.values())
    assert (section.r - 1) * per_rank < reference <= section.r * per_rank
    assert section.lora_alpha == 2 * section.r
    wanted = {"target_modules": "all-linear", "modules_to_save": None} | adapter
    assert {name: getattr(section, name) for name in wanted} == wanted


def test_control_of_a_method_that_names_no_linears_adapts_all(tmp_path):
    section = equal_lora(planned_recipe(tmp_path, adapter={"method": "ia3"}))
    assert (section.target_modules, section.r) == ("all-linear", 1)
