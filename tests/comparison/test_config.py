"""Mistakes in a comparison: all of them at once, each with its place and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.comparison.jobs import LARGE, SMALL, write_comparison
from trex_ds.comparison.config import CompareRecipe
from trex_ds.config import ConfigError, read_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("config")


def read(folder: Path, *options: str, **overrides: Any) -> CompareRecipe:
    return read_recipe(CompareRecipe, ["--config", str(write_comparison(folder, **overrides)), *options], "")


def problems(folder: Path, *options: str, **overrides: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read(folder, *options, **overrides)
    return raised.value.problems


def test_sound_comparison_is_read_and_overridden(folder):
    recipe = read(folder, "--training.max_steps", "7", "--methods.small.dropout", "0.5", "--seeds", "[4]")
    assert recipe.training.max_steps == 7
    assert recipe.methods["small"].dropout == 0.5
    assert (recipe.seeds, recipe.reference_method) == ([4], "large")
    child = recipe.child(recipe.methods["small"], 4, output_dir="elsewhere")
    assert (child.seed, child.adapter.dropout, child.training.max_steps) == (4, 0.5, 7)
    assert (type(child).__name__, child.output_dir) == ("Recipe", "elsewhere")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"methods": {}}, "methods: required"),
        ({"methods": {"a/b": SMALL}}, "methods: 'a/b' is not a valid folder name"),
        ({"methods": {"lora_equal": SMALL}}, "methods: lora_equal is the name of the LoRA that is always added"),
        ({"methods": {"x": SMALL | {"num_in_expert": 3}}}, "unknown key; did you mean methods.x.num_in_experts?"),
        ({"methods": {"x": SMALL | {"num_clusters": 7}}}, "methods.x.num_clusters: is 7 but"),
        ({"reference": "tiny"}, "reference: 'tiny' is not one of the methods: large, small"),
        ({"baselines": ["large", "tiny"]}, "baselines.1: 'tiny' is not one of the methods"),
        ({"methods": {"x": SMALL | {"layers_to_transform": [0]}}}, "methods.x.layers_to_transform: the LoRA of"),
        ({"seeds": [1, 1]}, "seeds: a seed is given twice"),
        ({"seeds": []}, "seeds: "),
        ({"seed": 3}, "seed: has no effect in a comparison; use seeds"),
        ({"training__resume": True}, "training.resume: has no effect"),
        ({"training__save_every": 5}, "training.save_every: has no effect"),
        ({"training__deepspeed": "gone.json"}, "training.deepspeed: no file 'gone.json'"),
        ({"tuning": {"learning_rates": [1e-3, 1e-2], "max_steps": 2}}, "data.left_out: tuning measures the loss"),
        ({"tuning": {"learning_rates": [1e-3], "max_steps": 2}}, "tuning.learning_rates: "),
        ({"tuning": {"learning_rates": [1e-3, 1e-3], "max_steps": 2}}, "a value is given twice"),
        ({"tuning": {"learning_rates": [1e-3, 1e-2]}}, "tuning.max_steps: required"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_mistake_is_named(folder, overrides, expected):
    assert any(expected in line for line in problems(folder, **overrides)), problems(folder, **overrides)


def test_a_comparison_of_nothing_is_refused(folder):
    (found,) = problems(folder, tasks=[{"source": f"file:{folder}/tasks.jsonl", "evaluation_examples": 0}])
    assert found.startswith("tasks: none has evaluation examples, by which methods are compared")


def test_an_adapter_beside_the_methods_is_refused(folder):
    assert any(line.startswith("adapter: has no effect") for line in problems(folder, "--adapter.dropout", "0.5"))


def test_tuning_shorter_than_the_warm_up_is_refused(folder):
    tuning = {"learning_rates": [1e-3, 1e-2], "max_steps": 5}
    found = problems(folder, tuning=tuning, training__warmup_steps=5, data__left_out=4)
    assert [line.split(" (")[0] for line in found] == [
        "tuning.max_steps: 5 steps are over before training.warmup_steps, 5; raise it"
    ]


def test_all_mistakes_come_at_once(folder):
    found = problems(
        folder, "--modl.name", "x", methods={"a": SMALL | {"dropout": 2.0}, "b": LARGE}, seeds=[-1], reference="c"
    )
    assert len(found) == 3
    assert any("did you mean model.name" in line or "did you mean model" in line for line in found)


def test_what_all_methods_share_is_said_once(folder, tmp_path):
    found = problems(folder, "--intuition.centroids", str(tmp_path))
    assert len([line for line in found if "intuition.centroids" in line]) == 1
