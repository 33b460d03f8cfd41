"""Check a recipe's data: python launch/validate.py --config RECIPE.yaml [--output FILE.json] [--any.field value ...].

Exit codes: 0, training can start; 1, the data would stop it; 2, the recipe is wrong.
"""

import argparse
import sys
from pathlib import Path

from trex_ds.config import read_recipe, run_or_exit


def main() -> None:
    # Only --output is taken here; the recipe's own reader has the rest, --help among it.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", type=Path)
    arguments, rest = parser.parse_known_args()

    from trex_ds.training.recipe import Recipe

    recipe = read_recipe(Recipe, rest, __doc__)

    from trex_ds.data.validation import validate_tasks
    from trex_ds.data.validation_report import print_validation, save_validation
    from trex_ds.modeling.base import load_tokenizer
    from trex_ds.preparation.trial import try_model

    tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
    for note in try_model(recipe, tokenizer).notes:
        print(note)
    validation = validate_tasks(recipe.tasks, recipe.data, tokenizer, recipe.evaluation.max_new_tokens, progress=True)
    print_validation(validation)
    if arguments.output is not None:
        save_validation(validation, arguments.output)
    if validation.problems:
        sys.exit(1)


if __name__ == "__main__":
    run_or_exit(main)
