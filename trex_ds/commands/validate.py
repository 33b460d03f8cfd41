"""Check a recipe's data and model before training.

Usage:
    trex-ds validate --config RECIPE [--output FILE.json] [--any.field VALUE ...]

Exit codes: 0, training can start; 1, the data would stop it; 2, the recipe is wrong.

Examples:
    trex-ds validate --config quickstart
    trex-ds validate --config my.yaml --tasks '[{source: "file:examples.jsonl"}]' --output found.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trex_ds.config import read_recipe, section
from trex_ds.training.recipe import Recipe


@section
class ValidatedRecipe(Recipe):
    """A training recipe whose data is checked."""

    output: Path | None = None
    """File for what was found, as JSON."""


def main(argv: Sequence[str]) -> int:
    """Read the recipe, check its data and print what was found; 1 if the data would stop a training."""
    recipe = read_recipe(ValidatedRecipe, argv, __doc__)

    from trex_ds.data.validation import validate_tasks
    from trex_ds.data.validation_report import print_validation, save_validation
    from trex_ds.modeling.base import load_tokenizer
    from trex_ds.training.prepared import try_recipe

    tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
    for note in try_recipe(recipe, tokenizer).notes:
        print(note)
    validation = validate_tasks(recipe.tasks, recipe.data, tokenizer, recipe.evaluation.max_new_tokens, progress=True)
    print_validation(validation)
    if recipe.output is not None:
        save_validation(validation, recipe.output)
    return 1 if validation.problems else 0
