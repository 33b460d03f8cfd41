"""The recipes of the repository can be used as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trex_ds.comparison.config import CompareRecipe
from trex_ds.config import read_recipe
from trex_ds.modeling.embedded import SMOLLM2
from trex_ds.tasks.harness.index import leaf_configs, name_problem, refusal
from trex_ds.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
COMPARISONS = sorted((ROOT / "launch" / "recipes").glob("compare_*.yaml"))
RECIPES = sorted(set((ROOT / "launch" / "recipes").glob("*.yaml")) - set(COMPARISONS))
PAPER = {
    *("boolq", "multirc", "wic", "wsc", "sglue_rte", "copa", "winogrande", "openbookqa", "anli", "piqa"),
    *("social_iqa", "commonsense_qa", "hellaswag", "mmlu"),
}


def read(file: Path, monkeypatch) -> Recipe:
    monkeypatch.chdir(ROOT)
    # The model may be one of the hub, which tests do not reach.
    return read_recipe(Recipe, ["--config", str(file), "--model.name", SMOLLM2], "")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_is_valid_and_says_how_it_is_started(file, monkeypatch):
    recipe = read(file, monkeypatch)
    first = file.read_text().splitlines()[0]
    assert first.startswith("# deepspeed ")
    assert f"launch/train.py --config launch/recipes/{file.name}" in first
    assert recipe.output_dir == f"runs/{file.stem}"


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.stem)
def test_comparison_is_valid_and_says_how_it_is_started(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(CompareRecipe, ["--config", str(file)], "")
    first = file.read_text().splitlines()[0]
    assert first.startswith("# deepspeed ")
    assert f"launch/compare.py --config launch/recipes/{file.name}" in first
    assert recipe.output_dir == f"runs/{file.stem}"


def test_paper_recipe_names_its_fourteen_tasks_and_bbh(monkeypatch):
    recipe = read(ROOT / "launch" / "recipes" / "paper_tasks.yaml", monkeypatch)
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
def test_best_adapter_is_chosen_on_held_out_examples_while_training(name, monkeypatch):
    recipe = read(ROOT / "launch" / "recipes" / f"{name}.yaml", monkeypatch)
    assert recipe.evaluation.every is not None
    assert recipe.evaluation.every < (recipe.training.max_steps or 1000)
    assert recipe.data.packing
    assert {task.source.partition(":")[0] for task in recipe.tasks} == {"lm_eval"}


def test_recipe_without_lm_eval_names_what_to_install():
    given = ["launch/train.py", "--config", "launch/recipes/real_tasks.yaml", "--tasks", "[{source: 'lm_eval:boolq'}]"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_lm_eval", *given], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "tasks.0.source: lm_eval:boolq needs lm-evaluation-harness" in done.stderr
    assert "pip install 'trex_ds[eval]'" in done.stderr
    assert "Traceback" not in done.stderr
