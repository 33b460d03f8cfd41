"""What a method cannot be used with is said with the reason and the way out, before anything is loaded."""

from __future__ import annotations

import json
import re

import pytest

from tests.training.jobs import ZERO3, write_recipe
from trex_ds.config import ConfigError, read_recipe
from trex_ds.training.recipe import Recipe

WHOLE = {"evaluation__every": None}


def problems(folder, adapter, **overrides) -> str:
    file = write_recipe(folder, adapter=adapter, **overrides)
    try:
        read_recipe(Recipe, ["--config", str(file)], "")
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("adapter", "overrides", "message"),
    [
        ("ln_tuning", {}, "training.deepspeed: adapter.method ln_tuning does not work with it: PEFT trains copies"),
        ("loha", {}, "training.deepspeed: adapter.method loha"),
        ("poly", {"data__packing": True}, "data.packing: .*poly .*packed rows.*set it to false, or use lora"),
        ("prompt_tuning", {"data__packing": True}, "data.packing: .*prompt_tuning"),
        ("mhr", {"training__gradient_checkpointing": True}, "training.gradient_checkpointing: .*mhr"),
        ("mhr", {"tasks": [{"source": "lm_eval:boolq"}]}, "tasks.0.source: lm_eval:boolq is asked by"),
        ("dora", {"model": {"dtype": "float32", "quantization": "nf4"}}, "model.quantization: .*dora .*packed"),
        ("adalora", WHOLE, "training.deepspeed: .*adalora .*zero_optimization.stage 0"),
        ("adalora", {}, "evaluation.every: .*adalora"),
    ],
)
def test_refused_with_reason_and_way_out(tmp_path, adapter, overrides, message):
    found = problems(tmp_path, {"method": adapter}, **overrides)
    assert any(re.search(message, line) for line in found.splitlines()), found


def test_adalora_needs_steps_to_take_ranks_away_in_and_ranks_to_take(tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps({**ZERO3, "zero_optimization": {"stage": 0}}))
    plain = {**WHOLE, "training__deepspeed": str(tmp_path / "plain.json")}
    assert problems(tmp_path, {"method": "adalora"}, **plain) == ""
    assert "leave none of the 3 steps" in problems(tmp_path, {"method": "adalora", "tinit": 3}, **plain)
    assert "target_r: must lie between 0 and init_r = 4" in problems(
        tmp_path, {"method": "adalora", "init_r": 4, "target_r": 4}, **plain
    )


@pytest.mark.parametrize("method", ["lora", "vera", "ia3", "poly", "prompt_tuning"])
def test_the_others_pass(tmp_path, method):
    assert problems(tmp_path, {"method": method}) == ""
