"""Prepare a recipe's data ahead: python launch/prepare.py --config RECIPE.yaml [--show N] [--any.field value ...].

Fetches, renders, tokenizes, embeds and clusters all that launch/train.py needs into the cache folder, and says
what each stage cost. --show N prints N training and N evaluation examples of each task as the model gets them.
"""

import sys

from trex_ds.config import read_recipe, run_or_exit, take_number
from trex_ds.training.processes import check_processes_fit


def main() -> None:
    check_processes_fit()
    from trex_ds.training.recipe import Recipe

    arguments, show = take_number(sys.argv[1:], "--show")
    recipe = read_recipe(Recipe, arguments, __doc__)

    from trex_ds.training.preparing import prepare_ahead

    prepare_ahead(recipe, show)


if __name__ == "__main__":
    run_or_exit(main)
