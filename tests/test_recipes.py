"""The recipes of the repository can be used as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from trex_ds.config import read_recipe
from trex_ds.modeling.embedded import SMOLLM2
from trex_ds.tasks.harness_index import name_problem
from trex_ds.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "launch" / "recipes").glob("*.yaml"))
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


def test_paper_recipe_names_its_fourteen_tasks_and_bbh(monkeypatch):
    recipe = read(ROOT / "launch" / "recipes" / "paper_tasks.yaml", monkeypatch)
    trained = {task.source.removeprefix("lm_eval:") for task in recipe.tasks if task.train_examples != 0}
    others = {task.source.removeprefix("lm_eval:") for task in recipe.tasks if task.train_examples == 0}
    assert trained == PAPER
    assert others == {"bbh_zeroshot"}
    assert [name_problem(name) for name in trained | others] == [None] * 15
