"""The recipes of the repository can be used as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trex_ds.comparison.config import CompareRecipe
from trex_ds.config import read_recipe
from trex_ds.modeling.embedded import SMOLLM2
from trex_ds.packaged import RECIPES, names_in
from trex_ds.tasks.harness.index import leaf_configs, name_problem, refusal
from trex_ds.training.recipe import Recipe

COMPARISONS = [name for name in names_in(RECIPES) if name.startswith("compare_")]
TRAININGS = [name for name in names_in(RECIPES) if name not in COMPARISONS]
PAPER = {
    *("boolq", "multirc", "wic", "wsc", "sglue_rte", "copa", "winogrande", "openbookqa", "anli", "piqa"),
    *("social_iqa", "commonsense_qa", "hellaswag", "mmlu"),
}


@pytest.fixture
def read(monkeypatch, tmp_path) -> Callable[[str], Recipe]:
    """Read a packaged recipe by its name."""
    monkeypatch.chdir(tmp_path)
    # The model may be one of the hub, which tests do not reach.
    return lambda name: read_recipe(Recipe, ["--config", name, "--model.name", SMOLLM2], "")


def head(name: str) -> list[str]:
    """The lines above a recipe's first value."""
    return [
        line.removeprefix("# ").strip()
        for line in (RECIPES / f"{name}.yaml").read_text().split("\noutput_dir")[0].splitlines()
    ]


@pytest.mark.parametrize("name", TRAININGS)
def test_recipe_is_valid_and_says_how_it_is_started(name, read):
    assert read(name).output_dir == f"runs/{name}"
    schema, summary, _, command, *_ = head(name)
    assert schema == "yaml-language-server: $schema=../schemas/train.json"
    assert summary.endswith(".")
    assert re.fullmatch(rf"deepspeed --num_\w+ \d --module trex_ds train --config {name}( \[.*\])?", command)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison_is_valid_and_says_how_it_is_started(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read_recipe(CompareRecipe, ["--config", name], "").output_dir == f"runs/{name}"
    schema, summary, _, command, *_ = head(name)
    assert schema == "yaml-language-server: $schema=../schemas/compare.json"
    assert summary.endswith(".")
    assert re.fullmatch(rf"deepspeed --num_\w+ \d --module trex_ds compare --config {name}( \[.*\])?", command)


def test_paper_recipe_names_its_fourteen_tasks_and_bbh(read):
    recipe = read("paper_tasks")
    trained = {task.source.removeprefix("lm_eval:") for task in recipe.tasks if task.train_examples != 0}
    others = {task.source.removeprefix("lm_eval:") for task in recipe.tasks if task.train_examples == 0}
    assert trained == PAPER
    assert others == {"bbh_zeroshot"}
    assert [name_problem(name) or refusal(name) for name in trained | others] == [None] * 15
    expanded = {name: leaf_configs(name) for name in trained | others}
    several = {name: len(tasks) for name, tasks in expanded.items() if set(tasks) != {name}}
    assert several == {"anli": 3, "mmlu": 57, "bbh_zeroshot": 27}
    assert {task: y["output_type"] for tasks in expanded.values() for task, y in tasks.items()} == {
        task: "generate_until" if "bbh" in task else "multiple_choice" for tasks in expanded.values() for task in tasks
    }
    # The mmlu splits that the recipe trains on are not those that lm-eval evaluates on or takes its shots from.
    assert {(y["test_split"], y["fewshot_split"]) for y in expanded["mmlu"].values()} == {("test", "dev")}
    (mmlu,) = [task for task in recipe.tasks if task.source == "lm_eval:mmlu"]
    assert mmlu.options == {"training_split": "validation"}


@pytest.mark.parametrize("name", ["paper_tasks", "real_tasks"])
def test_best_adapter_is_chosen_on_held_out_examples_while_training(name, read):
    recipe = read(name)
    assert recipe.evaluation.every is not None
    assert recipe.evaluation.every < (recipe.training.max_steps or 1000)
    assert recipe.data.packing
    assert {task.source.partition(":")[0] for task in recipe.tasks} == {"lm_eval"}


def test_recipe_without_lm_eval_names_what_to_install():
    given = ["launch/train.py", "--config", "real_tasks", "--tasks", "[{source: 'lm_eval:boolq'}]"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_lm_eval", *given],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "tasks.0.source: lm_eval:boolq needs lm-evaluation-harness" in done.stderr
    assert "pip install lm_eval (or the extra eval: pip install 'trex_ds[eval]', in a clone" in done.stderr
    assert "Traceback" not in done.stderr
