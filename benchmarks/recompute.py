"""Make the statistics of a comparison again from its scores: python benchmarks/recompute.py FOLDER [--mirror DIR].

FOLDER holds what launch/compare.py wrote, comparison.json and scores.csv, and its recipe as recipe.yaml. Accuracies,
differences, intervals and p-values are computed anew from the score of every answer, and best guesses from the tasks.
Nothing else of the files changes, but for "recomputed", which says when and with what it was done.

For who doubts the figures, and for results older than a change of the statistics.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trex_ds.comparison.bootstrap import bootstrap
from trex_ds.comparison.config import CompareRecipe
from trex_ds.comparison.output import PLOT_FILE, REPORT_FILE, RESULTS_FILE, SCORES_FILE, STATISTICS, report
from trex_ds.comparison.pareto import draw_pareto
from trex_ds.comparison.results import MethodResult, Results, RunResult, Scores, pairs_of, stacked
from trex_ds.config import read_recipe
from trex_ds.environment import describe_environment
from trex_ds.evaluation.accuracy import Evaluation, Item
from trex_ds.files import atomic_path, write_json
from trex_ds.tasks.base import right_choice
from trex_ds.tasks.source import source_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mirror", help="folder of datasets, as data.mirror of a recipe")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    recipe = read_recipe(CompareRecipe, ["--config", str(folder / "recipe.yaml")], "")
    content = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    scores, examples = read_scores(folder / SCORES_FILE), evaluation_examples(recipe, arguments.mirror)
    asked = {task: accuracy.n for task, accuracy in examples.per_task().items()}
    if any({task: len(values) for task, values in tasks.items()} != asked for tasks in scores.values()):
        sys.exit(f"the recipe's tasks are not those that {folder / SCORES_FILE} has answers of: {asked}")
    results = recomputed(content, recipe, scores, examples)
    content |= {**dataclasses.asdict(results), "statistics": STATISTICS, "recomputed": describe_environment()}
    write_json(folder / RESULTS_FILE, content)
    with atomic_path(folder / REPORT_FILE) as temporary:
        temporary.write_text(report(results), encoding="utf-8")
    draw_pareto(results, folder / PLOT_FILE)


def read_scores(file: Path) -> Scores:
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            tasks = found.setdefault((row["method"], int(row["seed"])), {})
            tasks.setdefault(row["task"], []).append(float(row["score"]))
    return {key: {task: np.array(values) for task, values in tasks.items()} for key, tasks in found.items()}


def evaluation_examples(recipe: CompareRecipe, mirror: str | None) -> Evaluation:
    """Not answered."""
    examples = (
        example for task in recipe.tasks for split, example in source_of(task, mirror).examples() if split != "train"
    )
    return Evaluation([Item(e.task, e.text, e.answer, "", 0.0, right_choice(e)) for e in examples])


def recomputed(content: dict[str, Any], recipe: CompareRecipe, scores: Scores, examples: Evaluation) -> Results:
    untrained = content.get("untrained_tasks", [])
    examples = dataclasses.replace(examples, untrained=frozenset(untrained))
    methods = [_method(method, recipe, scores, untrained) for method in content["methods"]]
    return Results(
        recipe=content["recipe"],
        reference=content["reference"],
        methods=methods,
        base_accuracy=content["base_accuracy"],
        base_tasks=content["base_tasks"],
        best_guess=examples.mean_best_guess(),
        best_guess_tasks=examples.best_guess(),
        pairs=pairs_of(recipe, {method.name: method for method in methods}, scores, untrained),
        notes=content["notes"],
        untrained_tasks=untrained,
    )


def _method(content: dict[str, Any], recipe: CompareRecipe, scores: Scores, untrained: list[str]) -> MethodResult:
    accuracy: Any = None
    tasks: dict[str, Any] = {}
    if any(name == content["name"] for name, _ in scores):
        own = stacked(scores, content["name"], recipe.seeds)
        accuracy, tasks = bootstrap(own, least=0.0, untrained=untrained)
    changed = {
        "runs": [RunResult(**run) for run in content["runs"]],
        "tuning": {float(rate): loss for rate, loss in content["tuning"].items()},
        "accuracy": accuracy,
        "tasks": tasks,
    }
    return MethodResult(**content | changed)


if __name__ == "__main__":
    main()
